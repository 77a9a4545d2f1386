"""THE preprocessing: the one geometry, and the one normalisation, of training, evaluation and serving.

Resizing is Pillow's, because the checkpoints' own image processors use it and a backbone is sensitive to the
rule. Torch's uint8 antialiased interpolation is twice as fast, but on photographs it was measured up to 2
(bilinear) and 7 (bicubic) grey levels away from Pillow's; images are decoded once, so exactness won.

Shape letters: B batch, H W pixels, h w pixels of the image as it came.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor

from headfirst.errors import DataError, InputError
from headfirst.types import Preprocessing

MAX_PIXELS = 200_000_000
"""No image of more pixels is decoded or made: 200 megapixels are 600 MB."""

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def preprocess(image: UInt8[np.ndarray, "h w 3"], preprocessing: Preprocessing) -> UInt8[np.ndarray, "H W 3"]:
    """Resize and centre-crop one RGB image, as `transformers`' image processors do (Pillow's rule).

    Args:
        image: (h, w, 3) uint8 RGB.
        preprocessing: its `resize`, `resample` and `crop` are used; `mean` and `std` are not.

    Returns:
        (H, W, 3) uint8, where (H, W) is `preprocessing.size`.

    Raises:
        DataError: the image is so long and thin that its resized form would pass 200 megapixels.

    >>> square = Preprocessing(resize=4, resample="bilinear", crop=(4, 4), mean=(0.5,) * 3, std=(0.5,) * 3)
    >>> preprocess(np.full((8, 6, 3), 7, dtype=np.uint8), square).shape
    (4, 4, 3)
    """
    size = resized_size((image.shape[0], image.shape[1]), preprocessing.resize)
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(
            f"{image.shape[1]}×{image.shape[0]} pixels would be resized to {size[1]}×{size[0]}, "
            f"more than {MAX_PIXELS // 10**6} megapixels; cut the image"
        )
    if size != image.shape[:2]:
        picture = Image.fromarray(image)
        image = np.asarray(picture.resize((size[1], size[0]), _RESAMPLING[preprocessing.resample]))
    if preprocessing.crop is not None:
        image = centre_crop(image, preprocessing.crop)
    return np.ascontiguousarray(image)


def resized_size(size: tuple[int, int], resize: tuple[int, int] | int | None) -> tuple[int, int]:
    """`(height, width)` after the resize; an int is the new shortest edge, the longest rounding down.

    >>> resized_size((227, 300), 256)
    (256, 338)
    """
    if resize is None:
        return size
    if not isinstance(resize, int):
        return resize
    height, width = size
    if width <= height:
        return int(resize * height / width), resize
    return resize, int(resize * width / height)


def centre_crop(image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """The middle `(height, width)`; what an image is short of is filled with zeros.

    Odd margins go as in `transformers.image_transforms.center_crop`: the smaller half is cut from the
    top left, the larger half is padded there.
    """
    for axis, wanted in enumerate(size):
        margin = image.shape[axis] - wanted
        if margin >= 0:
            start = margin // 2
            image = image[start : start + wanted] if axis == 0 else image[:, start : start + wanted]
        else:
            before = (1 - margin) // 2
            padding = [(0, 0)] * 3
            padding[axis] = (before, -margin - before)
            image = np.pad(image, padding)
    return image


def normalise(
    images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"], preprocessing: Preprocessing
) -> Float32[Tensor, "b 3 h w"]:
    """(x / 255 − mean) / std, channel by channel.

    Args:
        images: (B, 3, H, W) RGB in 0 … 255, uint8 or floating.
        preprocessing: its `mean` and `std` are used.

    Returns:
        (B, 3, H, W) float32.
    """
    mean = torch.tensor(preprocessing.mean, dtype=torch.float32, device=images.device).view(3, 1, 1)
    std = torch.tensor(preprocessing.std, dtype=torch.float32, device=images.device).view(3, 1, 1)
    if bool((std <= 0).any()):
        raise InputError(f"std must be positive for every channel, got {preprocessing.std}")
    return (images.to(torch.float32) / 255 - mean) / std


def geometry_key(preprocessing: Preprocessing) -> str:
    """Hash of what decides the cached pixels: resize, resample, crop; not mean and std, which come later."""
    geometry = {
        "resize": preprocessing.resize,
        "resample": preprocessing.resample,
        "crop": preprocessing.crop,
    }
    return hashlib.sha256(json.dumps(geometry, sort_keys=True).encode()).hexdigest()[:16]

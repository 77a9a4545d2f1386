"""Random crops and mirror images on whole batches: one `grid_sample`, its geometry keyed by the sample.

Shape letters: B batch, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

from headfirst.data.geometry import affine_maps, crop_extents, resample
from headfirst.errors import InputError
from headfirst.randomness import keyed_uniform

MIN_AREA = 0.7
"""The smallest crop, as a share of the image's area."""

MAX_ASPECT = 4 / 3
"""The longest crop: height and width are stretched against each other by no more."""


def augment(
    images: UInt8[Tensor, "b 3 h w"],
    *,
    seed: int,
    epoch: int,
    samples: Sequence[int] | np.ndarray,
    mirror: bool,
) -> Float32[Tensor, "b 3 h w"]:
    """A random resized crop of every image, and its mirror image half of the time.

    The crop's area is uniform in [0.7, 1] of the image's, its aspect log-uniform in [3/4, 4/3] as far as it
    fits, its place uniform (Szegedy et al., CVPR 2015, section 6, with a narrower range of areas, since few
    labels are adapted here and objects should stay in view). What a sample gets depends on
    (seed, epoch, sample) alone, never on its batch.

    Args:
        images: (B, 3, H, W) uint8 RGB.
        seed: of the run.
        epoch: which pass over the samples.
        samples: (B,) which sample each image is, e.g. its index in the training split.
        mirror: whether a mirrored image keeps its label (`ImageSet.mirror`).

    Returns:
        (B, 3, H, W) float32 in [0, 255].

    Raises:
        InputError: there is not one sample number an image.

    >>> pictures = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    >>> augment(pictures, seed=0, epoch=0, samples=[4, 5], mirror=True).shape
    torch.Size([2, 3, 8, 8])
    """
    numbers = np.asarray(samples, dtype=np.int64)
    if numbers.shape != (len(images),):
        raise InputError(f"one sample number an image is needed: {len(images)} images, {numbers.shape} numbers")
    windows = crop_windows(seed, epoch, numbers, mirror=mirror)
    none = np.zeros(len(images))
    height, width = images.shape[2:]
    maps = affine_maps(windows, angle=none, lean=none, mirrored=none > 0, shape=(height, width))
    return resample(images.to(torch.float32), maps, (height, width), padding="border")


def crop_windows(seed: int, epoch: int, samples: np.ndarray, *, mirror: bool) -> Float64[np.ndarray, "b 2 2"]:
    """(B, 2, 2): for x and y, the crop's half-length (negative: mirrored) and centre in [-1, 1]."""
    area, aspect, left, top, side = (keyed_uniform(seed, epoch, samples, stream) for stream in range(5))
    area = MIN_AREA + (1 - MIN_AREA) * area
    stretch = np.exp((2 * aspect - 1) * np.log(MAX_ASPECT))
    windows = crop_extents(area, stretch, left, top)
    windows[:, 0, 0] *= np.where((side < 0.5) & mirror, -1, 1)
    return windows

"""Golden inputs: a few made-up images that a saved model is asked about again whenever it is loaded.

They are made from a fixed key, so an artefact carries no image of its user's.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from headfirst.data import normalise, preprocess
from headfirst.nn import ImageClassifier
from headfirst.randomness import keyed_uniform
from headfirst.types import Preprocessing

NUM_IMAGES = 4
_CELLS = 9


def golden_images(preprocessing: Preprocessing) -> list[np.ndarray]:
    """Smooth random colour fields with a hard edge, (h, w, 3) uint8, larger than the model's input and not square."""
    height, width = preprocessing.size
    size = (height + height // 3, width + width // 2)
    images = []
    for number in range(NUM_IMAGES):
        draws = keyed_uniform(0x601D, number, np.arange(3 * _CELLS * _CELLS)).reshape(1, 3, _CELLS, _CELLS)
        field = F.interpolate(torch.from_numpy(draws), size=size, mode="bicubic", align_corners=False)[0]
        field[:, : size[0] // (number + 2)] = 1 - field[:, : size[0] // (number + 2)]
        images.append((field.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy())
    return images


def golden_pixels(preprocessing: Preprocessing) -> UInt8[Tensor, "n 3 h w"]:
    """The golden images, resized and cropped."""
    pixels = np.stack([preprocess(image, preprocessing) for image in golden_images(preprocessing)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def golden_outputs(classifier: ImageClassifier) -> Float[Tensor, "n k"]:
    """The classifier's float32 logits of the golden images, preprocessing included."""
    preprocessing = classifier.backbone.preprocessing
    with torch.inference_mode():
        return classifier.eval()(normalise(golden_pixels(preprocessing), preprocessing)).float()


def golden_mismatch(expected: Tensor, got: Tensor) -> float:
    """Largest difference, relative to the largest expected output.

    >>> round(golden_mismatch(torch.tensor([[2.0, -4.0]]), torch.tensor([[2.0, -4.4]])), 6)
    0.1
    """
    return ((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12)).item()

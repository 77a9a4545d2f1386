"""Augmentation that a diffusion model does not learn to make: the network is told of it, and of none when it samples.

What enters: images and uniform numbers. What leaves: images moved and mirrored, and what was done to each.

Shape letters: N images, C channels, S pixels a side.

Source: Karras et al. (EDM), NeurIPS 2022, appendix F.2, with whole-pixel shifts and mirroring alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError
from headfirst.randomness import keyed_uniform

NUM_TOLD = 3
"""Numbers that describe an augmentation: shift right and down as shares of the largest, and mirrored or not."""
_SHIFTED, _RIGHT, _DOWN, _MIRRORED = range(4)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to images on the way to training.

    Attributes:
        probability: of each kind, for each image, anew in each epoch.
        shift: of the side, at most; what comes in from outside repeats the edge.
        mirror: whether left and right are exchanged too. Not where that makes another class of an image, as of digits.

    Raises:
        InputError: numbers that cannot be.
    """

    probability: float = 0.12
    shift: float = 0.125
    mirror: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1 or not 0 <= self.shift < 0.5:
            raise InputError(
                f"probability must lie in (0, 1] and shift in [0, 0.5), got {self.probability} and {self.shift}; "
                "None is no augmentation"
            )

    def __call__(
        self, images: Float[Tensor, "n c s s"], *key: int | np.ndarray
    ) -> tuple[Float[Tensor, "n c s s"], Float[Tensor, "n 3"]]:
        """The images, some of them changed, and what was done to each, zeros where nothing was.

        Args:
            key: of the random numbers, the last part (N,) integers.
        """
        side, largest = images.shape[-1], int(self.shift * images.shape[-1])
        draws = [keyed_uniform(*key, stream) for stream in range(4)]
        moves = (draws[_SHIFTED] < self.probability) & (largest > 0)
        right, down = (
            np.where(moves, np.floor(draws[stream] * (2 * largest + 1)).astype(int) - largest, 0)
            for stream in (_RIGHT, _DOWN)
        )
        mirrored = (draws[_MIRRORED] < self.probability) & self.mirror
        places = np.arange(side)
        rows = np.clip(places - down[:, None], 0, side - 1)
        columns = np.where(mirrored[:, None], side - 1 - places, places)
        columns = np.clip(columns - np.where(mirrored, -right, right)[:, None], 0, side - 1)
        n = np.arange(len(images))[:, None, None]
        changed = images.permute(0, 2, 3, 1)[n, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        told = np.stack([right / max(largest, 1), down / max(largest, 1), mirrored], axis=1)
        return changed.contiguous(), torch.from_numpy(told).float()

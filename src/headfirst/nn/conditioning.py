"""What a denoising network is told beside the image: noise level, class, a number, an augmentation; one vector a row.

Shape letters: N rows, D features, K classes, A numbers that describe an augmentation.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.errors import InputError

_NUM_FREQUENCIES = 16
_HIGHEST = 16.0  # radians a unit of c_noise: higher ones make D jump in σ, and samplers of high order suffer


class Conditioning(nn.Module):
    """(N, D) from c_noise, labels and what else there is.

    Args:
        dim: D.
        num_classes: K; label K is "no class".
        num_augmentation: A; 0 for a network that is never shown augmented images.

    Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (EDM), NeurIPS 2022,
    appendix F.1: embeddings are added; without a bias the augmentation's is zero where there is none (F.2).
    """

    frequencies: Tensor

    def __init__(self, dim: int, *, num_classes: int, num_augmentation: int = 0) -> None:
        super().__init__()
        self.num_classes, self.num_augmentation = num_classes, num_augmentation
        omega = torch.logspace(0, math.log10(_HIGHEST), _NUM_FREQUENCIES, dtype=torch.float64).float()
        self.register_buffer("frequencies", omega, persistent=False)
        self.level = nn.Linear(2 * _NUM_FREQUENCIES, dim)
        self.label = nn.Embedding(num_classes + 1, dim)
        self.extra = nn.Linear(2 * _NUM_FREQUENCIES, dim, bias=False)
        self.augmentation = nn.Linear(num_augmentation, dim, bias=False) if num_augmentation else None
        self.out = nn.Linear(dim, dim)
        nn.init.normal_(self.label.weight, std=0.5)
        nn.init.zeros_(self.extra.weight)

    def forward(
        self,
        c_noise: Float[Tensor, " n"],
        labels: Int[Tensor, " n"] | None,
        extra: Float[Tensor, " n"] | None = None,
        augmentation: Float[Tensor, "n a"] | None = None,
    ) -> Float[Tensor, "n d"]:
        """
        Args:
            labels: in 0 … K; None is "no class" for all.
            extra: a number each, such as the guidance scale of a distilled student; None is none.
            augmentation: zeros for images as they are; None is zeros for all.

        Raises:
            InputError: an augmentation for a network that knows none.
        """
        if augmentation is not None and self.augmentation is None:
            raise InputError("the network was built without augmentation and cannot be told of one; build it with it")
        if labels is None:
            labels = torch.full(c_noise.shape, self.num_classes, device=c_noise.device)
        told = self.level(self._waves(c_noise)) + self.label(labels)
        if extra is not None:
            told = told + self.extra(self._waves(extra))
        if augmentation is not None and self.augmentation is not None:
            told = told + self.augmentation(augmentation)
        return F.silu(self.out(F.silu(told)))

    def _waves(self, number: Tensor) -> Tensor:
        angles = number.to(self.level.weight)[:, None] * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=1)

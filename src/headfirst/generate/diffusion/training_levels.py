"""Which noise levels a training sees: log-normal ones, or more of those whose loss is large.

What enters: uniform numbers. What leaves: levels, and what each row's loss is multiplied by so that the mean stays that
of the log-normal distribution. Shape letters: N rows, B bins, H remembered losses of a bin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.special import ndtri

from headfirst.errors import InputError

BINS = 32
REMEMBERED = 10
"""Losses of a bin, the latest; as long as one has fewer, all bins are drawn alike."""
_ALIKE = 0.001  # share of the draws that stays spread over all bins alike


@dataclass(frozen=True, kw_only=True)
class LogNormalLevels:
    """ln σ ~ N(mean, std²).

    Where the levels lie decides what is learned: -1.2 and 1.2, of photographs of 32 and 64 pixels in the source, left
    digits of 28 in pieces, for their shape is told at σ from 0.5 to 10.

    Source: Karras et al. (EDM), NeurIPS 2022, section 5 and table 1 (P_mean, P_std).

    Raises:
        InputError: numbers that cannot be.
    """

    mean: float = 0.3
    std: float = 1.4

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean) or not 0 < self.std < math.inf:
            raise InputError(f"mean must be finite and std positive, got {self.mean} and {self.std}")

    def quantile(self, u: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """σ below which a share u in (0, 1) of the levels lies; float64."""
        return (self.mean + self.std * ndtri(u.double())).exp()


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnLevels:
    """`sigma`, what the loss of each is multiplied by (`weight`), and the `bins` they were drawn from; (N,) each."""

    sigma: Float[Tensor, " n"]
    weight: Float[Tensor, " n"]
    bins: Int[Tensor, " n"]


class ImportanceLevels(nn.Module):
    """Levels drawn in proportion to the root of the mean squared loss of their bin; bins are equally likely at first.

    The bins are quantiles of the base distribution. What is remembered is in buffers, so that a checkpoint keeps it.

    Source: Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", ICML 2021, section 3.3, with bins of
    a continuous level in place of discrete times.
    """

    losses: Tensor
    counts: Tensor

    def __init__(self, base: LogNormalLevels) -> None:
        super().__init__()
        self.base = base
        self.register_buffer("losses", torch.zeros(BINS, REMEMBERED, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(BINS, dtype=torch.int64))

    @property
    def probabilities(self) -> Float[Tensor, " b"]:
        """Of the bins, float64."""
        alike = torch.full_like(self.losses[:, 0], 1 / BINS)
        roots = self.losses.square().mean(dim=1).sqrt()
        if int(self.counts.min()) < REMEMBERED or not roots.sum() > 0:
            return alike
        return (1 - _ALIKE) * roots / roots.sum() + _ALIKE * alike

    def draw(self, u: Float[Tensor, " n"]) -> DrawnLevels:
        """
        Args:
            u: (N,) float64 in [0, 1), uniform.
        """
        p = self.probabilities
        edges = p.cumsum(dim=0)
        bins = torch.searchsorted(edges, u * edges[-1], right=True).clamp(max=BINS - 1)
        within = ((u * edges[-1] - (edges - p)[bins]) / p[bins]).clamp(1e-9, 1 - 1e-9)
        return DrawnLevels(sigma=self.base.quantile((bins + within) / BINS), weight=1 / (BINS * p[bins]), bins=bins)

    def learn(self, drawn: DrawnLevels, losses: Float[Tensor, " n"]) -> None:
        """Remember the losses of drawn levels, unweighted by importance; the order of the rows counts."""
        for b, loss in zip(drawn.bins.tolist(), losses.detach().double().tolist(), strict=True):
            self.losses[b, int(self.counts[b]) % REMEMBERED] = loss
            self.counts[b] += 1

"""The variational bound on log p(x₀) of a chain of denoising steps, and the variances that make it tightest.

What enters: a denoiser, images, falling levels. What leaves: nats an image, from above on -log p(x₀). Shape letters: N
images, D numbers of an image, M levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError
from headfirst.generate.diffusion.noise import Streams, normal_like
from headfirst.generate.diffusion.samplers.stepping import falling_levels, scalars
from headfirst.types import Denoiser


@dataclass(frozen=True, kw_only=True, eq=False)
class VariationalBound:
    """-log p(x₀) in nats from above, of each image, float64: the sum of its parts."""

    prior: Float[Tensor, " n"]
    """KL of the noisiest image from N(0, (σ_max² + σ_d²) I)."""

    steps: Float[Tensor, "m n"]
    """KL of each step but the last, in order."""

    reconstruction: Float[Tensor, " n"]
    """-log p(x₀ | x at the last level)."""

    @property
    def per_image(self) -> Float[Tensor, " n"]:
        """All of it."""
        return self.prior + self.steps.sum(0) + self.reconstruction


def optimal_variances(
    denoiser: Denoiser, images: Tensor, sigmas: Tensor, *, generator: Streams = None
) -> Float[Tensor, " m"]:
    """Of each step: the reverse variance that these images ask for, v = ṽ + (1 - (t/s)²)² E|x₀ - D|² / D.

    ṽ = t² (1 - (t/s)²) is that of `ddpm`. The last, after the last positive level, is E|x₀ - D|² / D itself.

    Args:
        images: (N, …) without noise.
        sigmas: (M,) falling and positive.

    Source: Bao et al., "Analytic-DPM", ICLR 2022, theorem 1, in these variables.
    """
    levels = _positive(sigmas, images)
    errors = [(images - d).double().square().mean().item() for d, _ in _denoised(denoiser, images, levels, generator)]
    found = [
        t**2 * (1 - (t / s) ** 2) + (1 - (t / s) ** 2) ** 2 * error
        for (s, t), error in zip(pairwise([*levels, 0.0]), errors, strict=True)
    ]
    return torch.tensor(found, dtype=torch.float64)


def variational_bound(
    denoiser: Denoiser,
    images: Tensor,
    sigmas: Tensor,
    variances: Tensor | Sequence[float],
    *,
    sigma_data: float = 0.5,
    generator: Streams = None,
) -> VariationalBound:
    """-log p(x₀) ≤ KL(q(x_max | x₀) ‖ p) + Σ KL(q(x_t | x_s, x₀) ‖ N(D-mean, v)) - log N(x₀; D, v_last).

    With a perfect denoiser of normal data and `optimal_variances` its mean is the entropy of the data, for any steps.
    One draw of the noise for each level and image.

    Args:
        images: (N, …) without noise.
        sigmas: (M,) falling and positive.
        variances: (M,) of each step and of the last, positive, as `optimal_variances`.
        sigma_data: σ_d of the prior at σ_max.

    Raises:
        InputError: levels that do not fall or are not positive, other variances than steps.

    Source: Ho, Jain & Abbeel, NeurIPS 2020, equations 5 to 8.
    """
    levels = _positive(sigmas, images)
    given = [float(v) for v in variances]
    if len(given) != len(levels) or not all(0 < v < math.inf for v in given):
        raise InputError(f"variances must be {len(levels)} positive numbers, one a level, got {len(given)}")
    dim, flat = images[0].numel(), images.flatten(1).double()
    whole = levels[0] ** 2 + sigma_data**2
    ratio = levels[0] ** 2 / whole
    prior = 0.5 * (dim * (ratio - 1 - math.log(ratio)) + flat.square().sum(1) / whole)
    steps, reconstruction = [], prior
    for (s, t), v, (denoised, _) in zip(
        pairwise([*levels, 0.0]), given, _denoised(denoiser, images, levels, generator), strict=True
    ):
        error = (images - denoised).flatten(1).double().square().sum(1)
        if t == 0:
            reconstruction = 0.5 * (error / v + dim * math.log(2 * math.pi * v))
            break
        share = 1 - (t / s) ** 2
        true = t**2 * share
        steps.append(0.5 * (dim * (true / v - 1 - math.log(true / v)) + share**2 * error / v))
    stacked = torch.stack(steps) if steps else prior.new_zeros(0, len(images))
    return VariationalBound(prior=prior, steps=stacked, reconstruction=reconstruction)


def denoiser_of_noisy(denoiser: Denoiser, sigma_min: float) -> Denoiser:
    """Of images that keep noise of standard deviation σ_min, y = x₀ + σ_min ε: E[y | y + σ' z].

    x + σ'² / (σ'² + σ_min²) (D(x; √(σ'² + σ_min²)) - x): noise upon noise is noise. Its bound is one on the density
    that `log_likelihood` gives.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        whole = sigma**2 + sigma_min**2
        return torch.lerp(x, denoiser(x, whole.sqrt()), sigma**2 / whole)

    return denoise


def _denoised(denoiser: Denoiser, images: Tensor, levels: Sequence[float], generator: Streams):
    """(D(x₀ + σ z; σ), σ) at each level."""
    with torch.no_grad():
        for level, at in zip(levels, scalars(levels, images), strict=True):
            yield denoiser(torch.add(images, normal_like(images, generator), alpha=level), at), level


def _positive(sigmas: Tensor, images: Tensor) -> list[float]:
    levels = falling_levels(sigmas, images) if len(sigmas) > 1 else [float(v) for v in sigmas]
    if not levels or levels[-1] <= 0:
        raise InputError("sigmas must be positive; leave the zero at the end out")
    return levels

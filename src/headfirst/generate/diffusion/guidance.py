"""Classifier-free guidance: go further in the direction in which the class moved the guess.

What enters: a denoiser of the class and one of everything. What leaves: a denoiser.
"""

from __future__ import annotations

import math

from torch import Tensor

from headfirst.errors import InputError
from headfirst.types import Denoiser


def guided(
    conditional: Denoiser,
    unconditional: Denoiser,
    weight: float,
    *,
    rescale: float = 0.0,
    interval: tuple[float, float] = (0.0, math.inf),
) -> Denoiser:
    """D = D_∅ + w (D_c - D_∅): w = 1 is the class as it is, more of it makes images more typical and less varied.

    Of normal data, N(0, s₁²) for the class and N(0, s₀²) for everything, it samples N(0, (s₀^(1-w) s₁^w)²).

    Args:
        weight: w, finite.
        rescale: φ in [0, 1]: share by which each guided guess is given the standard deviation of D_c's.
        interval: levels (low, high] at which to guide; elsewhere D_c alone is asked.

    Raises:
        InputError: numbers that cannot be.

    Source: Ho & Salimans, "Classifier-Free Diffusion Guidance", 2022, with w for their 1 + w; rescaling: Lin et al.,
    WACV 2024, equations 15 and 16, on x₀; interval: Kynkäänniemi et al., NeurIPS 2024.
    """
    low, high = interval
    if not math.isfinite(weight):
        raise InputError(f"weight must be finite, got {weight}")
    if not 0 <= rescale <= 1:
        raise InputError(f"rescale must lie in [0, 1], got {rescale}")
    if not 0 <= low < high:
        raise InputError(f"interval must be two levels, 0 <= low < high, got {interval}")
    everywhere = low == 0 and high == math.inf

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        of_class = conditional(x, sigma)
        if not (everywhere or low < float(sigma) <= high):
            return of_class
        of_all = unconditional(x, sigma)
        guess = of_all + weight * (of_class - of_all)
        if rescale == 0:
            return guess
        factor = _spread(of_class) / _spread(guess).clamp_min(1e-12)
        return guess * (rescale * factor + 1 - rescale)

    return denoise


def _spread(x: Tensor) -> Tensor:
    """The standard deviation of each image, (N, 1, …)."""
    return x.flatten(1).std(dim=1, correction=0).view(-1, *[1] * (x.ndim - 1))

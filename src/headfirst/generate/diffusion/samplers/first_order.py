"""Samplers of the first order: one evaluation a step, straight on.

What enters: a denoiser D(x; σ), x at the first of falling levels. What leaves: x at the last; where that is 0, the
denoised image. A step is from s to t.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from headfirst.errors import InputError
from headfirst.generate.diffusion.noise import Streams, normal_like
from headfirst.generate.diffusion.samplers.stepping import falling_levels, scalars
from headfirst.types import Denoiser


def euler(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator: Streams = None) -> Tensor:
    """Euler's method for dx/dσ = (x - D(x; σ)) / σ: x ← D + t/s (x - D). M levels, M - 1 evaluations.

    Args:
        denoiser: D(x; σ), an estimate of x₀.
        x: (N, …) at noise level `sigmas[0]`: x₀ + σ ε.
        sigmas: (M,) falling; a 0 at the end returns D(x; the level before).
        generator: nothing is drawn here.

    Raises:
        InputError: levels that do not fall, are not finite, or fewer than two.

    Source: Karras et al., NeurIPS 2022, equation 3 with s = 1, σ = t.
    """
    levels = falling_levels(sigmas, x)
    at = scalars(levels, x)
    for i, (s, t) in enumerate(pairwise(levels)):
        x = torch.lerp(denoiser(x, at[i]), x, t / s)
    return x


def ddim(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, eta: float = 0.0, generator: Streams = None) -> Tensor:
    """x ← D + √(t² - η² v) / s (x - D) + η √v z, v = t² (s² - t²) / s². M levels, M - 1 evaluations.

    η = 0 is Euler's method and draws nothing, η = 1 is `ddpm`.

    Args:
        eta: η in [0, 1].
        generator: one, or one for each image; None draws from torch's own.

    The rest and errors as `euler`.

    Source: Song, Meng & Ermon, "Denoising Diffusion Implicit Models", ICLR 2021, equations 12 and 16, divided by √ᾱ.
    """
    if not 0 <= eta <= 1:
        raise InputError(f"eta must lie in [0, 1], got {eta}")
    levels = falling_levels(sigmas, x)
    at = scalars(levels, x)
    for i, (s, t) in enumerate(pairwise(levels)):
        variance = eta**2 * t**2 * (1 - (t / s) ** 2)
        x = torch.lerp(denoiser(x, at[i]), x, math.sqrt(t**2 - variance) / s)
        if variance > 0:
            x = x.add_(normal_like(x, generator), alpha=math.sqrt(variance))
    return x


def ddpm(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator: Streams = None) -> Tensor:
    """Ancestral sampling, x ~ q(x_t | x_s, x₀ = D): x ← D + (t/s)² (x - D) + t √(1 - (t/s)²) z.

    M levels, M - 1 evaluations. The rest and errors as `ddim`.

    Source: Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, equations 6 and 7, divided by
    √ᾱ; the smaller of their two variances.
    """
    levels = falling_levels(sigmas, x)
    at = scalars(levels, x)
    for i, (s, t) in enumerate(pairwise(levels)):
        ratio = (t / s) ** 2
        x = torch.lerp(denoiser(x, at[i]), x, ratio)
        if t > 0:
            x = x.add_(normal_like(x, generator), alpha=t * math.sqrt(1 - ratio))
    return x


def reverse_sde(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator: Streams = None) -> Tensor:
    """Euler-Maruyama for the reverse SDE dx = 2 (x - D) / σ dσ + √(2σ) dw.

    A step is x ← x + 2 (t - s) / s (x - D) + √(s² - t²) z.

    M levels, M - 1 evaluations. Needs short steps: no longer than s/2, or it overshoots. The rest as `ddim`.

    Source: Song et al., ICLR 2021, equation 6, for the variance-exploding SDE of equation 9.
    """
    levels = falling_levels(sigmas, x)
    at = scalars(levels, x)
    for i, (s, t) in enumerate(pairwise(levels)):
        denoised = denoiser(x, at[i])
        if t == 0:
            return denoised
        x = torch.lerp(denoised, x, 2 * t / s - 1)
        x = x.add_(normal_like(x, generator), alpha=math.sqrt(s**2 - t**2))
    return x

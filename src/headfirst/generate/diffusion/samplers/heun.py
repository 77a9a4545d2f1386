"""Heun's method, without and with churn: two evaluations a step, second order.

What enters and leaves: as in `first_order`. A step is from s to t.
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


def heun(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator: Streams = None) -> Tensor:
    """An Euler step to y, then the mean of both slopes: x ← y + (s - t) / (2 t) (D(y; t) - D(x; s)).

    M levels, 2 (M - 1) evaluations, one fewer where the last level is 0. Arguments and errors as `euler`.

    Source: Karras et al., NeurIPS 2022, algorithm 1.
    """
    levels = falling_levels(sigmas, x)
    at = scalars(levels, x)
    for i, (s, t) in enumerate(pairwise(levels)):
        denoised = denoiser(x, at[i])
        x = torch.lerp(denoised, x, t / s)
        if t > 0:
            x = x.add_(denoiser(x, at[i + 1]) - denoised, alpha=(s - t) / (2 * t))
    return x


def heun_churn(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    churn: float = 40.0,
    churn_min: float = 0.05,
    churn_max: float = 50.0,
    noise: float = 1.003,
    generator: Streams = None,
) -> Tensor:
    """`heun`, each step of which begins with a little more noise: s rises by the factor 1 + min(churn / M, √2 - 1).

    M steps, 2 M evaluations, one fewer where the last level is 0.

    Args:
        churn: S_churn, at least 0; 0 is `heun`.
        churn_min, churn_max: levels between which noise is added.
        noise: S_noise, what it is multiplied by.
        generator: one, or one for each image; None draws from torch's own.

    The rest and errors as `euler`.

    Source: Karras et al., NeurIPS 2022, algorithm 2, with their numbers for ImageNet.
    """
    if not 0 <= churn < math.inf or not noise > 0:
        raise InputError(f"churn must be at least 0 and finite and noise positive, got {churn} and {noise}")
    levels = falling_levels(sigmas, x)
    steps = len(levels) - 1
    most = min(churn / steps, math.sqrt(2) - 1)
    raised = [s * (1 + most * (churn_min <= s <= churn_max)) for s in levels]
    at, begin = scalars(levels, x), scalars(raised, x)
    for i, ((s, t), up) in enumerate(zip(pairwise(levels), raised, strict=False)):
        if up > s:
            x = torch.add(x, normal_like(x, generator), alpha=noise * math.sqrt(up**2 - s**2))
        denoised = denoiser(x, begin[i])
        x = torch.lerp(denoised, x, t / up)
        if t > 0:
            x = x.add_(denoiser(x, at[i + 1]) - denoised, alpha=(up - t) / (2 * t))
    return x

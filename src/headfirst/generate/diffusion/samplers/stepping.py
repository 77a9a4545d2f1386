"""What every sampler needs: its levels, checked and ready, and the weights of its multistep formulas.

What enters: levels, or the places of earlier evaluations. What leaves: numbers in float64, made before the first step,
and the scalar tensors that the denoiser is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from headfirst.errors import InputError

_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(32)


def falling_levels(sigmas: Tensor | Sequence[float], x: Tensor) -> list[float]:
    """The levels in float64, falling, of which only the last may be zero.

    Raises:
        InputError: fewer than two, not falling, not finite; `x` is not of floating point.
    """
    values = [float(v) for v in sigmas]  # a copy from the device, once, before any step
    if not x.is_floating_point():
        raise InputError(f"x must be of a floating type, got {x.dtype}")
    if len(values) < 2:
        raise InputError(f"sigmas must hold the level of x and at least one to go to, got {len(values)} levels")
    if not all(math.isfinite(v) for v in values) or not all(a > b for a, b in pairwise(values)):
        raise InputError(f"sigmas must be finite and fall from step to step, got {_shown(values)}")
    if values[-1] < 0:
        raise InputError(f"sigmas must not be negative, got {values[-1]:g} at the end")
    return values


def scalars(values: Sequence[float], x: Tensor) -> tuple[Tensor, ...]:
    """Each as a 0-d tensor like `x`, for the denoiser; one copy to the device for all of them."""
    dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    return torch.tensor(list(values), dtype=dtype).to(x.device, non_blocking=True).unbind()


def interpolation_weights(
    places: Sequence[float], begin: float, end: float, kernel: Callable[[np.ndarray], np.ndarray]
) -> list[float]:
    """w_j = ∫ from begin to end of k(u) L_j(u) du, L_j the Lagrange polynomial that is 1 at place j, 0 at the others.

    So Σ_j w_j f(place_j) integrates k f as if f were the polynomial through its values there: exact, whatever the
    steps between them. Gauss-Legendre with 32 points, which the kernels here are smooth enough for.
    """
    half = (end - begin) / 2
    u = begin + half * (1 + _POINTS)
    weighted = half * _WEIGHTS * kernel(u)
    return [
        float((weighted * np.prod([(u - other) / (place - other) for other in places if other != place], axis=0)).sum())
        for place in places
    ]


def noise_weights(levels: Sequence[float], order: int) -> list[list[float]]:
    """Of each step from s to t, but one to 0: x + Σ_j w_j e_j is x - s ∫ e^(-u) P(u) du, u = λ - λ_s, λ = -log σ.

    P is the polynomial through the last noises, at most `order` of them, the newest first.
    """
    return [
        interpolation_weights(places, 0.0, h, lambda u, s=s: -s * np.exp(-u))
        for s, h, places in _multistep(levels, order)
    ]


def image_weights(levels: Sequence[float], order: int) -> list[list[float]]:
    """The same for denoised images: t/s x + Σ_j w_j D_j is t/s x + ∫ e^(u-h) P(u) du."""
    return [
        interpolation_weights(places, 0.0, h, lambda u, h=h: np.exp(u - h))
        for _, h, places in _multistep(levels, order)
    ]


def _multistep(levels: Sequence[float], order: int) -> list[tuple[float, float, list[float]]]:
    """Of each step: s, its length in λ, and where the last evaluations lie, in λ - λ_s."""
    return [
        (s, math.log(s / t), [math.log(s / levels[j]) for j in range(i, max(-1, i - order), -1)])
        for i, (s, t) in enumerate(pairwise(levels))
        if t > 0
    ]


def weighted_sum(terms: Sequence[Tensor], weights: Sequence[float], x: Tensor, scale: float) -> Tensor:
    """scale · x + Σ_j w_j · term_j, in place after the first."""
    total = x * scale
    for term, weight in zip(terms, weights, strict=True):
        total.add_(term, alpha=weight)
    return total


def _shown(values: Sequence[float]) -> str:
    few = [f"{v:g}" for v in values[:6]]
    return ", ".join(few) + (" …" if len(values) > 6 else "")

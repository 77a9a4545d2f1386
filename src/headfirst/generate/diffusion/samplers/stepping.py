"""What every sampler needs: its levels, checked and ready, and the weights of its multistep formulas.

What enters: levels, or the places of earlier evaluations. What leaves: numbers in float64, made before the first step,
and the scalar tensors that the denoiser is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from headfirst.errors import InputError

FEWEST = 8
"""Steps from which on methods of the third order and above start with care; fewer are too long for it to pay."""
UNEVEN = 3.0
"""Ratio of neighbouring steps in log σ above which polynomials are not in log σ, see `variable`."""
Variable = Callable[[np.ndarray], np.ndarray]
"""A smooth, monotone function of σ."""
Table = tuple[tuple[float, ...], ...]
"""Weights of each step, for the newest evaluation first."""
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


def noise_weights(levels: Sequence[float], order: int) -> Table:
    """Of each step from s to t, but one to 0: x + Σ_j w_j e_j is x - s ∫ e^(-u) P du, u = log(s/σ) from 0 to log(s/t).

    P is the polynomial through the last noises, at most `order` of them, the newest first, in log σ (but see
    `variable`).
    """
    return _noise_weights(tuple(levels), order)


def correction_weights(levels: Sequence[float]) -> tuple[float, ...]:
    """Of the second step, done again when the noise at its end is known: Adams-Moulton's.

    Of all noises at the first three levels, the newest first.
    """
    s, t = levels[1:3]
    return _weights(levels[2::-1], s, t, lambda u: -s * np.exp(-u), variable(levels, np.log))


def variable(levels: Sequence[float], usual: Variable) -> Variable:
    """What polynomials through earlier evaluations are polynomials in: the usual function of σ, or, where a step in
    log σ is over `UNEVEN` times as long as its neighbour, the place on the grid, monotone between levels.

    Levels spaced evenly in training time are such. A polynomial drawn through short steps runs away on a long one:
    errors were two to six times as large. On Karras levels, as on others even in log σ, nothing is won by the place;
    those of ρ = 3 in six steps or fewer count as uneven, and there √σ is better by as much.
    """
    logs = np.log([level for level in levels if level > 0])[::-1]
    steps = np.diff(logs)
    longer, shorter = np.maximum(steps[1:], steps[:-1]), np.minimum(steps[1:], steps[:-1])
    if (longer <= UNEVEN * shorter).all() or not steps.all():  # levels that logarithms cannot tell apart have no place
        return usual
    from scipy.interpolate import PchipInterpolator

    place = PchipInterpolator(logs, np.arange(len(logs)))
    return lambda sigma: place(np.log(sigma))


def image_weights(levels: Sequence[float], order: int) -> Table:
    """The same for denoised images: t/s x + Σ_j w_j D_j is t/s x + ∫ e^(u-h) P du, h = log(s/t).

    P is a polynomial in √σ (but see `variable`): D settles as σ falls to 0, where λ goes on for ever and a polynomial
    in it runs away.
    """
    return _image_weights(tuple(levels), order)


# The same levels come again for the next images, and one table takes longer than the steps of a small batch.
@lru_cache(maxsize=64)
def _noise_weights(levels: tuple[float, ...], order: int) -> Table:
    of = variable(levels, np.log)
    return tuple(_weights(places, s, t, lambda u, s=s: -s * np.exp(-u), of) for s, t, places in _steps(levels, order))


@lru_cache(maxsize=64)
def _image_weights(levels: tuple[float, ...], order: int) -> Table:
    of = variable(levels, np.sqrt)
    return tuple(
        _weights(places, s, t, lambda u, ratio=t / s: ratio * np.exp(u), of) for s, t, places in _steps(levels, order)
    )


def _steps(levels: Sequence[float], order: int) -> list[tuple[float, float, list[float]]]:
    """Of each step but one to 0: s, t, and the levels of the last evaluations."""
    return [
        (s, t, [levels[j] for j in range(i, max(-1, i - order), -1)])
        for i, (s, t) in enumerate(pairwise(levels))
        if t > 0
    ]


def _weights(
    places: Sequence[float],
    s: float,
    t: float,
    kernel: Callable[[np.ndarray], np.ndarray],
    of: Variable,
) -> tuple[float, ...]:
    """w_j = ∫ k(u) L_j du, u = log(s/σ) from 0 to log(s/t), L_j the Lagrange polynomial that is 1 at place j.

    In any smooth variable `of` σ: so Σ_j w_j f(place_j) integrates k f as if f were the polynomial through its values
    there, for steps of any lengths, and the order is the number of places. Gauss-Legendre with 32 points.
    """
    half = math.log(s / t) / 2
    u = half * (1 + _POINTS)
    weighted = half * _WEIGHTS * kernel(u)
    at, z = [float(of(np.asarray(place))) for place in places], of(s * np.exp(-u))
    return tuple(
        float((weighted * np.prod([(z - other) / (here - other) for other in at if other != here], axis=0)).sum())
        for here in at
    )


def weighted_sum(terms: Sequence[Tensor], weights: Sequence[float], x: Tensor, scale: float) -> Tensor:
    """scale · x + Σ_j w_j · term_j, in place after the first."""
    total = x * scale
    for term, weight in zip(terms, weights, strict=True):
        total.add_(term, alpha=weight)
    return total


def _shown(values: Sequence[float]) -> str:
    few = [f"{v:g}" for v in values[:6]]
    return ", ".join(few) + (" …" if len(values) > 6 else "")

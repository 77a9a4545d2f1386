"""DPM-Solver: the noise e(x; σ) = (x - D) / σ as a polynomial in λ = -log σ, the rest of the step exact.

What enters and leaves: as in `first_order`. A step is from s to t, h = log(s/t) long: x - s ∫ e^(-u) e(u) du with
u = λ - λ_s from 0 to h. `dpm_solver_2` and `_3` evaluate inside the step, `dpm_solver_2m` and `_3m` remember earlier
ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from headfirst.generate.diffusion.noise import Streams
from headfirst.generate.diffusion.samplers.first_order import euler
from headfirst.generate.diffusion.samplers.stepping import (
    FEWEST,
    falling_levels,
    noise_weights,
    scalars,
    weighted_sum,
)
from headfirst.types import Denoiser

dpm_solver_1 = euler
"""Of the first order DPM-Solver is DDIM, which is Euler's method."""


def dpm_solver_2(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator: Streams = None) -> Tensor:
    """The noise of the middle in λ for the whole step: x + (t - s) e(y; √(s t)), y from an Euler step there.

    M levels, 2 (M - 1) evaluations, one fewer where the last level is 0. Arguments and errors as `euler`.

    Source: Lu et al., "DPM-Solver", NeurIPS 2022, algorithm 1.
    """
    levels = falling_levels(sigmas, x)
    steps = list(pairwise(levels))
    at, middle = scalars(levels, x), scalars([math.sqrt(s * t) for s, t in steps], x)
    for i, (s, t) in enumerate(steps):
        denoised = denoiser(x, at[i])
        if t == 0:
            return denoised
        m = math.sqrt(s * t)
        y = torch.lerp(denoised, x, m / s)
        x = torch.add(x, y - denoiser(y, middle[i]), alpha=(t - s) / m)
    return x


def dpm_solver_3(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator: Streams = None) -> Tensor:
    """Two evaluations inside the step, at a third and two thirds of it in λ.

    M levels, 3 (M - 1) evaluations, two fewer where the last level is 0. Arguments and errors as `euler`.

    Source: Lu et al., NeurIPS 2022, algorithm 2.
    """
    levels = falling_levels(sigmas, x)
    steps = list(pairwise(levels))
    at = scalars(levels, x)
    thirds = [(s ** (2 / 3) * t ** (1 / 3), s ** (1 / 3) * t ** (2 / 3)) for s, t in steps]
    first, second = (scalars([pair[k] for pair in thirds], x) for k in (0, 1))
    for i, (s, t) in enumerate(steps):
        denoised = denoiser(x, at[i])
        if t == 0:
            return denoised
        x = third_order_step(denoiser, x, (x - denoised) / s, s, t, (first[i], second[i]))
    return x


def third_order_step(denoiser: Denoiser, x: Tensor, e0: Tensor, s: float, t: float, thirds: Sequence[Tensor]) -> Tensor:
    """A step of `dpm_solver_3`, e0 the noise at s; `thirds`: the levels inside, s^(2/3) t^(1/3) and s^(1/3) t^(2/3)."""
    a, b, h = s ** (2 / 3) * t ** (1 / 3), s ** (1 / 3) * t ** (2 / 3), math.log(s / t)
    y = torch.add(x, e0, alpha=a - s)
    d1 = (y - denoiser(y, thirds[0])) / a - e0
    y = weighted_sum([e0, d1], [b - s, -2 * b * _phi(2 * h / 3)], x, 1.0)
    d2 = (y - denoiser(y, thirds[1])) / b - e0
    return weighted_sum([e0, d2], [t - s, -1.5 * t * _phi(h)], x, 1.0)


def dpm_solver_2m(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator: Streams = None) -> Tensor:
    """Multistep of the second order: the line through the last two noises. M levels, M - 1 evaluations.

    The step to a last level of 0 returns D. Arguments and errors as `euler`.

    Source: Lu et al., NeurIPS 2022, appendix C; with exact weights for any steps.
    """
    levels = falling_levels(sigmas, x)
    at = scalars(levels, x)
    weights = noise_weights(levels, 2)
    noises: list[Tensor] = []
    for i, (s, t) in enumerate(pairwise(levels)):
        denoised = denoiser(x, at[i])
        if t == 0:
            return denoised
        noises = [(x - denoised) / s, *noises[:1]]
        x = weighted_sum(noises, weights[i], x, 1.0)
    return x


def dpm_solver_3m(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator: Streams = None) -> Tensor:
    """Multistep of the third order: the parabola through the last three noises.

    From `FEWEST` steps on the first is `dpm_solver_2`'s, or the first order of one step would limit all to the second.
    M levels, M evaluations, M - 1 of fewer steps; the step to a last level of 0 returns D. Arguments,
    errors and source as `dpm_solver_2m`.
    """
    levels = falling_levels(sigmas, x)
    at = scalars(levels, x)
    middle, *_ = scalars([math.sqrt(levels[0] * levels[1])], x)
    weights = noise_weights(levels, 3)
    noises: list[Tensor] = []
    for i, (s, t) in enumerate(pairwise(levels)):
        denoised = denoiser(x, at[i])
        if t == 0:
            return denoised
        noises = [(x - denoised) / s, *noises[:2]]
        if i == 0 and len(levels) > FEWEST:
            m = math.sqrt(s * t)
            y = torch.lerp(denoised, x, m / s)
            x = torch.add(x, y - denoiser(y, middle), alpha=(t - s) / m)
        else:
            x = weighted_sum(noises, weights[i], x, 1.0)
    return x


def _phi(h: float) -> float:
    """(e^h - 1) / h - 1."""
    return math.expm1(h) / h - 1

"""Linear multistep samplers: one evaluation a step, the last four of them remembered.

What enters and leaves: as in `first_order`. With e(x; σ) = (x - D(x; σ)) / σ, the noise as the network sees it, a step
is x + ∫ e dσ from s to t.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from headfirst.generate.diffusion.noise import Streams
from headfirst.generate.diffusion.samplers.dpm_solver import third_order_step
from headfirst.generate.diffusion.samplers.stepping import (
    FEWEST,
    correction_weights,
    falling_levels,
    noise_weights,
    scalars,
    weighted_sum,
)
from headfirst.types import Denoiser

ADAMS_BASHFORTH = (55 / 24, -59 / 24, 37 / 24, -9 / 24)
"""Weights of the last four slopes, the newest first, for steps that are equal."""


def plms(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator: Streams = None) -> Tensor:
    """Adams-Bashforth of the fourth order with the weights that these levels call for: x + ∫ P dσ.

    P is the cubic through the last four e, in log σ or in the place on the grid (see `stepping.variable`); one in σ was
    several times less exact on grids that are closer where σ is small. So that the start costs no order, the first step
    is `dpm_solver_3`'s, with two evaluations more, and the second is corrected by what is seen at its end, which costs
    none. Of fewer than `FEWEST` steps the start is of lower order and costs nothing: so few are too long for it.
    M levels, M + 1 evaluations, M - 1 of few; the step to a last level of 0 returns D. Arguments and errors as `euler`.

    Source: Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", ICLR 2022, equation 12, whose
    weights are those of equal steps; with these the order is four on any smooth grid.
    """
    levels = falling_levels(sigmas, x)
    at, weights = scalars(levels, x), noise_weights(levels, 4)
    careful = len(levels) > FEWEST
    s, t = levels[:2]
    thirds = scalars([s ** (2 / 3) * t ** (1 / 3), s ** (1 / 3) * t ** (2 / 3)], x)
    noises: list[Tensor] = []
    before = x
    for i, (s, t) in enumerate(pairwise(levels)):
        denoised = denoiser(x, at[i])
        if t == 0:
            return denoised
        noises = [(x - denoised) / s, *noises[:3]]
        if careful and i == 2:
            x = weighted_sum(noises, correction_weights(levels), before, 1.0)
        before = x
        if careful and i == 0:
            x = third_order_step(denoiser, x, noises[0], s, t, thirds)
        else:
            x = weighted_sum(noises, weights[i], x, 1.0)
    return x


def pndm(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator: Streams = None) -> Tensor:
    """Three Runge-Kutta steps of the fourth order, then Adams-Bashforth with the weights of equal steps, as published.

    Second order on grids of unequal levels, whatever their smoothness: `plms` is the one with the right weights.
    M levels, M + 8 evaluations; the step to a last level of 0 returns D. Arguments and errors as `euler`.

    Source: Liu et al., ICLR 2022, algorithm 2 (F-PNDM), whose transfer equation is in these variables x + (t - s) e;
    the middle of a Runge-Kutta step is that of its levels, not of its training steps.
    """
    levels = falling_levels(sigmas, x)
    steps = list(pairwise(levels))
    at, middle = scalars(levels, x), scalars([(s + t) / 2 for s, t in steps], x)
    noises: list[Tensor] = []
    for i, (s, t) in enumerate(steps):
        denoised = denoiser(x, at[i])
        if t == 0:
            return denoised
        noises = [(x - denoised) / s, *noises[:3]]
        if i < 3:
            x = _runge_kutta(denoiser, x, noises[0], s, t, middle[i], at[i + 1])
        else:
            x = weighted_sum(noises, [(t - s) * w for w in ADAMS_BASHFORTH], x, 1.0)
    return x


def _runge_kutta(
    denoiser: Denoiser, x: Tensor, first: Tensor, s: float, t: float, middle: Tensor, end: Tensor
) -> Tensor:
    """x + h/6 (e₁ + 2 e₂ + 2 e₃ + e₄), fourth order."""
    h, m = t - s, (s + t) / 2
    y = x + first * (h / 2)
    second = (y - denoiser(y, middle)) / m
    y = x + second * (h / 2)
    third = (y - denoiser(y, middle)) / m
    y = x + third * h
    fourth = (y - denoiser(y, end)) / t
    return weighted_sum([first, second, third, fourth], [h / 6, h / 3, h / 3, h / 6], x, 1.0)

"""DPM-Solver++: the denoised image D as a polynomial, the rest of the step exact.

What enters and leaves: as in `first_order`. A step is from s to t, h = log(s/t) long: t/s x + ∫ e^(u-h) D(u) du with
u = λ - λ_s from 0 to h. One evaluation a step; earlier ones are remembered.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from headfirst.generate.diffusion.noise import Streams
from headfirst.generate.diffusion.samplers.stepping import (
    FEWEST,
    falling_levels,
    image_weights,
    scalars,
    weighted_sum,
)
from headfirst.types import Denoiser


def dpm_pp_2m(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator: Streams = None) -> Tensor:
    """x ← D' + t/s (x - D'), D' = D_i + (D_i - D_{i-1}) h_i / (2 h_{i-1}): the line through the last two, at mid-step.

    Second order; the first step is Euler's. M levels, M - 1 evaluations; the step to a last level of 0 returns D.
    Arguments and errors as `euler`.

    Source: Lu et al., "DPM-Solver++", 2022, algorithm 2.
    """
    levels = falling_levels(sigmas, x)
    at = scalars(levels, x)
    before: Tensor | None = None
    for i, (s, t) in enumerate(pairwise(levels)):
        denoised = denoiser(x, at[i])
        if t == 0:
            return denoised
        ahead = denoised
        if before is not None:
            ahead = torch.lerp(before, denoised, 1 + math.log(s / t) / (2 * math.log(levels[i - 1] / s)))
        x = torch.lerp(ahead, x, t / s)
        before = denoised
    return x


def dpm_pp_3m(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator: Streams = None) -> Tensor:
    """x ← t/s x + ∫ e^(u-h) P(u) du, P the parabola through the last three D: third order.

    From `FEWEST` steps on the first evaluates at its middle too, or its first order would limit all to the second; the
    second step takes the line. M levels, M evaluations, M - 1 of fewer steps; the step to a last level of 0 returns D.
    Arguments and errors as `euler`.

    Source: Lu et al., "DPM-Solver++", 2022, section 4, of the third order. Deviations: the weights are those of the
    parabola itself for any steps, where a common implementation halves the last and is of second order; and it is one
    in √σ, not in λ, which was several times more exact with up to 20 steps and alike with many (on uneven levels in the
    place on the grid, see `stepping.variable`).
    """
    levels = falling_levels(sigmas, x)
    at = scalars(levels, x)
    middle, *_ = scalars([math.sqrt(levels[0] * levels[1])], x)
    weights = image_weights(levels, 3)
    images: list[Tensor] = []
    for i, (s, t) in enumerate(pairwise(levels)):
        images = [denoiser(x, at[i]), *images[:2]]
        if t == 0:
            return images[0]
        if i == 0 and len(levels) > FEWEST:
            y = torch.lerp(images[0], x, math.sqrt(t / s))
            x = torch.lerp(denoiser(y, middle), x, t / s)
        else:
            x = weighted_sum(images, weights[i], x, t / s)
    return x

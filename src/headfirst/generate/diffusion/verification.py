"""What a sampler does on a model: the order it shows, where it stalls, where it blows up.

What enters: samplers, a denoiser, noise, the exact end of its path. What leaves: numbers for each sampler. Shape
letters: N images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError
from headfirst.types import Denoiser

DOUBLINGS = (8, 16, 32, 64)
FEW_AND_MANY = (1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 20, 35, 60)
"""Numbers of steps that a map of what is finite asks for."""
STALLED = 1.3
"""A doubling that divides the error by less has not paid: the first order divides it by two."""


@dataclass(frozen=True, kw_only=True)
class OrderReading:
    """How the error of a sampler falls.

    Attributes:
        steps, errors: root mean square over all numbers of all images.
        slope: by which power of the steps, least squares over the logarithms of what is finite and above `floor`; None
            of fewer than two.
        plateaus: numbers of steps whose doubling divided the error by less than 1.3 though it was above `floor`.
    """

    steps: tuple[int, ...]
    errors: tuple[float, ...]
    slope: float | None
    plateaus: tuple[int, ...]


@torch.no_grad()
def read_order(
    sampler: Callable[..., Tensor],
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Callable[[int], Float[Tensor, " m"]],
    exact: Tensor,
    *,
    steps: Sequence[int] = DOUBLINGS,
    floor: float = 1e-9,
) -> OrderReading:
    """Errors of a deterministic sampler with more and more steps.

    Args:
        sampler: `sampler(denoiser, x, sigmas)`.
        sigmas: from a number of steps to levels that end where `exact` is.
        exact: where the path of `x` ends.
        floor: error below which rounding, or the error of `exact`, is all there is.

    Raises:
        InputError: fewer than two numbers of steps, or not each twice the last.
    """
    if len(steps) < 2 or any(b != 2 * a for a, b in pairwise(steps)):
        raise InputError(f"steps must be two numbers or more, each twice the last, got {', '.join(map(str, steps))}")
    errors = tuple(_root_mean_square(sampler(denoiser, x, sigmas(n)) - exact) for n in steps)
    known = [(math.log(n), math.log(e)) for n, e in zip(steps, errors, strict=True) if floor < e < math.inf]
    slope = -float(np.polyfit([n for n, _ in known], [e for _, e in known], 1)[0]) if len(known) > 1 else None
    plateaus = tuple(
        n for n, (a, b) in zip(steps, pairwise(errors), strict=False) if b > floor and not (b < a / STALLED)
    )
    return OrderReading(steps=tuple(steps), errors=errors, slope=slope, plateaus=plateaus)


@torch.no_grad()
def not_finite(
    sampler: Callable[..., Tensor],
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Callable[[int], Float[Tensor, " m"]],
    *,
    steps: Sequence[int] = FEW_AND_MANY,
    generator: torch.Generator | None = None,
) -> tuple[int, ...]:
    """Numbers of steps after which an image holds a number that is not finite; `generator` for a random sampler."""
    drawn = {} if generator is None else {"generator": generator}
    return tuple(n for n in steps if not bool(sampler(denoiser, x, sigmas(n), **drawn).isfinite().all()))


def _root_mean_square(difference: Tensor) -> float:
    value = difference.double().square().mean().sqrt().item()
    return value if math.isfinite(value) else math.inf

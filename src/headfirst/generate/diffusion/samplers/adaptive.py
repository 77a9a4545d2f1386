"""A sampler that chooses its own steps.

What enters: a denoiser, noise, two levels and a tolerance. What leaves: the sample, what it cost, and its error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError
from headfirst.generate.diffusion.ode import dormand_prince
from headfirst.generate.diffusion.samplers.stepping import scalars
from headfirst.types import Denoiser

MOST = 10_000
"""Evaluations, after which a tolerance is said not to be met."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AdaptiveSample:
    """`sample` at σ_min, like x; `error`: estimated, of the worst image, see `adaptive`."""

    sample: Float[Tensor, "n ..."]
    num_evaluations: int
    error: float


def adaptive(
    denoiser: Denoiser, x: Tensor, sigma_max: float, sigma_min: float, *, rtol: float, sigma_data: float = 0.5
) -> AdaptiveSample:
    """The probability flow from σ_max to σ_min with an estimated error of at most `rtol`.

    Solved for y = cos θ x, tan θ = σ / σ_d, by `dormand_prince`: dy/dθ = cos θ σ_d (x - D) / σ - sin θ D, which does
    not move at all for N(0, σ_d²). All images take the same steps, those of the worst.

    Args:
        x: (N, …) at level `sigma_max`.
        sigma_max, sigma_min: 0 < σ_min < σ_max; a σ_min of 0 is not reached: denoise what comes out.
        rtol: on the sum over steps of the root mean square error of an image, relative to that image's own root mean
            square or σ_d, whichever is larger. The estimates are of the fourth-order solution, the fifth-order one is
            kept, so most errors come out smaller; a path that later spreads makes them larger.
        sigma_data: σ_d, roughly the standard deviation of the images.

    Raises:
        InputError: numbers that cannot be.
        DivergenceError: the tolerance is not met in `MOST` evaluations.

    Source: the equation: Lu & Song, "Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models", ICLR
    2025, section 3.
    """
    if not 0 < sigma_min < sigma_max < math.inf:
        raise InputError(f"levels must satisfy 0 < sigma_min < sigma_max < inf, got {sigma_min} and {sigma_max}")
    return probability_flow(denoiser, x, sigma_max, sigma_min, rtol=rtol, sigma_data=sigma_data)


def probability_flow(
    denoiser: Denoiser, x: Tensor, begin: float, end: float, *, rtol: float, sigma_data: float = 0.5
) -> AdaptiveSample:
    """`adaptive` from any positive level to any other, up or down; arguments and errors alike."""
    if not 0 < rtol < math.inf or not 0 < sigma_data < math.inf:
        raise InputError(f"rtol and sigma_data must be positive, got {rtol} and {sigma_data}")
    if not x.is_floating_point():
        raise InputError(f"x must be of a floating type, got {x.dtype}")

    def velocity(y: Tensor, theta: float) -> Tensor:
        sigma = sigma_data * math.tan(theta)
        at = y / math.cos(theta)
        (level,) = scalars([sigma], x)
        denoised = denoiser(at, level)
        return (at - denoised) * (math.cos(theta) * sigma_data / sigma) - denoised * math.sin(theta)

    def worst(error: Tensor, y: Tensor) -> float:
        size, scale = (each.flatten(1).double().square().mean(dim=1).sqrt() for each in (error, y))
        return float((size / scale.clamp_min(sigma_data)).max())

    first, last = (math.atan2(sigma, sigma_data) for sigma in (begin, end))
    found = dormand_prince(velocity, x * math.cos(first), first, last, tolerance=rtol, norm=worst, most=MOST)
    return AdaptiveSample(sample=found.y / math.cos(last), num_evaluations=found.num_evaluations, error=found.error)

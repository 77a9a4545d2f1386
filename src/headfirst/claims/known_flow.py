"""Samplers on mixtures of Gaussians, whose denoiser is known exactly: the order of each, and what an accuracy costs.

Shape letters: N points, K components.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.generate.diffusion import (
    GaussianMixture,
    adaptive,
    ddim,
    dpm_pp_2m,
    dpm_pp_3m,
    heun,
    karras_sigmas,
    plms,
    pndm,
    read_order,
)

MAX, MIN, RHO = 10.0, 0.1, 7.0
COMPONENTS, POINTS = 4, 32
STEPS = (4, 8, 16, 32, 64, 128, 256)
READ = 64
"""Fewest steps of those that the order is read from."""
ACCURACY = 1e-2
"""Root mean square error, over that of the points at the end of their paths, at which evaluations are compared."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A sampler, the order it is to have, and how far from it or, `exact` being False, below it is too far."""

    sampler: Callable[..., Tensor]
    order: int
    band: float
    exact: bool = True


METHODS: Mapping[str, Method] = {
    "DDIM": Method(sampler=ddim, order=1, band=0.1),
    "Heun": Method(sampler=heun, order=2, band=0.15),
    "PNDM": Method(sampler=pndm, order=2, band=0.25),
    "DPM-Solver++ 2M": Method(sampler=dpm_pp_2m, order=2, band=0.15),
    "DPM-Solver++ 3M": Method(sampler=dpm_pp_3m, order=3, band=0.4, exact=False),
    "PLMS": Method(sampler=plms, order=4, band=0.6, exact=False),
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Of one method and mixture: `order` by the steps, and at each number of steps `evaluations` and relative
    `errors`."""

    order: float
    evaluations: tuple[int, ...]
    errors: tuple[float, ...]

    def cost(self, accuracy: float = ACCURACY) -> float:
        """Evaluations at which the error is `accuracy`, on the line between the logarithms of its neighbours; the
        fewest or most that were tried where it is met at once, or not at all."""
        below = [i for i, error in enumerate(self.errors) if error <= accuracy]
        if not below or below[0] == 0:
            return float(self.evaluations[0 if below else -1])
        i = below[0]
        errors, evaluations = np.log(self.errors[i - 1 : i + 1]), np.log(self.evaluations[i - 1 : i + 1])
        share = (math.log(accuracy) - errors[0]) / (errors[1] - errors[0])
        return math.exp(evaluations[0] + share * (evaluations[1] - evaluations[0]))


def mixture_of(seed: int) -> GaussianMixture:
    """Components in the plane, their places, sizes and weights drawn."""
    generator = torch.Generator().manual_seed(seed)
    means = 1.5 * torch.randn(COMPONENTS, 2, generator=generator, dtype=torch.float64)
    stds, weights = 0.5 + 0.5 * torch.rand(2, COMPONENTS, generator=generator, dtype=torch.float64)
    return GaussianMixture(means=means, stds=stds, weights=weights)


def readings(seed: int) -> dict[str, Reading]:
    """Every method on the mixture of a seed, from σ = 10 to 0.1."""
    denoiser, generator = mixture_of(seed), torch.Generator().manual_seed(2**20 + seed)
    x = denoiser.sample(POINTS, generator=generator)
    x = x + MAX * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    exact = adaptive(denoiser, x, MAX, MIN, rtol=1e-11).sample
    return {name: _read(method.sampler, denoiser, x, exact) for name, method in METHODS.items()}


def _read(
    sampler: Callable[..., Tensor],
    denoiser: GaussianMixture,
    x: Float[Tensor, "n 2"],
    exact: Float[Tensor, "n 2"],
) -> Reading:
    calls = 0

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return denoiser(x, sigma)

    evaluations: list[int] = []

    def levels(n: int) -> Tensor:
        evaluations.append(calls)  # of all before
        return karras_sigmas(n + 1, MIN, MAX, RHO)

    found = read_order(sampler, counted, x, levels, exact, steps=STEPS)
    slope = read_slope([(n, e) for n, e in zip(found.steps, found.errors, strict=True) if n >= READ])
    size = exact.square().mean().sqrt().item()
    return Reading(
        order=slope,
        evaluations=tuple(np.diff([*evaluations, calls]).tolist()),
        errors=tuple(error / size for error in found.errors),
    )


def read_slope(points: Sequence[tuple[int, float]]) -> float:
    """By which power of the steps the error falls: least squares over the logarithms."""
    steps, errors = np.log(np.array(points)).T
    return -float(np.polyfit(steps, errors, 1)[0])

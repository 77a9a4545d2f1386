"""The cheapest way to sample a model that is exact enough, found on the model itself.

What enters: a denoiser, a few images of noise, a tolerance. What leaves: a `Sampling`, its error with an interval, and
what else was tried. Shape letters: N images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.errors import DivergenceError, InputError
from headfirst.generate.diffusion.samplers import adaptive
from headfirst.generate.diffusion.samplers.stepping import scalars
from headfirst.generate.diffusion.sampling import Sampling
from headfirst.metrics import Interval, bootstrap_interval
from headfirst.types import Denoiser, Progress, silent

METHODS = ("euler", "heun", "dpm_solver_3", "dpm_pp_2m", "dpm_pp_3m", "dpm_solver_3m", "plms")
"""Those that are tried: deterministic, of the first to the fourth order."""
RHOS = (7.0, 20.0)
"""Grids that are tried."""
BUDGETS = (4, 5, 6, 8, 10, 12, 16, 20, 26, 34, 44, 57, 74, 96, 125)
"""Evaluations that are tried, rising by about 3/10."""
FINER = 50
"""The path that errors are measured from is asked for this much less error: where paths spread, it gets more."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A way of sampling and the mean relative error of its images, with its interval; infinite where it blew up."""

    sampling: Sampling
    error: Interval

    @property
    def num_evaluations(self) -> int:
        """Of the denoiser."""
        return self.sampling.num_evaluations


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The trial that was chosen, and all in order; `reference`: evaluations of the path they were measured from."""

    chosen: Trial
    tried: tuple[Trial, ...]
    reference: int

    @property
    def sampling(self) -> Sampling:
        """The chosen way."""
        return self.chosen.sampling


def end_of_path(
    denoiser: Denoiser, x: Tensor, sigma_max: float, sigma_min: float, *, rtol: float, sigma_data: float
) -> tuple[Tensor, int]:
    """Where an exact sampler ends: the flow down to σ_min, denoised there, as samplers that end at 0 do; its cost.

    Raises:
        DivergenceError: not to be had this exactly; a network in float32 has 1e-5 or so.
    """
    found = adaptive(denoiser, x, sigma_max, sigma_min, rtol=rtol, sigma_data=sigma_data)
    return denoiser(found.sample, *scalars([sigma_min], x)), found.num_evaluations + 1


def relative_errors(found: Tensor, exact: Tensor, sigma_data: float) -> Float[Tensor, " n"]:
    """Root mean square difference of each image, over that of the exact image, or σ_d where that is larger."""
    wrong, size = (each.flatten(1).double().square().mean(1).sqrt() for each in (found - exact, exact))
    return wrong / size.clamp_min(sigma_data)


@torch.no_grad()
def choose_sampling(
    denoiser: Denoiser,
    x: Tensor,
    sigma_max: float,
    sigma_min: float,
    *,
    tolerance: float,
    sigma_data: float = 0.5,
    like: Sampling | None = None,
    methods: Sequence[str] = METHODS,
    progress: Progress = silent,
) -> Choice:
    """The way of fewest evaluations whose mean error is at most `tolerance`, by the upper end of its 95 % interval.

    Of several that cost the same, the most exact. Nothing is assumed of the order of a method: with few steps a low one
    is often the better, and it is measured to be.

    Args:
        denoiser: with its guidance, if there is any.
        x: (N, …) at level `sigma_max`, float64; N ≥ 4 that stand for all.
        sigma_max, sigma_min: levels between which the model knows images.
        tolerance: of `relative_errors`, averaged over images, to the end of the exact path.
        sigma_data: σ_d, the standard deviation of the images.
        like: what else the chosen `Sampling` says, such as guidance.

    Raises:
        InputError: too few images; a tolerance that none of `BUDGETS` meets, saying the best that was reached, or so
            small that the exact path cannot be had.
    """
    if not 0 < tolerance < math.inf:
        raise InputError(f"tolerance must be positive, got {tolerance}; 0.01 is one in a hundred")
    if len(x) < 4:
        raise InputError(f"an error over images needs at least 4 of them, got {len(x)}")
    try:
        exact, reference = end_of_path(denoiser, x, sigma_max, sigma_min, rtol=tolerance / FINER, sigma_data=sigma_data)
    except DivergenceError as error:
        raise InputError(
            f"a tolerance of {tolerance:g} cannot be judged: the exact path would have to be known to a {FINER}th of "
            f"that, and {error}"
        ) from error
    tried: list[Trial] = []
    for number, budget in enumerate(BUDGETS):
        progress("choosing a sampler", number, len(BUDGETS))
        for sampling in _within(budget, like or Sampling(), methods):
            found = sampling.run(denoiser, x, sampling.sigmas(sigma_min, sigma_max))
            tried.append(Trial(sampling=sampling, error=_mean(relative_errors(found, exact, sigma_data))))
        enough = [trial for trial in tried if trial.error.high <= tolerance]
        if enough:
            progress("choosing a sampler", len(BUDGETS), len(BUDGETS))
            chosen = min(enough, key=lambda trial: (trial.num_evaluations, trial.error.value))
            return Choice(chosen=chosen, tried=tuple(tried), reference=reference)
    best = min(tried, key=lambda trial: trial.error.high)
    raise InputError(
        f"no sampler meets a tolerance of {tolerance:g} within {BUDGETS[-1]} evaluations; the best, "
        f"{best.sampling.method} with {best.num_evaluations}, came to {best.error.value:.2g} "
        f"[{best.error.low:.2g}, {best.error.high:.2g}]; ask for no less than that"
    )


def _within(budget: int, like: Sampling, methods: Sequence[str]) -> Iterator[Sampling]:
    """Each method and grid with as many steps as the evaluations allow, where it has not been tried with a smaller."""
    smaller = max((b for b in BUDGETS if b < budget), default=0)
    for method in methods:
        for rho in RHOS:
            ways = [replace(like, method=method, num_steps=n, rho=rho, eta=0.0) for n in range(1, budget + 1)]
            fitting = [way for way in ways if smaller < way.num_evaluations <= budget]
            if fitting:
                yield fitting[-1]


def _mean(errors: Float[Tensor, " n"]) -> Interval:
    if not bool(errors.isfinite().all()):
        return Interval(value=math.inf, low=math.inf, high=math.inf)
    return bootstrap_interval(errors[None], seed=0, bounds=(0.0, math.inf))

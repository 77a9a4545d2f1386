"""The cheapest sampling that is exact enough; what a map of orders, stalls and blow-ups shows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from exact import F64, flow, mixture, noisy
from headfirst.errors import InputError
from headfirst.generate.diffusion import (
    Sampling,
    choose_sampling,
    dpm_pp_2m,
    euler,
    karras_sigmas,
    not_finite,
    read_order,
    relative_errors,
)

MAX, MIN = 20.0, 0.05


class Counting:
    asked = 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.asked += 1
        return 0 * x


def exact_end(x):
    below = flow(mixture(), x, MAX, MIN)
    return mixture()(below, MIN)


@pytest.mark.parametrize("tolerance", [0.1, 0.01, 0.001])
def test_the_chosen_sampling_keeps_the_tolerance_on_other_images(tolerance: float) -> None:
    choice = choose_sampling(mixture(), noisy(16, MAX), MAX, MIN, tolerance=tolerance)
    x = noisy(64, MAX, seed=1)
    found = choice.sampling.run(mixture(), x, choice.sampling.sigmas(MIN, MAX))
    assert relative_errors(found, exact_end(x), 0.5).mean() < 1.5 * tolerance
    assert choice.chosen.error.high <= tolerance
    cheaper = [t for t in choice.tried if t.num_evaluations < choice.chosen.num_evaluations]
    assert all(t.error.high > tolerance for t in cheaper)
    assert choice.chosen.num_evaluations < 6 + 4 * tolerance**-0.5


def test_what_else_was_asked_for_stays() -> None:
    like = Sampling(guidance=2.0, rescale=0.3)
    choice = choose_sampling(mixture(), noisy(8, MAX), MAX, MIN, tolerance=0.1, like=like)
    assert (choice.sampling.guidance, choice.sampling.rescale) == (2.0, 0.3)


def test_a_tolerance_that_nothing_meets_says_the_best() -> None:
    with pytest.raises(
        InputError, match=r"no sampler meets a tolerance of 1e-06 within 125 evaluations; the best, \w+ with"
    ):
        choose_sampling(mixture(), noisy(4, MAX), MAX, MIN, tolerance=1e-6, methods=("euler",))
    single = lambda x, s: mixture()(x.float(), s.float()).double()  # noqa: E731
    with pytest.raises(InputError, match=r"a tolerance of 1e-09 cannot be judged: .* was not met in"):
        choose_sampling(single, noisy(4, MAX), MAX, MIN, tolerance=1e-9)
    with pytest.raises(InputError, match="tolerance must be positive, got 0"):
        choose_sampling(mixture(), noisy(4, MAX), MAX, MIN, tolerance=0.0)
    with pytest.raises(InputError, match="at least 4 of them, got 3"):
        choose_sampling(mixture(), noisy(3, MAX), MAX, MIN, tolerance=0.1)


def test_counts_are_those_of_the_samplers() -> None:
    for method in ("euler", "heun", "dpm_solver_2", "dpm_solver_3", "dpm_pp_3m", "plms", "pndm", "ddpm", "heun_churn"):
        for n in (1, 2, 3, 7, 8):
            denoiser, sampling = Counting(), Sampling(method=method, num_steps=n)
            sampling.run(denoiser, torch.ones(1, 1, dtype=F64), sampling.sigmas(0.1, 5.0))
            assert denoiser.asked == sampling.num_evaluations


def test_the_order_is_read_and_a_wrong_time_is_seen_as_a_plateau() -> None:
    """The fault of libraries that step to another level than they asked the network about: the error stalls."""
    x = noisy(16, 10.0)
    exact = flow(mixture(), x, 10.0, 0.1)
    levels = lambda n: karras_sigmas(n + 1, 0.1, 10.0)  # noqa: E731
    assert read_order(euler, mixture(), x, levels, exact).slope == pytest.approx(1, abs=0.1)
    found = read_order(dpm_pp_2m, mixture(), x, levels, exact)
    assert found.slope == pytest.approx(2, abs=0.1)
    assert found.plateaus == ()
    off = lambda denoiser, x, sigmas: dpm_pp_2m(lambda x, s: denoiser(x, 1.05 * s), x, sigmas)  # noqa: E731
    stalled = read_order(off, mixture(), x, levels, exact)
    assert stalled.plateaus == (8, 16, 32)
    assert stalled.slope is not None
    assert stalled.slope < 1
    with pytest.raises(InputError, match="each twice the last, got 8, 12"):
        read_order(euler, mixture(), x, levels, exact, steps=(8, 12))


def test_what_is_not_finite_is_mapped() -> None:
    def fails_at(denoiser, x, sigmas, generator=None):
        return x * (math.nan if len(sigmas) == 4 else 1.0)

    levels = lambda n: karras_sigmas(n + 1, 0.1, 10.0)  # noqa: E731
    assert not_finite(fails_at, mixture(), noisy(2, 10.0), levels) == (3,)
    assert not_finite(euler, mixture(), noisy(2, 10.0), levels) == ()

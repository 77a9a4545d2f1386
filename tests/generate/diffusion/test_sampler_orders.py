"""Each sampler has the order it claims, on a mixture whose flow is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from exact import flow, mixture, noisy
from headfirst.generate.diffusion import (
    ddim,
    dpm_pp_2m,
    dpm_pp_3m,
    dpm_solver_1,
    dpm_solver_2,
    dpm_solver_2m,
    dpm_solver_3,
    dpm_solver_3m,
    euler,
    heun,
    karras_sigmas,
    linear_alphas_bar,
    log_snr_uniform_sigmas,
    plms,
    pndm,
    vp_sigmas,
)
from headfirst.generate.diffusion.samplers import stepping

MAX, MIN = 10.0, 0.1
GRIDS = {"karras": karras_sigmas, "log-snr": log_snr_uniform_sigmas}
ORDERS = [
    (euler, 0.95, 1.05),
    (ddim, 0.95, 1.05),
    (dpm_solver_1, 0.95, 1.05),
    (heun, 1.9, 2.1),
    (dpm_solver_2, 1.9, 2.1),
    (dpm_solver_2m, 1.9, 2.1),
    (dpm_pp_2m, 1.9, 2.1),
    (pndm, 1.9, 2.1),
    (dpm_solver_3, 2.8, 3.3),
    (dpm_solver_3m, 2.8, 3.3),
    (dpm_pp_3m, 2.8, 3.3),
    (plms, 3.5, 4.2),
]


@pytest.fixture(scope="module")
def problem() -> tuple[Tensor, Tensor]:
    x = noisy(16, MAX)
    return x, flow(mixture(), x, MAX, MIN)


def error(sampler: Callable[..., Tensor], problem: tuple[Tensor, Tensor], num_steps: int, grid: str) -> float:
    x, exact = problem
    found = sampler(mixture(), x, GRIDS[grid](num_steps + 1, MIN, MAX))
    return (found - exact).square().mean().sqrt().item()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("sampler", "low", "high"), ORDERS, ids=lambda v: getattr(v, "__name__", ""))
def test_slope(sampler: Callable[..., Tensor], low: float, high: float, grid: str, problem) -> None:
    steps = [32, 64, 128]
    errors = [error(sampler, problem, n, grid) for n in steps]
    slope = torch.linalg.lstsq(
        torch.tensor([[math.log(n), 1.0] for n in steps]), torch.tensor([[-math.log(e)] for e in errors])
    ).solution[0, 0]
    assert low <= slope <= high, (slope, errors)


@pytest.mark.parametrize("sampler", [s for s, *_ in ORDERS], ids=lambda s: s.__name__)
def test_the_error_falls_at_every_doubling_and_ends_nowhere(sampler: Callable[..., Tensor], problem) -> None:
    errors = [error(sampler, problem, n, "karras") for n in (8, 16, 32, 64, 128)]
    assert all(b < a / 1.9 for a, b in pairwise(errors)), errors


@pytest.mark.parametrize("num_steps", [10, 20, 40])
def test_the_third_order_beats_the_second_and_that_the_first_at_equal_steps(num_steps: int, problem) -> None:
    first, second, third = (error(s, problem, num_steps, "log-snr") for s in (euler, dpm_pp_2m, dpm_pp_3m))
    assert third < second < first


def test_single_steps_are_those_of_the_textbook() -> None:
    """Heun's and the classical Runge-Kutta step for e = (x - D) / σ: other weights may have the same order."""
    x, (s, t) = noisy(5, 2.0), (2.0, 1.0)

    def e(y: Tensor, sigma: float) -> Tensor:
        return (y - mixture()(y, sigma)) / sigma

    h, levels = t - s, torch.tensor([s, t])
    k1 = e(x, s)
    torch.testing.assert_close(heun(mixture(), x, levels), x + h / 2 * (k1 + e(x + h * k1, t)))
    k2 = e(x + h / 2 * k1, s + h / 2)
    k3 = e(x + h / 2 * k2, s + h / 2)
    k4 = e(x + h * k3, t)
    torch.testing.assert_close(pndm(mixture(), x, levels), x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))


@pytest.mark.parametrize("num_steps", [8, 16, 32])
@pytest.mark.parametrize(("sampler", "share"), [(plms, 0.5), (dpm_solver_3m, 0.7), (dpm_pp_3m, 0.8)])
def test_levels_even_in_training_time_do_not_run_away(
    sampler: Callable[..., Tensor], share: float, num_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sigmas = vp_sigmas(linear_alphas_bar(1000), num_steps, "leading")[:-1]
    x = noisy(16, float(sigmas[0]))
    exact = flow(mixture(), x, float(sigmas[0]), float(sigmas[-1]))

    def error() -> float:
        return (sampler(mixture(), x, sigmas) - exact).square().mean().sqrt().item()

    found = error()
    stepping._noise_weights.cache_clear()
    stepping._image_weights.cache_clear()
    monkeypatch.setattr(stepping, "UNEVEN", math.inf)  # in log σ or √σ, as on other levels
    before = error()
    stepping._noise_weights.cache_clear()
    stepping._image_weights.cache_clear()
    assert found < share * before


def test_the_place_on_the_grid_is_taken_where_steps_in_log_sigma_are_uneven() -> None:
    for grid in GRIDS.values():
        assert stepping.variable(grid(9, 0.002, 80.0).tolist(), np.log) is np.log
    assert stepping.variable(karras_sigmas(9, 0.002, 80.0, 3.0).tolist(), np.sqrt) is np.sqrt
    uneven = [float(v) for v in vp_sigmas(linear_alphas_bar(1000), 8, "leading")]
    assert stepping.variable([80.0, np.nextafter(80.0, 0.0), 0.1], np.log) is np.log  # of one and the same logarithm
    place = stepping.variable(uneven, np.log)
    assert place(np.array(uneven[:-1])) == pytest.approx(np.arange(8.0)[::-1])
    between = place(np.geomspace(uneven[-2], uneven[0], 500))
    assert (np.diff(between) > 0).all()

"""Levels and schedules: their formulas, ends, inverses and derivatives."""

from __future__ import annotations

import math

import pytest
import torch

from exact import F64
from headfirst.errors import InputError
from headfirst.generate.diffusion import (
    CosineSchedule,
    DiscreteSchedule,
    KarrasSchedule,
    LinearSchedule,
    LogSNRUniformSchedule,
    ScaledLinearSchedule,
    Schedule,
    alpha_bar_of_sigma,
    cosine_alphas_bar,
    karras_sigmas,
    linear_alphas_bar,
    log_snr_uniform_sigmas,
    scaled_linear_alphas_bar,
    sigma_of_alpha_bar,
    spaced_timesteps,
    to_zero,
    vp_sigmas,
    zero_terminal_snr,
)

SCHEDULES: list[Schedule] = [
    LinearSchedule(),
    ScaledLinearSchedule(),
    CosineSchedule(),
    KarrasSchedule(),
    LogSNRUniformSchedule(),
    DiscreteSchedule(linear_alphas_bar(1000)),
]


@pytest.mark.parametrize("make", [karras_sigmas, log_snr_uniform_sigmas])
def test_levels_fall_between_their_exact_ends(make) -> None:
    for n in range(2, 61):
        sigmas = make(n, 0.0123, 79.3)
        assert (len(sigmas), sigmas.dtype) == (n, F64)
        assert (sigmas[0].item(), sigmas[-1].item()) == (79.3, 0.0123)
        assert (sigmas.diff() < 0).all()
    assert make(1, 0.01, 80.0).tolist() == [80.0]
    assert to_zero(make(2, 0.01, 80.0)).tolist() == [80.0, 0.01, 0.0]


def test_karras_levels_are_equal_steps_of_the_root() -> None:
    root = karras_sigmas(9, 0.002, 80.0, 7.0) ** (1 / 7)
    torch.testing.assert_close(root.diff(), root.diff().mean().expand(8), rtol=1e-10, atol=0.0)
    assert karras_sigmas(9, 0.002, 80.0, 1.0).diff().std() < 1e-12
    dense = karras_sigmas(9, 0.002, 80.0, 1e6)
    torch.testing.assert_close(dense, log_snr_uniform_sigmas(9, 0.002, 80.0), rtol=1e-4, atol=0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.1, 1.0), "num_steps must be at least 1, got 0"),
        ((-3, 0.1, 1.0), "got -3"),
        ((3, 0.0, 1.0), "0 < sigma_min"),
        ((3, 2.0, 1.0), "got 2.0 and 1.0"),
        ((3, 1.0, math.inf), "inf"),
        ((3, 1.0, 1.0), "sigma_min < sigma_max"),
    ],
)
def test_levels_that_cannot_be(arguments, message: str) -> None:
    for make in (karras_sigmas, log_snr_uniform_sigmas):
        with pytest.raises(InputError, match=message):
            make(*arguments)
    with pytest.raises(InputError, match="rho"):
        karras_sigmas(3, 0.1, 1.0, 0.0)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_a_schedule_agrees_with_itself(schedule: Schedule) -> None:
    scale = 999.0 if isinstance(schedule, DiscreteSchedule) else 1.0
    t = scale * torch.linspace(0.013, 0.987, 41, dtype=F64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    torch.testing.assert_close(schedule.level(t), sigma / alpha, rtol=1e-9, atol=0.0)
    torch.testing.assert_close(schedule.time(schedule.level(t)), t, rtol=1e-9, atol=1e-12)
    if not isinstance(schedule, KarrasSchedule | LogSNRUniformSchedule):
        torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t))
    h = 1e-6 * scale
    for of, dot in ((schedule.alpha, schedule.alpha_dot), (schedule.sigma, schedule.sigma_dot)):
        torch.testing.assert_close(dot(t), (of(t + h) - of(t - h)) / (2 * h), rtol=1e-5, atol=1e-7)
    assert (sigma.diff() > 0).all()
    assert schedule.time(torch.tensor(0.5)).ndim == 0


def test_schedules_are_those_of_the_papers() -> None:
    t = torch.tensor([0.3], dtype=F64)
    beta_integral = 0.1 * 0.3 + 0.5 * 0.09 * 19.9
    assert LinearSchedule().alpha(t).item() == pytest.approx(math.exp(-0.5 * beta_integral))
    cosine = math.cos(0.308 / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)
    assert CosineSchedule().alpha(t).item() == pytest.approx(cosine)
    beta = torch.linspace(0, 0.3, 200_001, dtype=F64).mul(math.sqrt(12) - math.sqrt(0.85)).add(math.sqrt(0.85)).square()
    assert ScaledLinearSchedule().alpha(t).item() == pytest.approx(math.exp(-0.5 * torch.trapezoid(beta, dx=1.5e-6)))


def test_the_cosine_schedule_ends_in_noise_alone() -> None:
    ends = torch.tensor([0.0, 1.0], dtype=F64)
    assert CosineSchedule().alpha(ends).tolist() == [1.0, 0.0]
    assert CosineSchedule().sigma(ends).tolist() == [0.0, 1.0]
    assert CosineSchedule().level(ends).tolist() == [0.0, math.inf]
    assert CosineSchedule().time(torch.tensor([0.0, 80.0, math.inf])).tolist() == pytest.approx(
        [0.0, 0.9920, 1.0], abs=1e-3
    )


def test_times_of_karras_levels_exist_on_every_schedule() -> None:
    levels = karras_sigmas(50, 0.01, 80.0)
    for schedule in SCHEDULES[:5]:
        times = schedule.time(levels)
        assert times.isfinite().all()
        assert (times.diff() < 0).all()


def test_discrete_steps_are_hit_exactly_and_between_them_is_a_line() -> None:
    alphas_bar = linear_alphas_bar(100)
    schedule = DiscreteSchedule(alphas_bar)
    torch.testing.assert_close(schedule.time(sigma_of_alpha_bar(alphas_bar)), torch.arange(100.0, dtype=F64))
    between = schedule.log_alpha(torch.tensor([10.0, 10.5, 11.0], dtype=F64))
    assert between[1].item() == pytest.approx((between[0] + between[2]).item() / 2)
    terminal = DiscreteSchedule(zero_terminal_snr(alphas_bar))
    assert terminal.alpha(torch.tensor(99.0)).item() == 0
    assert terminal.alpha(torch.tensor(0.0)).item() == pytest.approx(alphas_bar[0].sqrt().item())
    assert terminal.time(torch.tensor(math.inf)).item() == 99
    for bad in (torch.tensor([0.5]), torch.tensor([0.5, 0.6]), torch.tensor([0.5, 0.0, 0.0])):
        with pytest.raises(InputError, match="alphas_bar must"):
            DiscreteSchedule(bad)


def test_products_of_betas() -> None:
    for alphas_bar in (linear_alphas_bar(1000), scaled_linear_alphas_bar(1000), cosine_alphas_bar(1000)):
        assert (alphas_bar.diff() < 0).all()
    assert linear_alphas_bar(1000)[0].item() == pytest.approx(1 - 1e-4)
    assert linear_alphas_bar(1000)[-1].item() == pytest.approx(4.0358e-5, rel=1e-3)  # of DDPM's published schedule
    assert scaled_linear_alphas_bar(1000)[-1].item() == pytest.approx(0.00466, rel=1e-2)  # of Stable Diffusion's
    squares = CosineSchedule().alpha(torch.linspace(0, 1, 1001, dtype=F64)) ** 2
    torch.testing.assert_close(cosine_alphas_bar(1000)[:990], squares[1:991])


def test_conversions_of_levels() -> None:
    alpha_bar = torch.tensor([1.0, 0.5, 0.2, 0.0], dtype=F64)
    sigma = sigma_of_alpha_bar(alpha_bar)
    assert sigma.tolist() == pytest.approx([0.0, 1.0, 2.0, math.inf])
    torch.testing.assert_close(alpha_bar_of_sigma(sigma), alpha_bar)
    with pytest.raises(InputError, match=r"alpha_bar must lie in \[0, 1\]"):
        sigma_of_alpha_bar(torch.tensor([1.5]))


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_every_number_of_steps_goes_straight_down(spacing) -> None:
    """The previous step is the next of the list, whether or not the number divides those of training."""
    for n in range(1, 1001, 7):
        steps = spaced_timesteps(1000, n, spacing)
        assert len(steps) == n
        assert (steps.diff() < 0).all()
        assert steps[-1] >= 0
        assert steps[0] <= 999
        assert steps[0] == 999 or spacing == "leading"
    sigmas = vp_sigmas(linear_alphas_bar(1000), 7, spacing)
    assert len(sigmas) == 8
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
    with pytest.raises(InputError, match="1 … 1000, the steps of training, got 0"):
        spaced_timesteps(1000, 0, spacing)


def test_other_refusals() -> None:
    with pytest.raises(InputError, match="did you mean 'trailing'"):
        spaced_timesteps(10, 2, "traling")
    with pytest.raises(InputError, match="fall from step to step"):
        vp_sigmas(torch.tensor([0.9, 0.9]), 1)
    with pytest.raises(InputError, match="beta must rise"):
        LinearSchedule(beta_min=2.0, beta_max=1.0)

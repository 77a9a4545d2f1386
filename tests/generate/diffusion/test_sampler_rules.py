"""Evaluations as stated, ends as stated, finite for any number of steps, the same image in any batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from exact import F64, mixture, noisy
from headfirst.errors import InputError
from headfirst.generate.diffusion import (
    GaussianMixture,
    consistency,
    cosine_alphas_bar,
    ddim,
    ddpm,
    dpm_pp_2m,
    dpm_pp_3m,
    dpm_solver_2,
    dpm_solver_2m,
    dpm_solver_3,
    dpm_solver_3m,
    euler,
    heun,
    heun_churn,
    karras_sigmas,
    linear_alphas_bar,
    log_snr_uniform_sigmas,
    plms,
    pndm,
    reverse_sde,
    streams,
    to_zero,
    vp_sigmas,
)

Sampler = Callable[..., Tensor]
DETERMINISTIC: list[Sampler] = [
    euler, ddim, heun, plms, pndm, dpm_solver_2, dpm_solver_3, dpm_solver_2m, dpm_solver_3m, dpm_pp_2m, dpm_pp_3m,
]  # fmt: skip
RANDOM: list[Sampler] = [ddpm, heun_churn, reverse_sde, consistency]
# Evaluations of n steps, of which the last ends at 0.
COUNTS: dict[Sampler, Callable[[int], int]] = {
    euler: lambda n: n,
    ddim: lambda n: n,
    ddpm: lambda n: n,
    reverse_sde: lambda n: n,
    consistency: lambda n: n,
    heun: lambda n: 2 * n - 1,
    heun_churn: lambda n: 2 * n - 1,
    dpm_solver_2: lambda n: 2 * n - 1,
    dpm_solver_3: lambda n: 3 * n - 2,
    dpm_solver_2m: lambda n: n,
    dpm_pp_2m: lambda n: n,
    dpm_solver_3m: lambda n: n + (n > 1),
    dpm_pp_3m: lambda n: n + (n > 1),
    plms: lambda n: n + 2 * min(n - 1, 2),
    pndm: lambda n: n + 3 * min(n - 1, 3),
}


class Counting:
    """The denoiser of N(0, 1), and what it was asked."""

    def __init__(self) -> None:
        self.levels: list[float] = []

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        assert (sigma.ndim, sigma.dtype) == (0, x.dtype)
        self.levels.append(float(sigma))
        self.last = x / (1 + sigma**2)
        return self.last


@pytest.mark.parametrize("sampler", COUNTS, ids=lambda s: s.__name__)
def test_evaluations_and_ends_for_1_to_60_steps_on_every_grid(sampler: Sampler) -> None:
    start = torch.randn(4, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    for n in range(1, 61):
        grids = [
            to_zero(karras_sigmas(n, 0.002, 80.0)),
            to_zero(log_snr_uniform_sigmas(n, 0.01, 20.0)),
            vp_sigmas(linear_alphas_bar(1000), n, "linspace"),
            vp_sigmas(cosine_alphas_bar(1000), n, "trailing"),
        ]
        sigmas = grids[n % 4]
        denoiser, x = Counting(), start * float(sigmas[0])
        found = sampler(denoiser, x, sigmas, generator=torch.Generator().manual_seed(n))
        assert len(denoiser.levels) == COUNTS[sampler](n)
        assert denoiser.levels[0] >= float(sigmas[0]) * (1 - 1e-12)  # churn begins a little higher
        assert min(denoiser.levels) > 0
        assert found.isfinite().all()
        assert torch.equal(found, denoiser.last)
        assert (found.shape, found.dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize("sampler", [*DETERMINISTIC, *RANDOM], ids=lambda s: s.__name__)
def test_every_grid_without_a_zero_ends_at_its_last_level(sampler: Sampler) -> None:
    """Points that begin with little noise keep the law of the mixture: its standard deviation, with the noise left."""
    x = noisy(3000, 2.0)
    found = sampler(mixture(), x, karras_sigmas(24, 0.3, 2.0), generator=torch.Generator().manual_seed(1))
    expected = noisy(200_000, 0.3, seed=1)
    if sampler is not consistency:  # which jumps by the mean of a denoiser that is no consistency function
        assert (found.mean(0) - expected.mean(0)).abs().max() < 0.06
        assert (found.std(0) / expected.std(0) - 1).abs().max() < 0.04


@pytest.mark.parametrize("sampler", RANDOM, ids=lambda s: s.__name__)
def test_an_image_with_its_own_stream_is_the_same_in_any_batch_and_order(sampler: Sampler) -> None:
    x, sigmas = noisy(6, 10.0), to_zero(karras_sigmas(7, 0.01, 10.0))
    whole = sampler(mixture(), x, sigmas, generator=streams(3, range(6), 9))
    for rows in ([4], [5, 0], [3, 2, 1]):
        alone = sampler(mixture(), x[rows], sigmas, generator=streams(3, rows, 9))
        assert torch.equal(alone, whole[rows])
    other = sampler(mixture(), x, sigmas, generator=streams(4, range(6), 9))
    assert not torch.equal(other, whole)


def test_one_generator_gives_the_same_images_again() -> None:
    x, sigmas = noisy(3, 10.0), to_zero(karras_sigmas(7, 0.01, 10.0))
    a, b = (ddpm(mixture(), x, sigmas, generator=torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(a, b)


@pytest.mark.parametrize("sampler", [*DETERMINISTIC, *RANDOM], ids=lambda s: s.__name__)
def test_x_is_left_as_it_was(sampler: Sampler) -> None:
    x = noisy(3, 10.0)
    before = x.clone()
    sampler(mixture(), x, to_zero(karras_sigmas(5, 0.01, 10.0)), generator=torch.Generator().manual_seed(2))
    assert torch.equal(x, before)


def test_ddim_between_its_ends() -> None:
    x, sigmas = noisy(64, 10.0), karras_sigmas(30, 0.01, 10.0)
    ends = [ddim(mixture(), x, sigmas, eta=eta, generator=torch.Generator().manual_seed(5)) for eta in (0.0, 1.0)]
    assert torch.equal(ends[0], euler(mixture(), x, sigmas))
    torch.testing.assert_close(ends[1], ddpm(mixture(), x, sigmas, generator=torch.Generator().manual_seed(5)))


def test_ancestral_steps_have_the_variance_of_the_posterior() -> None:
    """Of data that is always 0: x_t given x_s is N(t²/s² x_s, t² (1 - t²/s²))."""
    x = torch.full((200_000, 1), 3.0, dtype=F64)
    found = ddpm(lambda x, sigma: 0 * x, x, torch.tensor([2.0, 0.5]), generator=torch.Generator().manual_seed(0))
    assert found.mean().item() == pytest.approx(3 / 16, abs=0.005)
    assert found.var().item() == pytest.approx(0.25 * (1 - 1 / 16), rel=0.01)


def test_random_samplers_draw_from_the_mixture() -> None:
    x = noisy(2000, 80.0)
    exact = mixture().sample(200_000, generator=torch.Generator().manual_seed(7))
    for sampler in (ddpm, heun_churn, reverse_sde):
        found = sampler(mixture(), x, to_zero(karras_sigmas(60, 0.01, 80.0)), generator=streams(0, range(2000)))
        assert (found.mean(0) - exact.mean(0)).abs().max() < 0.07
        assert (found.std(0) / exact.std(0) - 1).abs().max() < 0.08, sampler.__name__


def test_consistency_of_an_exact_consistency_function_is_exact() -> None:
    """For N(0, s²) it is s / √(s² + σ²) x: after any number of steps the law is N(0, s²) again."""
    s, n = 0.7, 200_000
    x = torch.randn(n, 1, dtype=F64, generator=torch.Generator().manual_seed(0)) * math.hypot(s, 5.0)
    jump = lambda x, sigma: x * s / (s**2 + sigma**2).sqrt()  # noqa: E731
    for sigmas in ([5.0, 0.0], [5.0, 1.0, 0.3, 0.0]):
        found = consistency(jump, x, torch.tensor(sigmas), generator=torch.Generator().manual_seed(1))
        assert found.std().item() == pytest.approx(s, rel=0.01)


def test_float32_images_stay_float32_and_agree() -> None:
    x, sigmas = noisy(16, 10.0), to_zero(karras_sigmas(12, 0.01, 10.0))
    for sampler in DETERMINISTIC:
        found = sampler(mixture(), x.float(), sigmas)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), sampler(mixture(), x, sigmas), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", [*DETERMINISTIC, *RANDOM], ids=lambda s: s.__name__)
@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ([1.0], "at least one to go to"),
        ([1.0, 1.0], "fall from step to step, got 1, 1"),
        ([0.1, 1.0], "fall from step to step"),
        ([math.inf, 1.0], "finite"),
        ([1.0, math.nan], "finite"),
        ([1.0, -0.1], "not be negative"),
    ],
)
def test_levels_that_cannot_be(sampler: Sampler, sigmas: list[float], message: str) -> None:
    def never(x: Tensor, sigma: Tensor) -> Tensor:
        raise AssertionError("no work before the levels are checked")

    with pytest.raises(InputError, match=message):
        sampler(never, torch.zeros(2, 2), torch.tensor(sigmas))


def test_other_refusals() -> None:
    x, sigmas = torch.zeros(2, 2), torch.tensor([1.0, 0.5])
    with pytest.raises(InputError, match=r"eta must lie in \[0, 1\], got 2"):
        ddim(mixture(), x, sigmas, eta=2.0)
    with pytest.raises(InputError, match="sequence of 2, one for each image, got 3"):
        ddpm(mixture(), x, sigmas, generator=streams(0, range(3)))
    with pytest.raises(InputError, match="floating"):
        euler(mixture(), torch.zeros(2, 2, dtype=torch.int64), sigmas)
    with pytest.raises(InputError, match="churn"):
        heun_churn(mixture(), x, sigmas, churn=-1.0)
    with pytest.raises(InputError, match="positive"):
        GaussianMixture(means=torch.zeros(1, 2), stds=torch.zeros(1))

"""ε, x₀, v and score say the same, along whole trajectories; guidance and preconditioning."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from exact import F64, mixture, noisy
from headfirst.errors import InputError
from headfirst.generate.diffusion import (
    CosineSchedule,
    DiscreteSchedule,
    LinearSchedule,
    adaptive,
    dpm_pp_3m,
    guided,
    heun,
    karras_sigmas,
    linear_alphas_bar,
    plms,
    preconditioned,
    preconditioning,
    prediction_of,
    to_zero,
    vp_denoiser,
    x0_from,
)

KINDS = ("epsilon", "x0", "v", "score")


@pytest.mark.parametrize("kind", KINDS)
def test_each_prediction_is_what_it_is_called(kind) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(5, 3, dtype=F64, generator=generator) for _ in range(2))
    alpha, sigma = 0.6, 0.8
    x = alpha * x0 + sigma * noise
    true = {"epsilon": noise, "x0": x0, "v": alpha * noise - sigma * x0, "score": -noise / sigma}[kind]
    torch.testing.assert_close(x0_from(kind, true, x, alpha, sigma), x0)
    torch.testing.assert_close(prediction_of(kind, x0, x, alpha, sigma), true)


@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule(), DiscreteSchedule(linear_alphas_bar(1000))])
@pytest.mark.parametrize("kind", KINDS)
def test_trajectories_are_the_same_in_every_parameterisation(kind, schedule) -> None:
    def network(scaled: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (of(t[0]) for of in (schedule.alpha, schedule.sigma))
        return prediction_of(kind, mixture()(scaled / alpha, sigma / alpha), scaled, alpha, sigma)

    x, sigmas = noisy(8, 50.0), to_zero(karras_sigmas(12, 0.02, 50.0))
    for sampler in (heun, dpm_pp_3m, plms):
        found = sampler(vp_denoiser(network, schedule, kind), x, sigmas)
        torch.testing.assert_close(found, sampler(mixture(), x, sigmas), rtol=1e-10, atol=1e-10)


def test_a_network_of_another_shape_or_kind_is_refused() -> None:
    twice = vp_denoiser(lambda x, t: torch.cat([x, x], 1), LinearSchedule(), "epsilon")
    with pytest.raises(InputError, match=r"must return the shape of its input, \(2, 3\), got \(2, 6\)"):
        twice(torch.zeros(2, 3), torch.tensor(1.0))
    with pytest.raises(InputError, match="did you mean 'epsilon'"):
        vp_denoiser(lambda x, t: x, LinearSchedule(), "epsilom")


def test_preconditioning_keeps_variances_at_one() -> None:
    """For images of standard deviation σ_d: of the input, of the target, and D = x where there is no noise."""
    generator = torch.Generator().manual_seed(0)
    x0 = 0.3 * torch.randn(400_000, dtype=F64, generator=generator)
    noise = torch.randn(400_000, dtype=F64, generator=generator)
    for level in (0.01, 0.3, 5.0):
        sigma = torch.tensor(level, dtype=F64)
        c_skip, c_out, c_in, c_noise = preconditioning(sigma, 0.3)
        x = x0 + sigma * noise
        assert (c_in * x).std().item() == pytest.approx(1, abs=0.01)
        assert ((x0 - c_skip * x) / c_out).std().item() == pytest.approx(1, abs=0.01)
        assert c_noise.item() == pytest.approx(math.log(level) / 4)
    denoiser = preconditioned(lambda x, c_noise: torch.ones_like(x), 0.3)
    images = torch.randn(3, 2)
    torch.testing.assert_close(denoiser(images, torch.tensor(1e-6)), images, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 2.5])
def test_a_guided_gaussian_has_the_geometric_standard_deviation(weight: float) -> None:
    """s₀^(1-w) s₁^w, from noise whose path is that of everything and of the class."""
    s0, s1, start = 1.3, 0.4, 2000.0
    both = [lambda x, sigma, s=s: x * s**2 / (s**2 + sigma**2) for s in (s0, s1)]
    x = start * torch.tensor([[1.0]], dtype=F64)
    found = adaptive(guided(both[1], both[0], weight), x, start, 1e-3, rtol=1e-7).sample
    assert found.item() == pytest.approx(s0 ** (1 - weight) * s1**weight, rel=1e-4)


def test_guidance_at_some_levels_and_rescaled() -> None:
    of_class, of_all = (lambda x, sigma: 2 * x), (lambda x, sigma: x)
    x = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    denoiser = guided(of_class, of_all, 3.0, interval=(0.5, 2.0))
    for level, factor in ((0.5, 2.0), (0.6, 4.0), (2.0, 4.0), (2.1, 2.0)):
        torch.testing.assert_close(denoiser(x, torch.tensor(level)), factor * x)
    torch.testing.assert_close(guided(of_class, of_all, 3.0, rescale=1.0)(x, torch.tensor(1.0)), 2 * x)
    torch.testing.assert_close(guided(of_class, of_all, 3.0, rescale=0.5)(x, torch.tensor(1.0)), 3 * x)
    for bad in ({"weight": math.nan}, {"weight": 1.0, "rescale": 2.0}, {"weight": 1.0, "interval": (2.0, 1.0)}):
        with pytest.raises(InputError):
            guided(of_class, of_all, **bad)

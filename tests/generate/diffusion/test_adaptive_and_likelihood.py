"""The adaptive sampler keeps its tolerance; likelihoods and bounds against densities that are known."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from exact import F64, flow, mixture, noisy
from headfirst.errors import DivergenceError, InputError
from headfirst.generate.diffusion import (
    GaussianMixture,
    adaptive,
    denoiser_of_noisy,
    dormand_prince,
    karras_sigmas,
    log_likelihood,
    optimal_variances,
    variational_bound,
)


@pytest.mark.parametrize("rtol", [1e-2, 1e-4, 1e-6, 1e-9])
def test_the_tolerance_is_kept_and_the_evaluations_counted(rtol: float) -> None:
    asked = []

    def counted(x, sigma):
        asked.append(float(sigma))
        return mixture()(x, sigma)

    x = noisy(12, 20.0)
    found = adaptive(counted, x, 20.0, 0.05, rtol=rtol)
    exact = flow(mixture(), x, 20.0, 0.05)
    scale = exact.square().mean(1).sqrt().clamp_min(0.5)
    wrong = ((found.sample - exact).square().mean(1).sqrt() / scale).max().item()
    assert len(asked) == found.num_evaluations
    assert wrong < 2 * rtol + 1e-10
    assert 0 < found.error <= rtol
    assert found.num_evaluations < 30 + 12 * rtol**-0.25


def test_the_solver_has_the_fifth_order() -> None:
    """Of y' = y cos t, whose answer is e^(sin t): the error falls as the fifth power of the evaluations."""
    norm = lambda error, y: float(error.abs().max())  # noqa: E731
    errors, costs = [], []
    for tolerance in (1e-4, 1e-6, 1e-8):
        found = dormand_prince(
            lambda y, t: y * math.cos(t),
            torch.ones(1, dtype=F64),
            0.0,
            6.0,
            tolerance=tolerance,
            norm=norm,
            most=10_000,
        )
        errors.append(abs(found.y.item() - math.exp(math.sin(6.0))))
        costs.append(found.num_evaluations)
    order = math.log(errors[0] / errors[2]) / math.log(costs[2] / costs[0])
    assert 4.3 < order < 8, (errors, costs)


def test_a_normal_of_its_own_width_needs_no_steps() -> None:
    s = 0.5
    x = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(0)) * 80
    found = adaptive(lambda x, sigma: x * s**2 / (s**2 + sigma**2), x, 80.0, 0.01, rtol=1e-8)
    factor = math.sqrt((s**2 + 0.01**2) / (s**2 + 80**2))
    torch.testing.assert_close(found.sample, factor * x, rtol=1e-10, atol=0.0)
    assert found.num_evaluations == 43  # of steps as long as are allowed


def test_a_tolerance_that_cannot_be_met_says_how_far_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    x = noisy(3, 20.0).float()
    monkeypatch.setattr(sys.modules["headfirst.generate.diffusion.samplers.adaptive"], "MOST", 300)
    with pytest.raises(DivergenceError, match=r"the tolerance 1e-11 was not met in \d+ evaluations: .*% of"):
        adaptive(mixture(), x, 20.0, 0.05, rtol=1e-11)
    with pytest.raises(InputError, match="0 < sigma_min < sigma_max"):
        adaptive(mixture(), x, 0.1, 0.2, rtol=0.1)
    with pytest.raises(InputError, match="rtol and sigma_data must be positive, got 0"):
        adaptive(mixture(), x, 2.0, 0.2, rtol=0.0)


@pytest.fixture(scope="module")
def centred() -> GaussianMixture:
    """Its mean is 0, so that far out it is a normal."""
    means = torch.tensor([[-1.0, 0.5], [1.0, -0.5]], dtype=F64)
    return GaussianMixture(means=means, stds=torch.tensor([0.4, 0.4], dtype=F64))


def test_likelihood_of_a_mixture(centred: GaussianMixture) -> None:
    x = centred.sample(12, generator=torch.Generator().manual_seed(0))
    x = x + 0.05 * torch.randn(x.shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    found = log_likelihood(centred, x, 0.05, 300.0, rtol=1e-7, sigma_data=0.8)
    torch.testing.assert_close(found.per_image, centred.log_density(x, 0.05), atol=2e-5, rtol=0.0)
    torch.testing.assert_close(found.noise, flow(centred, x, 0.05, 300.0), rtol=1e-4, atol=1e-4)
    assert found.mean == pytest.approx(centred.log_density(x, 0.05).mean().item(), abs=1e-5)


def test_likelihood_by_probes_is_right_on_average(centred: GaussianMixture) -> None:
    """In one dimension a probe is exact; in two, many are nearly."""
    line = GaussianMixture(means=torch.tensor([[-1.0], [1.0]], dtype=F64), stds=torch.tensor([0.4, 0.4], dtype=F64))
    x = torch.tensor([[0.3], [-1.2]], dtype=F64)
    found = log_likelihood(line, x, 0.05, 300.0, rtol=1e-6, probes=1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.per_image, line.log_density(x, 0.05), atol=1e-4, rtol=0.0)
    x = centred.sample(1, generator=torch.Generator().manual_seed(0)).expand(300, 2).contiguous()
    found = log_likelihood(centred, x, 0.05, 300.0, rtol=1e-3, probes=1, generator=torch.Generator().manual_seed(0))
    assert found.per_image.std() > 0.01
    assert found.mean == pytest.approx(centred.log_density(x[:1], 0.05).item(), abs=0.1)


@pytest.mark.parametrize("num_steps", [2, 5, 20])
def test_with_the_optimal_variance_the_bound_is_the_entropy(num_steps: int) -> None:
    s, dim, num = 0.7, 2, 30_000
    denoiser = lambda x, sigma: x * s**2 / (s**2 + sigma**2)  # noqa: E731
    images = s * torch.randn(num, dim, dtype=F64, generator=torch.Generator().manual_seed(0))
    sigmas = karras_sigmas(num_steps, 0.05, 30.0)
    variances = optimal_variances(denoiser, images, sigmas, generator=torch.Generator().manual_seed(1))
    found = variational_bound(
        denoiser, images, sigmas, variances, sigma_data=s, generator=torch.Generator().manual_seed(2)
    )
    entropy = dim / 2 * math.log(2 * math.pi * math.e * s**2)
    assert found.per_image.mean().item() == pytest.approx(entropy, abs=0.02)
    assert found.steps.shape == (num_steps - 1, num)
    others = [
        variational_bound(denoiser, images, sigmas, variances * factor, sigma_data=s).per_image.mean().item()
        for factor in (0.8, 1.25)
    ]
    assert min(others) > entropy + 0.01
    assert variances[-1].item() == pytest.approx(s**2 * 0.05**2 / (s**2 + 0.05**2), rel=0.02)


def test_the_bound_of_noisy_images_meets_the_flow(centred: GaussianMixture) -> None:
    """Of a perfect denoiser it lies above -log p(x; σ_min), by less the more levels there are."""
    x = centred.sample(20_000, generator=torch.Generator().manual_seed(0))
    x = x + 0.1 * torch.randn(x.shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    true = -centred.log_density(x, 0.1).mean().item()
    inner, gaps = denoiser_of_noisy(centred, 0.1), []
    for num_steps in (4, 16, 64):
        sigmas = karras_sigmas(num_steps, 0.05, 30.0)
        draws = torch.Generator().manual_seed(2)
        variances = optimal_variances(inner, x, sigmas, generator=draws)
        bound = variational_bound(inner, x, sigmas, variances, sigma_data=0.8, generator=draws)
        gaps.append(bound.per_image.mean().item() - true)
    assert gaps[0] > 1.5 * gaps[1] > 1.5 * gaps[2] > 0
    assert gaps[2] < 0.03


def test_a_bound_needs_levels_and_as_many_variances() -> None:
    images = torch.zeros(2, 2)
    with pytest.raises(InputError, match="leave the zero at the end out"):
        optimal_variances(mixture(), images, torch.tensor([1.0, 0.0]))
    with pytest.raises(InputError, match="variances must be 2 positive numbers, one a level, got 1"):
        variational_bound(mixture(), images, torch.tensor([1.0, 0.5]), [0.1])
    with pytest.raises(InputError, match="probes must be at least 1"):
        log_likelihood(mixture(), images, 0.1, 1.0, probes=0)

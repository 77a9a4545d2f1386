"""Preconditioning, weightings, levels and loss, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from headfirst.errors import InputError
from headfirst.generate.diffusion import (
    Augmentation,
    DiffusionNetwork,
    EDMWeighting,
    ImportanceLevels,
    LogNormalLevels,
    MinSNRWeighting,
    SimpleWeighting,
    VelocityWeighting,
    diffusion_loss,
    preconditioning,
)
from headfirst.nn import UNetShape

LEVELS = torch.logspace(-3, 2, 11, dtype=torch.float64)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(**given) -> DiffusionNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = DiffusionNetwork(size=8, channels=1, num_classes=2, shape=UNetShape(widths=(8, 8), head_dim=8), **given)
        torch.nn.init.normal_(made.inner.end.weight)
    return made.requires_grad_(False)


class Gaussian:
    """The exact denoiser of pixels that are N(m, s²)."""

    def __init__(self, m: float, s: float) -> None:
        self.mean, self.sigma_data = m, s

    def denoise(self, x: Tensor, sigma: Tensor, labels: None, augmentation: None = None) -> Tensor:
        s2, v = self.sigma_data**2, (sigma**2)[:, None, None, None]
        return (s2 * x + v * self.mean) / (s2 + v)


class TestPreconditioning:
    def test_at_no_noise_the_denoiser_is_the_identity(self):
        x = rows(3, 1, 8, 8).float()
        made = network(mean=-0.3, sigma_data=0.6)
        assert torch.allclose(made.denoise(x, torch.zeros(3), torch.tensor([0, 1, 2])), x, atol=1e-6)
        assert (made.denoise(x, torch.full((3,), 0.5), None) - x).abs().max() > 0.1

    def test_inputs_and_targets_have_unit_variance_about_the_mean(self):
        s, n = 0.6, 200_000
        x0, e = s * rows(n), rows(n, seed=1)
        for sigma in LEVELS:
            c_skip, c_out, c_in, c_noise = preconditioning(sigma, s)
            noisy = x0 + sigma * e
            target = (x0 - c_skip * noisy) / c_out
            assert (c_in * noisy).var().item() == pytest.approx(1, abs=0.02)
            assert target.var().item() == pytest.approx(1, abs=0.02)
            assert c_noise.item() == pytest.approx(math.log(sigma) / 4)

    def test_with_the_network_silent_it_is_the_best_linear_guess(self):
        made = network(mean=-0.3, sigma_data=0.6)
        torch.nn.init.zeros_(made.inner.end.weight)
        torch.nn.init.zeros_(made.inner.end.bias)
        x, sigma = rows(4, 1, 8, 8), torch.tensor([0.01, 0.5, 1.0, 50.0], dtype=torch.float64)
        assert torch.allclose(made.denoise(x, sigma, None), Gaussian(-0.3, 0.6).denoise(x, sigma, None), atol=1e-12)


class TestLoss:
    @pytest.mark.parametrize("weighting", [SimpleWeighting(), EDMWeighting(), MinSNRWeighting(), VelocityWeighting()])
    def test_of_the_exact_denoiser_it_is_the_weighted_posterior_variance(self, weighting):
        m, s, n = -0.4, 0.6, 3000
        images, noise = m + s * rows(n, 1, 8, 8), rows(n, 1, 8, 8, seed=1)
        for sigma in (0.05, 0.5, 5.0):
            level = torch.full((n,), sigma, dtype=torch.float64)
            found = diffusion_loss(Gaussian(m, s), images, None, level, noise, weighting=weighting)
            assert found.shape == (n,)
            best = weighting(level[:1], s).item() / (1 / s**2 + 1 / sigma**2)
            assert found.mean().item() == pytest.approx(best, rel=0.015)

    def test_the_weightings_are_each_others_after_conversion(self):
        """Errors of ε, v and F, by their definitions, are the weighted error of x0."""
        s, x0, e = 0.6, rows(11), rows(11, seed=1)
        guess = x0 + 0.1 * rows(11, seed=2)
        x, error = x0 + LEVELS * e, (guess - x0).square()
        noise_error = ((x - guess) / LEVELS - e).square()
        assert torch.allclose(SimpleWeighting()(LEVELS, s) * error, noise_error, rtol=1e-6)
        alpha, sine = 1 / (1 + LEVELS**2).sqrt(), LEVELS / (1 + LEVELS**2).sqrt()
        v = alpha * (x - guess) / LEVELS - sine * guess - (alpha * e - sine * x0)
        assert torch.allclose(VelocityWeighting()(LEVELS, s) * error, v.square(), rtol=1e-6)
        c_skip, c_out, _, _ = preconditioning(LEVELS, s)
        F_error = ((guess - c_skip * x) / c_out - (x0 - c_skip * x) / c_out).square()
        assert torch.allclose(EDMWeighting()(LEVELS, s) * error, F_error, rtol=1e-6)
        assert torch.allclose(EDMWeighting()(LEVELS, 1.0), VelocityWeighting()(LEVELS, 1.0))
        capped = MinSNRWeighting(gamma=5.0)(LEVELS, s)
        assert torch.equal(capped, torch.minimum(SimpleWeighting()(LEVELS, s), torch.tensor(5.0, dtype=torch.float64)))
        with pytest.raises(InputError, match="gamma must be positive, got 0"):
            MinSNRWeighting(gamma=0.0)


class TestLevels:
    def test_they_are_log_normal(self):
        u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
        found = LogNormalLevels(mean=-1.0, std=1.5).quantile(u).numpy()
        assert found == pytest.approx(stats.lognorm(1.5, scale=math.exp(-1)).ppf(u.numpy()), rel=1e-9)
        with pytest.raises(InputError, match="std positive"):
            LogNormalLevels(std=0.0)

    def test_importance_is_unbiased_and_less_scattered(self):
        base = LogNormalLevels()
        levels = ImportanceLevels(base)

        def loss(sigma: Tensor) -> Tensor:  # much of it at few levels
            return torch.exp(-((sigma.log() - 0.5) ** 2) / 0.1) + 0.01

        random = torch.Generator().manual_seed(0)

        def u(n: int) -> Tensor:
            return torch.rand(n, generator=random, dtype=torch.float64)

        truth = loss(base.quantile((torch.arange(100_000) + 0.5) / 100_000)).mean().item()
        assert torch.allclose(levels.draw(u(50)).weight, torch.ones(50, dtype=torch.float64))
        for _ in range(60):
            drawn = levels.draw(u(64))
            levels.learn(drawn, loss(drawn.sigma))
        drawn = levels.draw(u(100_000))
        found = drawn.weight * loss(drawn.sigma)
        error = found.std().item() / 100_000**0.5
        assert abs(found.mean().item() - truth) < 4 * error
        assert drawn.weight.mean().item() == pytest.approx(1, abs=4 * drawn.weight.std().item() / 100_000**0.5)
        plain = loss(base.quantile(u(100_000).clamp(1e-9, 1 - 1e-9)))
        assert found.std() < plain.std() / 2
        inside = [(drawn.bins == b).double().mean().item() for b in range(32)]
        assert inside == pytest.approx(levels.probabilities.tolist(), abs=0.01)

    def test_each_bin_remembers_its_last_ten(self):
        levels = ImportanceLevels(LogNormalLevels())
        middles = (torch.arange(32, dtype=torch.float64) + 0.5) / 32
        for round_ in range(14):
            drawn = levels.draw(middles) if round_ < 10 else drawn
            assert drawn.bins.tolist() == list(range(32))
            levels.learn(drawn, torch.full((32,), float(round_)))
        assert levels.losses[3].sort().values.tolist() == list(range(4, 14))


class TestAugmentation:
    def test_what_is_told_undoes_what_was_done(self):
        images = torch.rand(400, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        changed, told = Augmentation(probability=0.5, shift=0.2, mirror=True)(images, 7, np.arange(400))
        assert 0.4 < (told[:, 2] == 1).float().mean() < 0.6
        right, down = (told[:, :2] * 3).round().int().T
        assert set(right.tolist()) == set(range(-3, 4))
        for i in range(400):
            r, d = int(right[i]), int(down[i])
            source = images[i].flip(2) if told[i, 2] else images[i]
            inner = (slice(None), slice(max(d, 0), 16 + min(d, 0)), slice(max(r, 0), 16 + min(r, 0)))
            back = (slice(None), slice(max(-d, 0), 16 + min(-d, 0)), slice(max(-r, 0), 16 + min(-r, 0)))
            assert torch.equal(changed[i][inner], source[back]), i
            if d > 0:
                assert torch.equal(changed[i][:, 0], changed[i][:, d])
        still = ~told.any(dim=1)
        assert 0.2 < still.float().mean() < 0.3
        assert torch.equal(changed[still], images[still])

    def test_it_depends_on_the_key_alone(self):
        images = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        augmentation = Augmentation(probability=1.0)
        whole, told = augmentation(images, 1, 2, np.arange(9))
        part, part_told = augmentation(images[4:6], 1, 2, np.array([4, 5]))
        assert torch.equal(whole[4:6], part)
        assert torch.equal(told[4:6], part_told)
        assert not told[:, 2].any()
        with pytest.raises(InputError, match=r"probability must lie in \(0, 1\]"):
            Augmentation(probability=0.0)

"""Editing against data whose answer is known: normal data, whose flow, conditionals and correlations have a formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from exact import F64, mixture, noisy
from headfirst.errors import InputError
from headfirst.generate import linear_path
from headfirst.generate.diffusion import (
    GaussianMixture,
    adaptive,
    ddpm,
    from_image,
    heun,
    inpainted,
    interpolate,
    invert,
    karras_sigmas,
    level_of_strength,
    streams,
    to_zero,
)

MEAN = torch.tensor([0.3, -0.2, 0.5], dtype=F64)
COVARIANCE = torch.tensor([[0.5, 0.35, -0.1], [0.35, 0.4, 0.05], [-0.1, 0.05, 0.3]], dtype=F64)
MASK = torch.tensor([True, False, False])


def normal(x: Tensor, sigma: Tensor) -> Tensor:
    """E[x₀ | x] of N(MEAN, COVARIANCE)."""
    gain = torch.linalg.solve(COVARIANCE + sigma**2 * torch.eye(3, dtype=F64), COVARIANCE)
    return MEAN + (x - MEAN) @ gain


def conditional(known: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (N, 2) and covariance of the last two numbers given the first."""
    gain = COVARIANCE[1:, 0] / COVARIANCE[0, 0]
    return MEAN[1:] + (known[:, :1] - MEAN[:1]) * gain, COVARIANCE[1:, 1:] - torch.outer(gain, COVARIANCE[0, 1:])


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


class TestFromImage:
    @pytest.mark.parametrize("sigma", [0.2, 1.0, 5.0])
    def test_of_normal_data_it_keeps_the_distribution_and_correlates_as_computed(self, sigma: float):
        s, n = 0.5, 6_000
        images = 0.3 + s * draws(n, 1)
        data = GaussianMixture(means=torch.tensor([[0.3]], dtype=F64), stds=torch.tensor([s], dtype=F64))
        levels = to_zero(karras_sigmas(40, 1e-3, sigma))
        made = from_image(data, images, levels, sampler=heun, generator=torch.Generator().manual_seed(1))
        assert made.mean().item() == pytest.approx(0.3, abs=0.03)
        assert made.std().item() == pytest.approx(s, abs=0.02)
        correlation = torch.corrcoef(torch.cat([images, made], dim=1).T)[0, 1].item()
        assert correlation == pytest.approx(s / math.hypot(s, sigma), abs=0.04)

    def test_an_image_with_a_stream_of_its_own_is_the_same_in_any_company(self):
        images, levels = mixture().sample(5, generator=torch.Generator().manual_seed(0)), to_zero(karras_sigmas(6))
        many = from_image(mixture(), images, levels, sampler=ddpm, generator=streams(3, range(5)))
        few = from_image(mixture(), images[3:4], levels, sampler=ddpm, generator=streams(3, [3]))
        torch.testing.assert_close(many[3:4], few, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(many[3:4], from_image(mixture(), images[3:4], levels, generator=streams(4, [3])))

    def test_a_strength_is_a_share_of_the_steps(self):
        levels = karras_sigmas(9, 0.01, 10.0, 3.0)
        for k in range(8):
            assert level_of_strength(1 - k / 8, 0.01, 10.0, rho=3.0) == pytest.approx(levels[k].item())
        for wrong in (0.0, 1.1, -1.0, math.nan):
            with pytest.raises(InputError, match=r"strength must lie in \(0, 1\]"):
                level_of_strength(wrong, 0.01, 10.0)


class TestInversion:
    def test_there_and_back_is_the_image(self):
        images = mixture().sample(12, generator=torch.Generator().manual_seed(0))
        noise = invert(mixture(), images, 0.01, 20.0, rtol=1e-6)
        back = adaptive(mixture(), noise.sample, 20.0, 0.01, rtol=1e-6).sample
        assert (back - images).abs().max().item() < 1e-4
        assert (noise.sample - images).abs().max().item() > 5

    def test_of_normal_data_the_noise_is_known(self):
        s, mean = 0.7, 0.2
        data = GaussianMixture(means=torch.full((1, 2), mean, dtype=F64), stds=torch.tensor([s], dtype=F64))
        images = mean + s * draws(6, 2)
        expected = mean + math.hypot(s, 30.0) / math.hypot(s, 0.02) * (images - mean)
        found = invert(data, images, 0.02, 30.0, rtol=1e-7).sample
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)

    def test_refuses(self):
        with pytest.raises(InputError, match="0 < sigma_min < sigma_max"):
            invert(mixture(), noisy(2, 1.0), 2.0, 1.0)


class TestInterpolation:
    LEVELS = to_zero(karras_sigmas(30, 0.01, 40.0))

    def test_begins_and_ends_with_the_images_of_the_two_noises(self):
        a, b = 40 * draws(2, 2)
        made = interpolate(mixture(), a, b, 5, self.LEVELS, sampler=heun)
        ends = heun(mixture(), torch.stack([a, b]), self.LEVELS)
        torch.testing.assert_close(made[[0, -1]], ends, rtol=1e-6, atol=1e-6)

    def test_half_way_a_sphere_keeps_the_spread_of_images_and_a_line_does_not(self):
        data = GaussianMixture(means=torch.zeros(1, 4096, dtype=F64), stds=torch.tensor([0.5], dtype=F64))
        a, b = 40 * draws(2, 64, 64)

        def flat(x: Tensor, sigma: Tensor) -> Tensor:
            return data(x.flatten(1), sigma).view_as(x)

        sphere = interpolate(flat, a, b, 3, self.LEVELS, sampler=heun)[1]
        line = interpolate(flat, a, b, 3, self.LEVELS, sampler=heun, path=linear_path)[1]
        assert sphere.std().item() == pytest.approx(0.5, abs=0.02)
        assert line.std().item() == pytest.approx(0.5 * math.sqrt(0.5), abs=0.02)


class TestInpainting:
    KNOWN = torch.tensor([[1.2, 9.0, 9.0], [-0.7, 9.0, 9.0], [0.3, 9.0, 9.0]], dtype=F64)

    def test_of_normal_data_every_guess_is_that_of_the_conditional(self):
        """Known pixels, and of the others E[x₀ | x, known], at every level and wherever x is."""
        denoiser = inpainted(normal, self.KNOWN, MASK)
        mean, covariance = conditional(self.KNOWN)
        for level in (0.01, 0.3, 2.0, 40.0):
            sigma = torch.tensor(level, dtype=F64)
            x = MEAN + 3 * level * draws(3, 3)
            found = denoiser(x, sigma)
            gain = torch.linalg.solve(covariance + level**2 * torch.eye(2, dtype=F64), covariance)
            assert torch.equal(found[:, 0], self.KNOWN[:, 0])
            torch.testing.assert_close(found[:, 1:], mean + (x[:, 1:] - mean) @ gain, rtol=1e-8, atol=1e-8)

    def test_what_a_sampler_makes_is_distributed_as_the_conditional(self):
        n = 2000
        known = self.KNOWN[:1].expand(n, 3)
        x = 40 * draws(n, 3, seed=4)
        made = heun(inpainted(normal, known, MASK), x, to_zero(karras_sigmas(40, 0.005, 40.0)))
        mean, covariance = conditional(known[:1])
        torch.testing.assert_close(made[:, 1:].mean(0), mean[0], rtol=0, atol=0.04)
        torch.testing.assert_close(made[:, 1:].T.cov(), covariance, rtol=0, atol=0.03)
        unasked = heun(normal, x, to_zero(karras_sigmas(40, 0.005, 40.0)))
        assert abs(unasked[:, 1].mean() - mean[0, 0]) > 0.3

    def test_an_image_depends_on_no_other(self):
        sigma, x = torch.tensor(0.7, dtype=F64), MEAN + draws(3, 3) * torch.tensor([[1.0], [30.0], [0.1]], dtype=F64)
        known, two = draws(3, 3, seed=2), torch.tensor([True, True, False])
        found = inpainted(normal, known, two, std=0.4, iterations=1)(x, sigma)
        for i in range(3):
            alone = inpainted(normal, known[i : i + 1], two, std=0.4, iterations=1)(x[i : i + 1], sigma)
            torch.testing.assert_close(found[i : i + 1], alone)

    def test_noise_on_known_pixels_is_weighed(self):
        sigma, std = torch.tensor(60.0, dtype=F64), 0.4
        found = inpainted(normal, self.KNOWN, MASK, std=std)(MEAN + draws(3, 3), sigma)
        share = COVARIANCE[:, 0] / (COVARIANCE[0, 0] + std**2)
        torch.testing.assert_close(found, MEAN + (self.KNOWN[:, :1] - MEAN[0]) * share, rtol=0, atol=2e-3)

    def test_several_known_pixels_take_as_many_iterations(self):
        mask, sigma = torch.tensor([True, True, False]), torch.tensor(1.0, dtype=F64)
        known, x = draws(3, 3), draws(3, 3, seed=2)
        exact, few = (inpainted(normal, known, mask, iterations=i)(x, sigma)[:, 2] for i in (2, 1))
        gain = torch.linalg.solve(COVARIANCE[:2, :2], COVARIANCE[:2, 2])
        mean, variance = MEAN[2] + (known[:, :2] - MEAN[:2]) @ gain, COVARIANCE[2, 2] - COVARIANCE[:2, 2] @ gain
        torch.testing.assert_close(exact, mean + variance / (variance + 1) * (x[:, 2] - mean), rtol=1e-8, atol=1e-8)
        assert (few - exact).abs().max() > 1e-3

    def test_of_a_mixture_it_is_exact_where_there_is_little_noise_only(self):
        """Two modes that the known number tells apart: the conditional is one, and the linear guess is between them."""
        means = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=F64)
        data = GaussianMixture(means=means, stds=torch.tensor([0.2, 0.2], dtype=F64))
        known, mask = torch.tensor([[0.6, 0.0]], dtype=F64), torch.tensor([True, False])
        denoiser = inpainted(data, known, mask)
        guesses = [
            denoiser(torch.tensor([[0.6, 1.0]], dtype=F64), torch.tensor(s, dtype=F64))[0, 1] for s in (0.1, 9.0)
        ]
        exact = [1.0, 1.0]  # given 0.6 it is the second mode for certain
        assert guesses[0].item() == pytest.approx(exact[0], abs=1e-3)
        assert abs(guesses[1].item() - exact[1]) > 0.2
        many = inpainted(data, known.expand(400, 2), mask)
        made = heun(many, 40 * draws(400, 2), to_zero(karras_sigmas(40, 0.005, 40.0)))
        assert 0.95 < (made[:, 1] > 0).double().mean().item() <= 1  # half of them without what is known

    def test_refuses(self):
        with pytest.raises(InputError, match="mask must be of booleans, true where a pixel is known, at least one"):
            inpainted(normal, self.KNOWN, torch.zeros(3, dtype=torch.bool))
        with pytest.raises(InputError, match=r"got torch\.float64"):
            inpainted(normal, self.KNOWN, self.KNOWN)
        with pytest.raises(InputError, match=r"mask must broadcast to the images, \(3, 3\), got \(4, 3, 3\)"):
            inpainted(normal, self.KNOWN, MASK.expand(4, 3, 3))
        with pytest.raises(InputError, match="std must be at least 0 and iterations at least 1, got -1 and 8"):
            inpainted(normal, self.KNOWN, MASK, std=-1)
        with pytest.raises(InputError, match=r"the known pixels are of images \(3, 3\), and x is \(2, 3\)"):
            inpainted(normal, self.KNOWN, MASK)(draws(2, 3), torch.tensor(1.0))

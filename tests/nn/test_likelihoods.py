"""Decoders' likelihoods: they sum or integrate to one, agree with scipy, and stay finite at the ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import Tensor

from headfirst.errors import InputError
from headfirst.generate import (
    bernoulli_log_likelihood,
    discretised_logistic_log_likelihood,
    gaussian_log_likelihood,
)

LEVELS = torch.arange(256, dtype=torch.float64)[:, None] / 255


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestBernoulli:
    @given(st.floats(-30, 30))
    def test_two_probabilities_sum_to_one(self, logit: float):
        logits = torch.full((2, 1), logit, dtype=torch.float64)
        p = bernoulli_log_likelihood(logits, torch.tensor([[0.0], [1.0]]).double()).exp()
        assert p.sum().item() == pytest.approx(1, abs=1e-14)
        assert p[1].item() == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-13)

    def test_is_scipys_summed_over_channels_and_pixels(self):
        logits, x = rows(3, 2, 4, 4), (rows(3, 2, 4, 4, seed=1) > 0).double()
        expected = stats.bernoulli.logpmf(x.numpy(), 1 / (1 + np.exp(-logits.numpy()))).sum(axis=(1, 2, 3))
        assert bernoulli_log_likelihood(logits, x).numpy() == pytest.approx(expected, rel=1e-12)

    def test_a_grey_value_is_the_mixture_of_the_two(self):
        logits = rows(1, 5)
        black, white = (bernoulli_log_likelihood(logits, torch.full_like(logits, x)).item() for x in (0.0, 1.0))
        grey = bernoulli_log_likelihood(logits, torch.full_like(logits, 0.3)).item()
        assert grey == pytest.approx(0.7 * black + 0.3 * white, rel=1e-12)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    def test_extremes_are_finite_and_keep_their_digits(self, dtype: torch.dtype):
        logits = torch.tensor([[1e4], [-1e4], [1e4], [-1e4]], dtype=dtype, requires_grad=True)
        found = bernoulli_log_likelihood(logits, torch.tensor([[1.0], [0.0], [0.0], [1.0]]))
        assert found.tolist() == [0, 0, -1e4, -1e4]
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        assert gradient[:, 0].tolist() == [0, 0, -1, 1]
        for logit, target in ((-20.0, 0.0), (20.0, 1.0)):  # where log S(l) = l - softplus(l) would give 0
            found = bernoulli_log_likelihood(torch.tensor([[logit]]), torch.tensor([[target]]))
            assert found.item() == pytest.approx(-math.log1p(math.exp(-20)), rel=1e-5)

    def test_refuses(self):
        with pytest.raises(InputError, match=r"target must lie in \[0, 1\], got values from -1 to 255; divide grey"):
            bernoulli_log_likelihood(torch.zeros(1, 2), torch.tensor([[-1.0, 255.0]]))
        with pytest.raises(InputError, match=r"logits and target must both be \(N, …\).*\(2, 3\) and \(2, 1\)"):
            bernoulli_log_likelihood(torch.zeros(2, 3), torch.zeros(2, 1))
        with pytest.raises(InputError, match=r"one row an image, got \(2,\) and \(2,\)"):
            bernoulli_log_likelihood(torch.zeros(2), torch.zeros(2))
        with pytest.raises(InputError, match="target must lie"):
            bernoulli_log_likelihood(torch.zeros(1, 1), torch.tensor([[math.nan]]))


class TestGaussian:
    @pytest.mark.parametrize(("mean", "log_variance"), [(0.0, 0.0), (1.5, -2.0), (-0.5, 1.0)])
    def test_integrates_to_one(self, mean: float, log_variance: float):
        def density(x: float) -> float:
            parts = (torch.tensor([[value]], dtype=torch.float64) for value in (mean, log_variance, x))
            return gaussian_log_likelihood(*parts).exp().item()

        width = 12 * math.exp(log_variance / 2)
        assert integrate.quad(density, mean - width, mean + width)[0] == pytest.approx(1, abs=1e-9)

    def test_is_scipys_with_its_constant(self):
        mean, s, x = rows(3, 2, 4, 4), rows(3, 2, 4, 4, seed=1), rows(3, 2, 4, 4, seed=2)
        expected = stats.norm.logpdf(x.numpy(), mean.numpy(), np.exp(s.numpy() / 2)).sum(axis=(1, 2, 3))
        assert gaussian_log_likelihood(mean, s, x).numpy() == pytest.approx(expected, rel=1e-12)

    def test_one_variance_counts_once_a_pixel(self):
        mean, x = rows(3, 2, 4), rows(3, 2, 4, seed=1)
        for shape in ((), (2, 1), (1, 2, 4)):
            s = rows(*shape, seed=2)
            expected = gaussian_log_likelihood(mean, s.expand_as(mean).clone(), x)
            assert torch.allclose(gaussian_log_likelihood(mean, s, x), expected, atol=1e-13)

    def test_extremes_are_finite(self):
        for log_variance in (-46.0, 46.0):
            mean = torch.full((1, 2), 1e4, requires_grad=True)
            s = torch.full((1, 2), log_variance, requires_grad=True)
            found = gaussian_log_likelihood(mean, s, torch.zeros(1, 2))
            expected = -(math.log(2 * math.pi) + log_variance + 1e8 * math.exp(-log_variance))
            assert found.item() == pytest.approx(expected, rel=1e-5)
            assert all(g.isfinite().all() for g in torch.autograd.grad(found.sum(), (mean, s)))

    def test_refuses(self):
        with pytest.raises(InputError, match=r"log_variance must broadcast to the mean's \(2, 3\), got \(4,\)"):
            gaussian_log_likelihood(torch.zeros(2, 3), torch.zeros(4), torch.zeros(2, 3))
        with pytest.raises(InputError, match="log_variance must broadcast"):  # and not the images to it
            gaussian_log_likelihood(torch.zeros(1, 3), torch.zeros(5, 3), torch.zeros(1, 3))
        with pytest.raises(InputError, match="mean and target must both be"):
            gaussian_log_likelihood(torch.zeros(1, 3), torch.zeros(()), torch.zeros(2, 3))


class TestDiscretisedLogistic:
    @given(st.floats(-3, 4), st.floats(-12, 8))
    def test_all_grey_values_sum_to_one(self, mean: float, log_scale: float):
        log_p = discretised_logistic_log_likelihood(torch.full_like(LEVELS, mean), torch.tensor(log_scale), LEVELS)
        assert (log_p <= 0).all()
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-11)

    @pytest.mark.parametrize(("mean", "log_scale"), [(0.4, -3.0), (0.0, -1.0), (1.1, -4.0)])
    def test_is_the_difference_of_scipys_distribution_function(self, mean: float, log_scale: float):
        q = stats.logistic(mean, math.exp(log_scale))
        edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 255, [np.inf]])
        expected = np.diff(q.cdf(edges))
        found = discretised_logistic_log_likelihood(torch.full_like(LEVELS, mean), torch.tensor(log_scale), LEVELS)
        assert found.exp().numpy() == pytest.approx(expected, rel=1e-9, abs=1e-15)

    def test_is_summed_over_channels_and_pixels(self):
        x = (rows(2, 3, 4).sigmoid() * 255).round() / 255
        mean, s = rows(2, 3, 4, seed=1), rows(3, 1, seed=2)
        total = sum(
            discretised_logistic_log_likelihood(mean[:, c, p, None], s[c], x[:, c, p, None])
            for c in range(3)
            for p in range(4)
        )
        assert torch.allclose(discretised_logistic_log_likelihood(mean, s, x), torch.as_tensor(total), atol=1e-11)

    def test_a_narrow_scale_far_away_keeps_its_logarithm(self):
        far = discretised_logistic_log_likelihood(
            torch.full((3, 1), 0.5), torch.tensor(-9.0), LEVELS[[0, 10, 255]].float()
        )
        per_scale = math.exp(9)
        expected = [(1 / 510 - 0.5) * per_scale, (10.5 / 255 - 0.5) * per_scale, (1 / 510 - 0.5) * per_scale]
        assert far.tolist() == pytest.approx(
            expected, rel=1e-5
        )  # log S(a) is a, far out; the bin is wide: nothing else

    def test_extremes_are_finite(self):
        for log_scale, far in ((-46.0, 1e4), (46.0, 1e4), (-80.0, 1e3), (80.0, 1e3)):
            mean = torch.tensor([[-far, 0.0, 0.5, far]]).expand(3, 4).clone().requires_grad_()
            s = torch.full((3, 4), log_scale, requires_grad=True)
            target = torch.tensor([[0.0], [128 / 255], [1.0]]).expand(3, 4)
            found = discretised_logistic_log_likelihood(mean, s, target)
            assert found.isfinite().all()
            gradients = torch.autograd.grad(found.sum(), (mean, s))
            assert all(g.isfinite().all() for g in gradients)

    def test_half_precision_images_are_the_same_grey_values(self):
        mean = torch.full((256, 1), 0.3)
        full = discretised_logistic_log_likelihood(mean, torch.tensor(-3.0), LEVELS.float())
        half = discretised_logistic_log_likelihood(mean, torch.tensor(-3.0), LEVELS.half())
        assert torch.equal(full, half)

    def test_refuses_what_is_no_grey_value(self):
        zero = torch.zeros(1, 1)
        for value in (0.5 / 255, -1 / 255, 256 / 255, 128.0, math.nan):
            with pytest.raises(InputError, match=r"grey values k/255 in \[0, 1\].*round resized images"):
                discretised_logistic_log_likelihood(zero, zero, torch.full((1, 1), value))
        with pytest.raises(InputError, match=r"log_scale must broadcast to the mean's \(1, 1\), got \(2, 1\)"):
            discretised_logistic_log_likelihood(zero, torch.zeros(2, 1), zero)

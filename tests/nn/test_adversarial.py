"""The losses of the game against two Gaussians whose best discriminator is known, and penalties of known gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import Tensor

from headfirst.errors import InputError
from headfirst.generate import (
    discriminator_loss,
    gradient_ratio,
    hinge_discriminator_loss,
    hinge_generator_loss,
    least_squares_discriminator_loss,
    least_squares_generator_loss,
    non_saturating_loss,
    r1_penalty,
    r2_penalty,
    read_discriminator,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
    saturating_loss,
)

ALONE = (
    saturating_loss,
    non_saturating_loss,
    hinge_generator_loss,
    least_squares_generator_loss,
)
TOGETHER = (
    discriminator_loss,
    hinge_discriminator_loss,
    least_squares_discriminator_loss,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestTwoGaussians:
    """Real images from p = N(0, 1), generated ones from q = N(θ, σ²) as θ + σ ε; the best logit is log p/q."""

    theta, sigma = 0.8, 1.4
    p = stats.norm()
    q = stats.norm(theta, sigma)
    quantiles = (np.arange(200_000) + 0.5) / 200_000  # a batch mean over these is an integral

    @classmethod
    def logit(cls, x: Tensor) -> Tensor:
        return math.log(cls.sigma) - x.square() / 2 + ((x - cls.theta) / cls.sigma).square() / 2

    @classmethod
    def integral(cls, integrand: Callable[[float], float]) -> float:
        return integrate.quad(integrand, -15, 15, limit=400, points=[-3, 0, 1, 4])[0]

    @classmethod
    def jensen_shannon(cls) -> float:
        p, q = cls.p, cls.q

        def integrand(x: float) -> float:
            log_mixture = np.logaddexp(p.logpdf(x), q.logpdf(x)) - math.log(2)
            return p.pdf(x) * (p.logpdf(x) - log_mixture) / 2 + q.pdf(x) * (q.logpdf(x) - log_mixture) / 2

        return cls.integral(integrand)

    def batches(self) -> tuple[Tensor, Tensor]:
        return tuple(torch.from_numpy(d.ppf(self.quantiles)) for d in (self.p, self.q))  # type: ignore[return-value]

    def test_the_best_discriminators_loss_is_the_jensen_shannon_divergence(self):
        real, fake = self.batches()
        found = discriminator_loss(self.logit(real), self.logit(fake)).item()
        assert 0.05 < self.jensen_shannon() < math.log(2)
        assert found == pytest.approx(math.log(4) - 2 * self.jensen_shannon(), abs=2e-5)

    @pytest.mark.parametrize("bump", [torch.ones_like, torch.sin, lambda x: (-(x.square())).exp()])
    def test_no_other_logit_does_better(self, bump: Callable[[Tensor], Tensor]):
        real, fake = self.batches()
        step = torch.zeros((), dtype=torch.float64, requires_grad=True)
        loss = discriminator_loss(self.logit(real) + step * bump(real), self.logit(fake) + step * bump(fake))
        (slope,) = torch.autograd.grad(loss, step, create_graph=True)
        (curvature,) = torch.autograd.grad(slope, step)
        assert abs(slope.item()) < 1e-4
        assert curvature > 0.01

    @pytest.mark.parametrize("parameter", ["theta", "sigma"])
    def test_both_generator_gradients_are_those_of_known_divergences(self, parameter: str):
        """Against the best discriminator, held: ∇ 2 JSD, and ∇ [KL(q‖p) - 2 JSD] (Arjovsky & Bottou, ICLR 2017)."""
        theta, sigma = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (self.theta, self.sigma))
        noise = torch.from_numpy(stats.norm.ppf(self.quantiles))
        logits = self.logit(theta + sigma * noise)
        moved = {"theta": theta, "sigma": sigma}[parameter]
        (saturating,) = torch.autograd.grad(saturating_loss(logits), moved, retain_graph=True)
        (non_saturating,) = torch.autograd.grad(non_saturating_loss(logits), moved)
        if parameter == "theta":
            kl_slope = self.theta  # KL(q‖p) = ½ (θ² + σ² - 1 - log σ²)

            def score(x: float) -> float:
                return (x - self.theta) / self.sigma**2
        else:
            kl_slope = self.sigma - 1 / self.sigma

            def score(x: float) -> float:
                return (x - self.theta) ** 2 / self.sigma**3 - 1 / self.sigma

        def integrand(x: float) -> float:  # ∇ 2 JSD = ∫ ∇q log(q / mixture)
            log_mixture = np.logaddexp(self.p.logpdf(x), self.q.logpdf(x)) - math.log(2)
            return self.q.pdf(x) * score(x) * (self.q.logpdf(x) - log_mixture)

        jsd_slope = self.integral(integrand)
        assert abs(jsd_slope) > 0.05
        assert saturating.item() == pytest.approx(jsd_slope, abs=2e-4)
        assert non_saturating.item() == pytest.approx(kl_slope - jsd_slope, abs=2e-4)


class TestLosses:
    @given(st.lists(st.floats(-50, 50), min_size=1, max_size=6), st.lists(st.floats(-50, 50), min_size=1, max_size=6))
    def test_are_the_formulas_written_out(self, real: list[float], fake: list[float]):
        def probability(logit: float) -> float:
            return 1 / (1 + math.exp(-logit))

        x, y = (torch.tensor(values, dtype=torch.float64) for values in (real, fake))
        near = {"rel": 1e-9, "abs": 1e-9}
        real_term = np.mean([-math.log(probability(v)) for v in real])
        assert non_saturating_loss(x).item() == pytest.approx(real_term, **near)
        fake_term = np.mean([-math.log(probability(-v)) for v in fake])
        assert saturating_loss(y).item() == pytest.approx(-fake_term, **near)
        assert discriminator_loss(x, y).item() == pytest.approx(real_term + fake_term, **near)
        hinge = np.mean([max(0, 1 - v) for v in real]) + np.mean([max(0, 1 + v) for v in fake])
        assert hinge_discriminator_loss(x, y).item() == pytest.approx(hinge, **near)
        assert hinge_generator_loss(y).item() == pytest.approx(-np.mean(fake), **near)
        squares = np.mean([(v - 1) ** 2 for v in real]) / 2 + np.mean([v**2 for v in fake]) / 2
        assert least_squares_discriminator_loss(x, y).item() == pytest.approx(squares, **near)
        assert least_squares_generator_loss(y).item() == pytest.approx(
            np.mean([(v - 1) ** 2 for v in fake]) / 2, **near
        )
        n = min(len(real), len(fake))
        pairs = list(zip(real[:n], fake[:n], strict=True))
        relativistic = np.mean([math.log1p(math.exp(f - r)) for r, f in pairs])
        assert relativistic_discriminator_loss(x[:n], y[:n]).item() == pytest.approx(relativistic, **near)
        relativistic = np.mean([math.log1p(math.exp(r - f)) for r, f in pairs])
        assert relativistic_generator_loss(x[:n], y[:n]).item() == pytest.approx(relativistic, **near)

    def test_relativistic_losses_see_differences_only_and_exchange_roles(self):
        real, fake = rows(8), rows(8, seed=1)
        for loss in (relativistic_discriminator_loss, relativistic_generator_loss):
            assert loss(real + 3, fake + 3).item() == pytest.approx(loss(real, fake).item(), abs=1e-12)
        assert torch.equal(relativistic_generator_loss(real, fake), relativistic_discriminator_loss(fake, real))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    @pytest.mark.parametrize("signs", [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)])
    def test_extremes_are_finite(self, dtype: torch.dtype, signs: tuple[float, float]):
        real, fake = (torch.full((3, 1), 1e4 * sign, dtype=dtype, requires_grad=True) for sign in signs)
        for loss in [loss(fake) for loss in ALONE] + [loss(real, fake) for loss in TOGETHER]:
            assert loss.isfinite()
            assert loss.dtype == torch.float32
            for gradient in torch.autograd.grad(loss, (real, fake), allow_unused=True):
                assert gradient is None or gradient.isfinite().all()

    def test_refuse(self):
        none = torch.zeros(0, 1)
        for loss in ALONE:
            with pytest.raises(InputError, match=r"fake_logits must hold at least one logit, got shape \(0, 1\)"):
                loss(none)
        for loss in TOGETHER:
            with pytest.raises(InputError, match="real_logits must hold at least one logit"):
                loss(none, none)
        for loss in (relativistic_discriminator_loss, relativistic_generator_loss):
            with pytest.raises(InputError, match=r"both must have one shape, got \(4,\) and \(4, 1\)"):
                loss(torch.zeros(4), torch.zeros(4, 1))


class TestPenalties:
    @pytest.mark.parametrize("penalty", [r1_penalty, r2_penalty])
    def test_of_a_linear_discriminator_is_half_gamma_its_squared_norm(self, penalty: Callable[..., Tensor]):
        w = rows(2, 3, 3).requires_grad_()
        images = rows(5, 2, 3, 3, seed=1).requires_grad_()
        found = penalty((images * w).sum(dim=(1, 2, 3)) + 4, images, gamma=3.0)
        assert found.item() == pytest.approx(1.5 * w.square().sum().item(), rel=1e-14)
        (gradient,) = torch.autograd.grad(found, w)  # it trains the discriminator
        assert torch.allclose(gradient, 3 * w.detach(), atol=1e-13)

    def test_is_the_mean_over_images_of_their_own_gradients(self):
        A = rows(4, 4)
        images = rows(6, 4, seed=1).requires_grad_()
        logits = (images @ A * images).sum(dim=1, keepdim=True)  # xᵀAx, gradient (A + Aᵀ)x
        expected = np.mean([np.sum(((A + A.T).numpy() @ x) ** 2) for x in images.detach().numpy()])
        assert r1_penalty(logits, images, gamma=0.7).item() == pytest.approx(0.35 * expected, rel=1e-12)

    def test_counts_each_image_alone_whatever_the_batch(self):
        layer = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
        images = rows(6, 4)

        def penalty(some: Tensor) -> float:
            some = some.clone().requires_grad_()
            return r2_penalty(layer(some), some, gamma=1.0).item()

        assert penalty(images) == pytest.approx(np.mean([penalty(images[i : i + 1]) for i in range(6)]), rel=1e-12)

    def test_refuses(self):
        images = torch.zeros(3, 2)
        with pytest.raises(InputError, match=r"real_logits do not depend.*call real_images.requires_grad_\(\)"):
            r1_penalty(torch.zeros(3, requires_grad=True), images, gamma=1.0)
        with pytest.raises(InputError, match="fake_logits do not depend on fake_images"):
            r2_penalty(torch.zeros(3), images.clone().requires_grad_(), gamma=1.0)
        with pytest.raises(InputError, match="fake_logits do not depend on fake_images"):
            r2_penalty(torch.zeros(3, requires_grad=True), images.clone().requires_grad_(), gamma=1.0)
        with pytest.raises(InputError, match=r"fake_logits one an image, got \(3, 2\) and \(3, 4\)"):
            r2_penalty(torch.zeros(3, 4), images, gamma=1.0)
        with pytest.raises(InputError, match="gamma must be at least 0 and finite, got -1"):
            r1_penalty(torch.zeros(3), images, gamma=-1.0)


class TestReading:
    def test_ratio_is_that_of_the_two_gradients(self):
        logits = (3 * rows(7, 1)).requires_grad_()
        (saturating,) = torch.autograd.grad(saturating_loss(logits), logits)
        (non_saturating,) = torch.autograd.grad(non_saturating_loss(logits), logits)
        assert torch.allclose(gradient_ratio(logits), saturating / non_saturating, rtol=1e-12, atol=0)
        ends = gradient_ratio(torch.tensor([-1e4, 1e4]))
        assert ends.isfinite().all()
        assert (ends > 0).all()

    def test_means_and_median_written_out(self):
        real, fake = rows(9, 1).requires_grad_(), rows(5, 1, seed=1) - 2
        reading = read_discriminator(real, fake)
        assert reading.real == pytest.approx(np.mean(1 / (1 + np.exp(-real.detach().numpy()))), rel=1e-12)
        assert reading.fake == pytest.approx(np.mean(1 / (1 + np.exp(-fake.numpy()))), rel=1e-12)
        assert reading.gradient_ratio == pytest.approx(np.median(np.exp(fake.numpy())), rel=1e-12)

    def test_refuses(self):
        with pytest.raises(InputError, match=r"at least one logit each, got shapes \(3,\) and \(0,\)"):
            read_discriminator(torch.zeros(3), torch.zeros(0))

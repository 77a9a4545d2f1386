"""KL, free bits, the importance bound and the logistic latent against quadrature, closed forms and a linear model."""

from __future__ import annotations

import itertools
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
    free_bits,
    gaussian_kl,
    gaussian_kl_per_dimension,
    gaussian_log_likelihood,
    importance_weighted_bound,
    logistic_kl,
    logistic_log_density,
    logistic_sample,
    reparameterised,
)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quadrature(integrand: Callable[[float], float], centre: float, spread: float) -> float:
    """∫ over centre ± 40 spreads, cut where the integrand may be narrow."""
    cuts = [centre + k * spread for k in (-40, -10, -3, 0, 3, 10, 40)]
    pieces = (integrate.quad(integrand, a, b, epsabs=1e-13, epsrel=1e-12)[0] for a, b in itertools.pairwise(cuts))
    return math.fsum(pieces)


class TestGaussianKL:
    @pytest.mark.parametrize(("mean", "log_variance"), [(0.0, 0.0), (1.3, -0.7), (-2.0, 1.5), (0.2, -6.0), (5.0, 3.0)])
    def test_is_the_integral(self, mean: float, log_variance: float):
        q, p = stats.norm(mean, math.exp(log_variance / 2)), stats.norm()
        expected = quadrature(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), mean, math.exp(log_variance / 2))
        found = gaussian_kl(*(torch.tensor([[value]], dtype=torch.float64) for value in (mean, log_variance)))
        assert found.item() == pytest.approx(expected, abs=1e-9)

    def test_is_torchs_summed_over_every_latent_dimension(self):
        mean, log_variance = rows(4, 3, 2, 2), rows(4, 3, 2, 2, seed=1)
        q = torch.distributions.Normal(mean, (log_variance / 2).exp())
        p = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
        each = torch.distributions.kl_divergence(q, p)
        assert torch.allclose(gaussian_kl_per_dimension(mean, log_variance), each, atol=1e-13)
        assert torch.allclose(gaussian_kl(mean, log_variance), each.sum(dim=(1, 2, 3)), atol=1e-12)

    @given(st.floats(-1e-3, 1e-3))
    def test_keeps_its_digits_near_the_prior(self, log_variance: float):
        found = gaussian_kl(torch.zeros(1, 1), torch.tensor([[log_variance]], dtype=torch.float32)).item()
        s = torch.tensor(log_variance, dtype=torch.float32).item()
        series = s**2 / 4 + s**3 / 12 + s**4 / 48
        assert found >= 0
        assert found == pytest.approx(series, rel=1e-6, abs=2e-7 * abs(s))  # e^s - 1 - s in float32 errs by 6e-8

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    @pytest.mark.parametrize("log_variance", [-46.0, 46.0])
    def test_extremes_are_finite_in_value_and_gradient(self, dtype: torch.dtype, log_variance: float):
        mean = torch.full((2, 3), 100.0, dtype=dtype, requires_grad=True)
        s = torch.full((2, 3), log_variance, dtype=dtype, requires_grad=True)
        kl = gaussian_kl(mean, s)
        kl.sum().backward()
        assert kl[0].item() == pytest.approx(1.5 * (1e4 + math.expm1(log_variance) - log_variance), rel=1e-6)
        assert mean.grad is not None
        assert mean.grad.isfinite().all()
        if dtype not in (torch.float16,):  # whose gradient, e^46, is beyond the type it is stored in
            assert s.grad is not None
            assert s.grad.isfinite().all()

    def test_stops_where_it_says(self):
        zero = torch.zeros(1, 1)
        assert gaussian_kl(zero, zero + 88.7).isfinite().all()
        assert gaussian_kl(zero, zero - 1e30).isfinite().all()
        assert gaussian_kl(zero + 1.8e19, zero).isfinite().all()
        assert gaussian_kl(zero, zero + 88.8).isinf().all()

    def test_refuses_by_shape(self):
        with pytest.raises(InputError, match=r"must both be \(N, D\).*\(2, 3\) and \(3, 2\)"):
            gaussian_kl(torch.zeros(2, 3), torch.zeros(3, 2))
        with pytest.raises(InputError, match=r"one row an image, got \(3,\)"):
            gaussian_kl(torch.zeros(3), torch.zeros(3))
        with pytest.raises(InputError, match=r"mean, log_variance and noise must have one shape"):
            reparameterised(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3))


class TestFreeBits:
    def test_is_the_floor_under_each_dimensions_mean(self):
        kl = rows(6, 4).square()
        floor = kl.mean(dim=0).sort().values[1:3].mean().item()  # two dimensions below, two above
        expected = sum(max(floor, float(np.mean(column))) for column in kl.numpy().T)
        assert free_bits(kl, floor).item() == pytest.approx(expected, rel=1e-12)
        assert free_bits(kl, 0.0).item() == pytest.approx(kl.sum(dim=1).mean().item(), rel=1e-12)

    def test_below_the_floor_nothing_pulls(self):
        mean = torch.tensor([[0.1, 2.0], [-0.3, 1.0]], dtype=torch.float64, requires_grad=True)
        free_bits(gaussian_kl_per_dimension(mean, torch.zeros(2, 2).double()), 0.25).backward()
        assert mean.grad is not None
        assert mean.grad[:, 0].tolist() == [0.0, 0.0]
        assert mean.grad[:, 1].tolist() == [1.0, 0.5]  # μ/N

    def test_refuses(self):
        with pytest.raises(InputError, match=r"kl must be \(N, D\).*got \(3,\)"):
            free_bits(torch.zeros(3), 0.5)
        with pytest.raises(InputError, match=r"must be at least 0 and finite, got -0.1"):
            free_bits(torch.zeros(3, 2), -0.1)


class TestLinearModel:
    """x ~ N(Wz, σ²I) with a linear encoder: at its best, the β-objective is probabilistic PCA at noise βσ².

    Dividing E log p(x|z) - β KL by β gives the bound of a model whose noise is η = βσ², plus a constant. So the best W
    is U (Λ - η)^½, dimensions with λ ≤ η are idle, the active ones have posterior variance η/λ and KL ½ log(λ/η) each
    (Lucas et al., "Don't Blame the ELBO!", NeurIPS 2019, for β = 1). A σ² that is learnt too must equal the mean
    squared error, Σ_idle λ + (number active)·η over d, which gives σ² = Σ_idle λ / (d - β · number active).
    """

    spectrum = (5.0, 3.0, 1.2, 0.5, 0.3, 0.1)
    latent = 4

    def data(self) -> tuple[Tensor, Tensor]:
        """Centred rows whose covariance has exactly the spectrum, and its eigenvectors."""
        U, _ = torch.linalg.qr(rows(6, 6, seed=2))
        centred = rows(60, 6, seed=3)
        white, _ = torch.linalg.qr(centred - centred.mean(dim=0))
        return math.sqrt(60) * white @ torch.diag(torch.tensor(self.spectrum, dtype=torch.float64).sqrt()) @ U.T, U

    def optimum(self, U: Tensor, beta: float, variance: float) -> dict[str, Tensor]:
        eta = beta * variance
        lam = torch.tensor(self.spectrum[: self.latent], dtype=torch.float64)
        w = (lam - eta).clamp(min=0).sqrt()
        V = torch.where(w > 0, w / lam, w)[:, None] * U[:, : self.latent].T
        log_d = torch.where(w > 0, (eta / lam).log(), torch.zeros_like(lam))
        return {
            "W": U[:, : self.latent] * w,
            "V": V,
            "log_d": log_d,
            "log_variance": torch.tensor(math.log(variance), dtype=torch.float64),
        }

    def terms(self, x: Tensor, W: Tensor, V: Tensor, log_d: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
        """E log p(x|z) and the KL; exact, as ±√D e_j have mean 0 and covariance I and the decoder is linear."""
        nodes = math.sqrt(self.latent) * torch.cat([torch.eye(self.latent), -torch.eye(self.latent)]).double()
        mean = x @ V.T
        log_d = log_d.expand_as(mean)
        reconstruction = torch.stack(
            [
                gaussian_log_likelihood(reparameterised(mean, log_d, node.expand_as(mean)) @ W.T, log_variance, x)
                for node in nodes
            ]
        ).mean(dim=0)
        return reconstruction.mean(), gaussian_kl(mean, log_d).mean()

    @pytest.mark.parametrize("variance", [0.2, 1.0, 2.0])
    def test_at_beta_one_the_bound_is_the_likelihood_of_probabilistic_pca(self, variance: float):
        x, U = self.data()
        best = self.optimum(U, 1.0, variance)
        reconstruction, kl = self.terms(x, **best)
        cov = (best["W"] @ best["W"].T + variance * torch.eye(6, dtype=torch.float64)).numpy()
        expected = stats.multivariate_normal(np.zeros(6), cov).logpdf(x.numpy()).mean()
        assert (reconstruction - kl).item() == pytest.approx(expected, abs=1e-10)

    def test_at_beta_one_with_learnt_noise_it_is_tipping_and_bishops_maximum(self):
        x, U = self.data()
        noise = sum(self.spectrum[self.latent :]) / 2
        reconstruction, kl = self.terms(x, **self.optimum(U, 1.0, noise))
        logs = sum(math.log(value) for value in self.spectrum[: self.latent])
        expected = -0.5 * (6 * math.log(2 * math.pi) + logs + 2 * math.log(noise) + 6)
        assert (reconstruction - kl).item() == pytest.approx(expected, abs=1e-10)

    @pytest.mark.parametrize(
        ("beta", "variance", "active"), [(1.0, 0.2, 4), (4.0, 0.2, 3), (0.5, 1.2, 3), (2.0, 2.0, 1)]
    )
    def test_active_units_kl_and_objective_are_the_closed_forms(self, beta: float, variance: float, active: int):
        x, U = self.data()
        best, eta = self.optimum(U, beta, variance), beta * variance
        per_dimension = gaussian_kl_per_dimension(x @ best["V"].T, best["log_d"].expand(60, 4)).mean(dim=0)
        expected = [0.5 * math.log(value / eta) if value > eta else 0.0 for value in self.spectrum[: self.latent]]
        assert per_dimension.tolist() == pytest.approx(expected, abs=1e-12)
        assert int((per_dimension > 0.01).sum()) == active
        reconstruction, kl = self.terms(x, **best)
        pca = stats.multivariate_normal(
            np.zeros(6), (best["W"] @ best["W"].T + eta * torch.eye(6, dtype=torch.float64)).numpy()
        )
        objective = beta * (pca.logpdf(x.numpy()).mean() + 3 * math.log(2 * math.pi * eta))
        objective -= 3 * math.log(2 * math.pi * variance)
        assert (reconstruction - beta * kl).item() == pytest.approx(objective, abs=1e-10)

    @pytest.mark.parametrize(("beta", "learnt"), [(1.0, False), (4.0, False), (0.5, False), (1.0, True), (1.2, True)])
    def test_there_every_gradient_vanishes_and_every_step_away_is_worse(self, beta: float, learnt: bool):
        x, U = self.data()
        variance = sum(self.spectrum[4:]) / (6 - beta * 4) if learnt else 0.25
        best = {name: value.requires_grad_() for name, value in self.optimum(U, beta, variance).items()}
        moving = [name for name in best if learnt or name != "log_variance"]
        reconstruction, kl = self.terms(x, **best)
        objective = reconstruction - beta * kl
        for gradient in torch.autograd.grad(objective, [best[name] for name in moving]):
            assert gradient.abs().max() < 1e-10
        for seed in range(20):
            step = {
                name: value.detach() + 0.03 * (rows(*value.shape, seed=seed) if name in moving else 0)
                for name, value in best.items()
            }
            further, divergence = self.terms(x, **step)
            assert further - beta * divergence < objective - 1e-5


class TestImportanceBound:
    """z ~ N(0, 1), x | z ~ N(z, 1): log p(x) is that of N(0, 2), the posterior N(x/2, ½)."""

    x = torch.tensor([0.3, -1.0, 2.5], dtype=torch.float64)

    def draw(self, K: int, shift: float, variance: float, seed: int = 0) -> tuple[Tensor, Tensor]:
        mean = (self.x / 2 + shift).repeat(K)[:, None]
        log_variance = torch.full_like(mean, math.log(variance))
        z = reparameterised(mean, log_variance, rows(K * 3, 1, seed=seed))
        zero = torch.zeros_like(z)
        joint = gaussian_log_likelihood(zero, zero, z) + gaussian_log_likelihood(z, zero, self.x.repeat(K)[:, None])
        return joint.reshape(K, 3), gaussian_log_likelihood(mean, log_variance, z).reshape(K, 3)

    def truth(self) -> np.ndarray:
        return stats.norm(0, math.sqrt(2)).logpdf(self.x.numpy())

    def test_with_the_true_posterior_two_draws_are_exact(self):
        bound = importance_weighted_bound(*self.draw(2, 0.0, 0.5))
        assert bound.per_image.numpy() == pytest.approx(self.truth(), abs=1e-12)
        assert bound.mean == pytest.approx(self.truth().mean(), abs=1e-12)
        assert bound.standard_errors.max() < 1e-12
        assert bound.effective_draws.numpy() == pytest.approx([2, 2, 2])

    def test_tends_to_the_likelihood_within_its_error(self):
        bound = importance_weighted_bound(*self.draw(20_000, 0.3, 0.8))
        gap = bound.per_image - torch.from_numpy(self.truth())
        assert (gap.abs() < 4 * bound.standard_errors).all()
        assert bound.standard_errors.max() < 0.01
        assert abs(bound.mean - self.truth().mean()) < 4 * bound.standard_error

    def test_its_error_is_the_spread_of_repetitions(self):
        repeated = [importance_weighted_bound(*self.draw(200, 0.3, 0.8, seed=seed)) for seed in range(400)]
        for value, error in (
            ([b.mean for b in repeated], [b.standard_error for b in repeated]),
            ([b.per_image[1].item() for b in repeated], [b.standard_errors[1].item() for b in repeated]),
        ):
            assert np.mean(error) == pytest.approx(np.std(value, ddof=1), rel=0.12)  # √(1/800) is 3.5 %

    def test_is_the_logarithm_of_the_mean_weight_however_large(self):
        joint, posterior = rows(5, 3), rows(5, 3, seed=1)
        weights = np.exp((joint - posterior).numpy())
        bound = importance_weighted_bound(joint, posterior)
        assert bound.per_image.numpy() == pytest.approx(np.log(weights.mean(axis=0)), abs=1e-12)
        spread = weights.std(axis=0, ddof=1) / np.sqrt(5) / weights.mean(axis=0)
        assert bound.standard_errors.numpy() == pytest.approx(spread, rel=1e-12)
        assert bound.effective_draws.numpy() == pytest.approx(weights.sum(axis=0) ** 2 / (weights**2).sum(axis=0))
        assert bound.standard_error == pytest.approx(float(np.sqrt((spread**2).sum()) / 3), rel=1e-12)
        far = importance_weighted_bound(joint - 1e5, posterior)
        assert far.per_image.numpy() == pytest.approx(bound.per_image.numpy() - 1e5, abs=1e-9)
        assert far.standard_errors.numpy() == pytest.approx(spread, rel=1e-8)

    def test_refuses(self):
        with pytest.raises(InputError, match=r"must both be \(K, N\), draws by images, got \(4,\)"):
            importance_weighted_bound(torch.zeros(4), torch.zeros(4))
        with pytest.raises(InputError, match="at least two draws an image, got 1"):
            importance_weighted_bound(torch.zeros(1, 4), torch.zeros(1, 4))
        with pytest.raises(InputError, match="finite, got 1 of 4 that are not"):
            importance_weighted_bound(torch.tensor([[0.0, math.nan], [0.0, 0.0]]), torch.zeros(2, 2))


def midpoints(n: int) -> Tensor:
    return ((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None]


class TestLogisticLatent:
    @pytest.mark.parametrize(("location", "log_scale"), [(0.0, 0.0), (1.5, -0.8), (-3.0, 0.9)])
    def test_sample_and_density_are_scipys(self, location: float, log_scale: float):
        u = uniform(50, 1)
        mu, s = torch.full_like(u, location), torch.full_like(u, log_scale)
        q = stats.logistic(location, math.exp(log_scale))
        z = logistic_sample(mu, s, u)
        assert z.numpy() == pytest.approx(q.ppf(u.numpy()), abs=1e-11)
        assert logistic_log_density(z, mu, s).numpy() == pytest.approx(q.logpdf(z[:, 0].numpy()), abs=1e-11)

    @pytest.mark.parametrize(("location", "log_scale"), [(1.5, -0.8), (-3.0, 0.9), (0.4, -3.0), (6.0, 0.0)])
    def test_kl_is_the_integral(self, location: float, log_scale: float):
        u = midpoints(400_000)
        found = logistic_kl(torch.full_like(u, location), torch.full_like(u, log_scale), u).mean().item()
        q, p = stats.logistic(location, math.exp(log_scale)), stats.logistic()
        expected = quadrature(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), location, math.exp(log_scale))
        assert found == pytest.approx(expected, abs=2e-5)
        if log_scale == 0:
            assert found == pytest.approx(location / math.tanh(location / 2) - 2, abs=2e-5)

    def test_kl_is_the_difference_of_densities_at_the_very_sample(self):
        mu, s, u = rows(7, 3), rows(7, 3, seed=1), uniform(7, 3)
        z, zero = logistic_sample(mu, s, u), torch.zeros(7, 3).double()
        expected = logistic_log_density(z, mu, s) - logistic_log_density(z, zero, zero)
        assert torch.allclose(logistic_kl(mu, s, u), expected, atol=1e-11)
        assert logistic_kl(zero, zero, u).abs().max() == 0

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_extremes_are_finite(self, dtype: torch.dtype):
        u = torch.tensor([[0.0], [1.0], [0.5], [torch.finfo(dtype).tiny]], dtype=dtype)
        for log_scale in (-46.0, 46.0):
            mu = torch.ones_like(u).requires_grad_()
            s = torch.full_like(u, log_scale).requires_grad_()
            z = logistic_sample(mu, s, u)
            everything = z.sum() + logistic_kl(mu, s, u).sum() + logistic_log_density(z.detach(), mu, s).sum()
            assert everything.isfinite()
            assert all(g.isfinite().all() for g in torch.autograd.grad(everything, (mu, s)))
        ends = logistic_sample(torch.zeros(2, 1, dtype=dtype), torch.zeros(2, 1, dtype=dtype), u[:2])
        assert -ends[0].item() == pytest.approx(-math.log(torch.finfo(dtype).eps / 4), rel=1e-6)
        assert ends[1].item() == pytest.approx(-math.log(torch.finfo(dtype).eps / 2), rel=1e-6)

    def test_refuses(self):
        zero = torch.zeros(2, 1)
        with pytest.raises(InputError, match=r"uniform must lie in \[0, 1\].*from -0.5 to 1.5"):
            logistic_sample(zero, zero, torch.tensor([[-0.5], [1.5]]))
        with pytest.raises(InputError, match="location, log_scale and uniform must have one shape"):
            logistic_sample(zero, zero, zero[:1])
        with pytest.raises(InputError, match=r"must all be \(N, D\), one row an image, got \(2,\), \(2,\), \(2,\)"):
            logistic_kl(torch.zeros(2), torch.zeros(2), torch.full((2,), 0.5))
        with pytest.raises(InputError, match="sample, location and log_scale must all be"):
            logistic_log_density(zero, zero, zero[:1])


class TestGradientEstimators:
    """Pathwise (through the sample) and score-function (f times the gradient of log q) estimates of one gradient."""

    def both(
        self,
        sample: Callable[..., Tensor],
        log_density: Callable[[Tensor, Tensor, Tensor], Tensor],
        f: Callable[[Tensor], Tensor],
        parameters: tuple[float, float],
        noise: Tensor,
        truth: tuple[float, float],
    ) -> list[float]:
        """Checks both against the truth; returns their variances' ratio, score-function over pathwise."""
        a, b = (torch.full_like(noise, value, requires_grad=True) for value in parameters)
        z = sample(a, b, noise)
        pathwise = torch.autograd.grad(f(z).sum(), (a, b))
        z = z.detach()
        score = torch.autograd.grad((f(z)[:, 0] * log_density(z, a, b)).sum(), (a, b))
        ratios = []
        for path, ratio, expected in zip(pathwise, score, truth, strict=True):
            for estimates in (path, ratio):
                error = estimates.std().item() / math.sqrt(len(noise))
                assert error < 0.02 * max(1, abs(expected))  # tight enough to tell
                assert abs(estimates.mean().item() - expected) < 4 * error
            ratios.append((ratio.var() / path.var()).item())
        return ratios

    def test_gaussian(self):
        m, s = 0.7, math.log(0.6)
        damped = math.exp(-0.3)  # E cos z = exp(-σ²/2) cos μ
        ratios = self.both(
            reparameterised,
            lambda z, mean, log_variance: gaussian_log_likelihood(mean, log_variance, z),
            torch.cos,
            (m, s),
            rows(200_000, 1),
            (-damped * math.sin(m), -0.3 * damped * math.cos(m)),
        )
        assert min(ratios) > 1  # here the pathwise estimate is the quieter one

    def test_logistic(self):
        mu, s = 0.7, 0.5  # E z² = μ² + s² π²/3
        ratios = self.both(
            logistic_sample,
            logistic_log_density,
            torch.square,
            (mu, math.log(s)),
            uniform(400_000, 1),
            (2 * mu, 2 * s**2 * math.pi**2 / 3),
        )
        assert min(ratios) > 1

"""Closed forms against scipy; a wrong sign, a missing term or a cut gradient must turn the verdict."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from planted import verdicts
from scipy import integrate, stats
from torch import Tensor

from headfirst.claims import ClaimResult, linear_vae, run_claim
from headfirst.claims import claim_14_reparameterisation as claim
from headfirst.data import ImageSet
from headfirst.errors import InputError

FUNCTIONS = {**claim.SMOOTH, claim.STEP: claim.step}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("QUICK_VAE_STEPS", 30),
        ("VARIANCE_DRAWS", 4000),
        ("VARIANCE_NUMBERS", 100_000),
        ("RATES", (0.03,)),
    ):
        monkeypatch.setattr(claim, name, value)


def quick() -> ClaimResult:
    return run_claim(14, None, None, quick=True)


def test_it_holds_quickly_but_for_a_step():
    result = quick()
    assert result.verdict == "holds"
    assert result.quick
    assert result.figure.startswith("<?xml")
    assert verdicts(result.rows, "1[z > 0], pathwise") == {"fails"}
    assert verdicts(result.rows, "cos 4z") == {"fails"}
    assert verdicts(result.rows, "gradient cut") == {"holds"}


@pytest.mark.parametrize("family", claim.FAMILIES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_closed_forms_are_integrals(family: str, function: str):
    location, b = 0.4, -0.6
    q = stats.norm(location, math.exp(b / 2)) if family == "Gaussian" else stats.logistic(location, math.exp(b))

    def integrand(z: float) -> float:
        return q.pdf(z) * FUNCTIONS[function](torch.tensor([[z]], dtype=torch.float64)).item()

    expected = integrate.quad(integrand, -30, 30, points=[0, location], epsabs=1e-9, limit=500)[0]
    a, b_ = (torch.tensor(value, dtype=torch.float64) for value in (location, b))
    assert claim.EXPECTATIONS[family, function](a, b_).item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("family", "faulty", "estimator"),
    [
        ("Gaussian", {"sample": lambda a, b, noise: a - (b / 2).exp() * noise.abs()}, "pathwise"),
        ("Gaussian", {"sample": lambda a, b, noise: a + b.exp() * noise}, "pathwise"),
        ("Gaussian", {"log_density": lambda z, a, b: -claim.gaussian_log_density(z, a, b)}, "score function"),
        ("logistic", {"sample": lambda a, b, u: a + b.exp() * u.log()}, "pathwise"),
        ("logistic", {"log_density": lambda z, a, b: claim.logistic_log_density(z, a, b) + b.sum(dim=1)}, "score"),
    ],
    ids=[
        "half of the noise",
        "a variance for its root",
        "sign of the density",
        "half of the logit",
        "a lost log-scale",
    ],
)
def test_a_faulty_sample_or_density_makes_it_fail(
    family: str, faulty: dict, estimator: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(claim.FAMILIES, family, replace(claim.FAMILIES[family], **faulty))
    result = quick()
    assert result.verdict == "fails"
    assert "fails" in verdicts([row for row in result.rows if row.primary], f", {estimator}")
    other = next(name for name in claim.FAMILIES if name != family)
    assert verdicts([row for row in result.rows if row.primary], other) == {"holds"}


def test_a_plain_draw_that_passes_gradients_on_makes_it_fail(monkeypatch: pytest.MonkeyPatch):
    def reparameterised(mean: Tensor, sd: Tensor, *, generator: torch.Generator) -> Tensor:
        return mean + sd * torch.randn(mean.shape, generator=generator)

    monkeypatch.setattr(torch, "normal", reparameterised)
    result = quick()
    assert result.verdict == "fails"
    assert verdicts(result.rows, "plain draw") == {"fails"}


def test_a_louder_pathwise_gradient_makes_it_fail(monkeypatch: pytest.MonkeyPatch):
    honest = claim.pathwise

    def louder(family: claim.Family, f: claim.Function, noise: Tensor) -> Tensor:
        return honest(family, f, noise) + 1000 * torch.randn(noise.shape, generator=torch.Generator().manual_seed(1))

    monkeypatch.setattr(claim, "pathwise", louder)
    assert "fails" in verdicts(quick().rows, "variance, score function / pathwise")


def test_variances_of_a_gaussian_are_the_closed_forms():
    """f = Σ z², D = 1, σ² = v: pathwise 2z has variance 4v, its part in b, (z - μ) z, μ²v + 2v²."""
    v, m = 0.64, claim.LOCATION
    noise = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    quiet = claim.pathwise(claim.FAMILIES["Gaussian"], claim.square, noise).var(dim=1)[:, 0]
    assert quiet.tolist() == pytest.approx([4 * v, m**2 * v + 2 * v**2], rel=0.02)
    z = stats.norm(m, v**0.5)
    by_score = claim.score_function(claim.FAMILIES["Gaussian"], claim.square, noise).var(dim=1)[:, 0]
    expected = [
        z.expect(lambda x: (x**2 * (x - m) / v) ** 2) - (2 * m) ** 2,
        z.expect(lambda x: (x**2 * ((x - m) ** 2 / v - 1) / 2) ** 2) - v**2,
    ]
    assert by_score.tolist() == pytest.approx(expected, rel=0.03)


def test_a_baseline_leaves_the_mean_and_takes_from_the_variance():
    family, f = claim.FAMILIES["Gaussian"], claim.square
    noise = torch.randn(50_000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain, based = (claim.score_function(family, g, noise) for g in (f, claim.with_baseline(f)))
    assert based.mean(dim=(1, 2)).tolist() == pytest.approx(claim.truth("Gaussian", "Σ z²").tolist(), rel=0.05)
    assert based.var(dim=1).sum() < 0.5 * plain.var(dim=1).sum()
    few = torch.tensor([1.0, 4.0, 7.0])
    assert linear_vae.leave_one_out(few).tolist() == [1 - 5.5, 0.0, 7 - 2.5]


def test_departures_are_within_the_margin_only_with_their_whole_interval():
    def found(low: float, high: float) -> tuple[float, float, float]:
        middle, half = (low + high) / 2, (high - low) / 2
        each = [torch.tensor([middle + sign * half / 12.7062047, 0.0]) for sign in (-1, 1)]  # Student's t, one degree
        interval = claim.off_by([e.double() for e in each])
        return interval.value, interval.low, interval.high

    assert found(-0.03, 0.01) == pytest.approx((0.01, 0.0, 0.03), abs=1e-3)
    assert found(-0.03, -0.01) == pytest.approx((0.02, 0.01, 0.03), abs=1e-3)


def test_the_gap_is_that_of_the_true_posterior():
    W = linear_vae.decoder()
    cov = W @ W.T + linear_vae.NOISE * torch.eye(len(W), dtype=torch.float64)
    assert torch.linalg.eigvalsh(cov).flip(0)[:4].tolist() == pytest.approx(list(linear_vae.SPECTRUM))
    S = torch.linalg.inv(torch.eye(4, dtype=torch.float64) + W.T @ W / linear_vae.NOISE)
    V, b = W.T @ torch.linalg.inv(cov), S.diagonal().log()
    assert linear_vae.gap_to_best(W, V, b) == pytest.approx(0, abs=1e-10)
    assert linear_vae.gap_to_best(W, V + 0.1, b) > 0.01

    # E KL(prior ‖ posterior), by torch's own divergence at sampled points
    x = (
        torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        @ torch.linalg.cholesky(cov).T
    )
    normal = torch.distributions.MultivariateNormal
    prior = normal(torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64))
    expected = torch.distributions.kl_divergence(prior, normal(x @ V.T, S)).mean().item()
    assert linear_vae.gap_to_best(W, 0 * V, 0 * b) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("way", [claim.through_the_sample, claim.by_the_score, claim.by_the_score_with_baseline])
def test_encoders_learn_by_either_and_not_without(way: claim.Surrogate):
    gaps = linear_vae.learn(way, rate=0.03, steps=60, seed=0)
    assert gaps[-1] < 0.9 * gaps[0]
    still = linear_vae.learn(claim.cut, rate=0.03, steps=5, seed=0)
    assert set(still) == {still[0]}


def test_images_are_refused(images: ImageSet):
    with pytest.raises(InputError, match="claim 14 is about known distributions"):
        run_claim(14, images, None)

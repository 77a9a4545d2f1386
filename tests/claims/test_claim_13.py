"""Densities against scipy, divergences against their closed forms; a loss that is another's must turn the verdict."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from planted import verdicts
from scipy import integrate, stats
from torch import Tensor

from headfirst.claims import ClaimResult, densities, point_games, run_claim
from headfirst.claims import claim_13_cross_entropy as claim
from headfirst.claims.densities import BASES, GAUSSIAN, GRID, TWO_MODES, Mixture, generated, jsd, kl, log_density_of
from headfirst.errors import InputError
from headfirst.generate import hinge_discriminator_loss, non_saturating_loss, saturating_loss
from headfirst.nn import PretrainedBackbone

THETA = torch.tensor([0.8, -0.3], dtype=torch.float64)


def scipys(mixture: Mixture, x: Tensor) -> Tensor:
    parts = [
        w * stats.norm(m, sd).pdf(x.numpy())
        for w, m, sd in zip(mixture.weights, mixture.means, mixture.sds, strict=True)
    ]
    return torch.from_numpy(sum(parts))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the planted faults need is seen long before anything has converged."""
    for name, value in (("QUICK_STEPS", 300), ("QUICK_ROUNDS", 60), ("DISTANCES", (1.0, 5.0))):
        monkeypatch.setattr(claim, name, value)
    monkeypatch.setattr(point_games, "BATCH", 128)


def quick() -> ClaimResult:
    return run_claim(13, None, None, quick=True)


@pytest.mark.parametrize("mixture", BASES.values())
def test_density_and_quantiles_against_scipy_and_draws_against_the_quantiles(mixture: Mixture):
    assert torch.allclose(mixture.log_density(GRID[2500:3500]).exp(), scipys(mixture, GRID[2500:3500]), atol=1e-14)
    nodes = mixture.nodes(999)
    below = sum(
        w * stats.norm(m, sd).cdf(nodes.numpy())
        for w, m, sd in zip(mixture.weights, mixture.means, mixture.sds, strict=True)
    )
    assert below == pytest.approx((np.arange(999) + 0.5) / 999, abs=1e-12)
    drawn = mixture.sample((50_000,), torch.Generator().manual_seed(0))
    assert (drawn.sort().values[25::50].double() - mixture.nodes(1000)).abs().mean() < 0.02


def test_the_generator_has_the_density_it_is_said_to_have():
    z = TWO_MODES.nodes(200_000)
    x = generated(THETA, z)
    density = log_density_of(TWO_MODES, THETA, GRID).exp()
    assert densities.integral(density).item() == pytest.approx(1, abs=1e-12)
    for power in (1, 2):
        assert densities.integral(density * GRID**power).item() == pytest.approx((x**power).mean().item(), abs=1e-4)


def test_divergences_against_closed_forms_and_scipys_integrals():
    p, q = GAUSSIAN.log_density(GRID), log_density_of(GAUSSIAN, THETA, GRID)
    mu, s = 0.8, math.exp(-0.3)
    assert kl(q, p).item() == pytest.approx((mu**2 + s**2 - 1) / 2 - math.log(s), abs=1e-12)

    real, fake = stats.norm(), stats.norm(mu, s)
    middle = lambda x: (real.pdf(x) + fake.pdf(x)) / 2  # noqa: E731
    expected = sum(
        integrate.quad(lambda x, d=d: d.pdf(x) * (d.logpdf(x) - math.log(middle(x))), -9, 9, epsabs=1e-12)[0] / 2
        for d in (real, fake)
    )
    assert jsd(p, q).item() == pytest.approx(expected, abs=1e-10)
    log_m = torch.logaddexp(p, q) - math.log(2)
    assert densities.softened_kl(p, q).item() == pytest.approx(2 * kl(log_m, p).item(), abs=1e-12)


def test_the_gradient_of_a_divergence_is_that_of_the_closed_form():
    found = densities.gradient_of(lambda log_p, log_q: kl(log_q, log_p), GAUSSIAN, GAUSSIAN, THETA)
    assert found.tolist() == pytest.approx([0.8, math.exp(-0.6) - 1], abs=1e-10)


def test_each_loss_descends_its_divergence_by_monte_carlo_too():
    draws = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name, (_, divergence) in claim.DESCENDED.items():
        found = claim.gradient(claim.LOSSES[name], GAUSSIAN, GAUSSIAN, THETA, draws)
        expected = densities.gradient_of(divergence, GAUSSIAN, GAUSSIAN, THETA)
        assert found.tolist() == pytest.approx(expected.tolist(), abs=0.01)
        assert expected.norm() > 0.1


@pytest.mark.usefixtures("short")
def test_the_exact_parts_hold_quickly():
    result = quick()
    assert result.quick
    assert result.figure.startswith("<?xml")
    for part in ("relative departure", "best discriminator", "log 4 - 2 JSD", "fakes 5 sd away"):
        assert "fails" not in verdicts([row for row in result.rows if row.primary], part), part
    assert verdicts(result.rows, "saturating gradient against that of") == {"holds"}
    assert verdicts(result.rows, "against e^l") == {"holds"}
    assert verdicts(result.rows, "non-saturating gradient against ascent") == {"fails"}
    assert verdicts(result.rows, "distance between the two losses' ends") == {"fails"}


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("name", "loss", "failing"),
    [
        ("saturating", non_saturating_loss, ("ascent of the cross-entropy", "2 JSD(p, q): relative", "e^l", "5 sd")),
        ("non-saturating", saturating_loss, ("KL(q‖p) - 2 JSD(p, q): relative", "e^l")),
        ("saturating", lambda logits: -saturating_loss(logits), ("ascent of the", "saturating, best discriminator")),
        ("non-saturating", lambda logits: -non_saturating_loss(logits), ("non-saturating, trained discriminator: |",)),
    ],
)
def test_another_loss_or_its_negative_makes_it_fail(
    name: str, loss: object, failing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(claim.LOSSES, name, loss)
    result = quick()
    assert result.verdict == "fails"
    for part in failing:
        assert "fails" in verdicts([row for row in result.rows if row.primary], part), part


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    "loss",
    [
        hinge_discriminator_loss,
        lambda real, fake: claim_loss(fake, real),
        lambda real, fake: 2 * claim_loss(real, fake),
    ],
    ids=["hinge", "roles exchanged", "doubled"],
)
def test_another_discriminator_loss_makes_it_fail(loss: object, monkeypatch: pytest.MonkeyPatch):
    for module in (claim, point_games):
        monkeypatch.setattr(module, "discriminator_loss", loss)
    result = quick()
    assert result.verdict == "fails"
    assert "fails" in verdicts(result.rows, "log 4 - 2 JSD") | verdicts(
        result.rows, "saturating gradient against ascent"
    )


claim_loss = claim.discriminator_loss


def test_a_generator_that_does_not_move_is_told_from_p():
    still = partial(claim.game, "saturating", seeds=[0], rounds=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(point_games, "GENERATOR_RATE", 0.0)
        (played,) = still()
    assert played.end == pytest.approx(claim.start_of(0).norm().item(), abs=1e-6)
    assert min(played.before, played.after) > 0.05


def test_images_and_backbones_are_refused(backbone: PretrainedBackbone):
    with pytest.raises(InputError, match="claim 13 is about known distributions and takes neither"):
        run_claim(13, None, backbone)

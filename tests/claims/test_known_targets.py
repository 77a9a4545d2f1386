"""Known distributions have the moments they say; the distance is SciPy's without its bias; points are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import scipy.stats
import torch
from torch import Tensor

from headfirst.claims import known_targets
from headfirst.claims.known_targets import NOISES, TARGETS, energy_distance, points, wasserstein


@pytest.mark.parametrize("name", TARGETS)
def test_targets_have_mean_zero_and_covariance_one(name: str):
    x = TARGETS[name](100_000, torch.Generator().manual_seed(0)).double()
    assert torch.allclose(x.mean(dim=0), torch.zeros(x.shape[1], dtype=torch.float64), atol=0.015)
    assert torch.allclose(x.T.cov().reshape(x.shape[1], -1), torch.eye(x.shape[1], dtype=torch.float64), atol=0.015)
    radius = x.norm(dim=1) / x.shape[1] ** 0.5
    assert radius.std().item() < 2 * known_targets.SPREAD  # and are no normal distribution: all are away from 0


@pytest.mark.parametrize("name", NOISES)
def test_noises_have_mean_zero_and_variance_one(name: str):
    x = NOISES[name](100_000, 2, torch.Generator().manual_seed(0)).double()
    assert torch.allclose(x.mean(dim=0), torch.zeros(2, dtype=torch.float64), atol=0.015)
    assert torch.allclose(x.T.cov(), torch.eye(2, dtype=torch.float64), atol=0.025)
    skewness = float(scipy.stats.skew(x[:, 0].numpy()))
    assert skewness == pytest.approx(2.0 if name == "skewed" else 0.0, abs=0.1)


def test_energy_distance_is_scipys_without_the_pairs_of_a_point_with_itself():
    x, y = _two_samples(1)
    # SciPy: the square root of 2 E|X-Y| - E|X-X'| - E|Y-Y'|, its means over all pairs, those of a point with itself too
    biased = scipy.stats.energy_distance(x.flatten().numpy(), y.flatten().numpy()) ** 2
    within = [torch.pdist(z).mean().item() / len(z) for z in (x, y)]
    assert energy_distance(x, y).item() == pytest.approx(biased - sum(within), abs=1e-5)


def test_energy_distance_has_no_bias():
    random = torch.Generator().manual_seed(0)
    same = torch.stack([energy_distance(*torch.randn(2, 20, 2, generator=random)) for _ in range(400)])
    assert abs(same.mean().item()) < 3 * same.std().item() / 20


def test_wasserstein_distance_is_scipys():
    x, y = _two_samples(1)
    expected = scipy.stats.wasserstein_distance(x.flatten().numpy(), y.flatten().numpy())
    assert wasserstein(x, y) == pytest.approx(expected, rel=1e-9)
    x, y = _two_samples(2)
    angles = [torch.pi * torch.tensor(k / 32).double() for k in range(32)]
    lines = [torch.stack([angle.cos(), angle.sin()]) for angle in angles]
    expected = [scipy.stats.wasserstein_distance((x @ u).numpy(), (y @ u).numpy()) for u in lines]
    assert wasserstein(x, y) == pytest.approx(sum(expected) / 32, rel=1e-6)


def _two_samples(dim: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 40, dim, generator=random, dtype=torch.float64)
    return x, 2 * y + 1


def test_points_are_made_once_and_row_by_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    fits = []
    honest = known_targets.fitted

    def counted(*args: object) -> object:
        fits.append(args[1])
        return honest(*args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(known_targets, "fitted", counted)
    first, again = (points("ring in 2-D", "uniform", 0, steps=40, num=50, work=tmp_path / "new") for _ in range(2))
    assert fits == ["uniform"]
    assert set(first) == {"target", "fresh sample", "noise", "Gaussian", "uniform", "skewed"}
    assert all(torch.equal(first[name], again[name]) for name in first)
    network = honest(TARGETS["ring in 2-D"], "uniform", 0, 40)
    with torch.inference_mode():
        expected: Tensor = network(first["noise"])
    assert torch.equal(first["Gaussian"], expected)
    points("ring in 2-D", "uniform", 1, steps=40, num=50, work=tmp_path / "new")
    assert len(fits) == 2


def test_training_brings_points_to_the_target():
    """Two modes: most points leave the middle, where noise has most of its own."""
    network = known_targets.fitted(TARGETS["two modes in 1-D"], "Gaussian", 0, 200)
    z = torch.randn(1000, 1, generator=torch.Generator().manual_seed(3))
    target = TARGETS["two modes in 1-D"](1000, torch.Generator().manual_seed(4))
    with torch.inference_mode():
        made = network(z)
    assert wasserstein(made, target) < 0.5 * wasserstein(z, target)

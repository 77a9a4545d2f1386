"""Known distributions have the moments they say; the distance is SciPy's without its bias; points are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import scipy.stats
import torch
from torch import Tensor

from headfirst.claims import known_targets
from headfirst.claims.known_targets import NOISES, TARGETS, EnergyDescent, energy_distance, points, wasserstein
from headfirst.claims.point_diffusion import PointDenoiser, PointDiffusion


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


RECIPES = EnergyDescent(noise="uniform", steps=40), PointDiffusion(steps=40, hidden=16, waves=4)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_points_are_made_once_and_row_by_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipe: EnergyDescent | PointDiffusion
):
    fits: list[int] = []
    honest = type(recipe).fit

    def counted(self: object, draw: object, *, seed: int) -> object:
        fits.append(seed)
        return honest(self, draw, seed=seed)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(type(recipe), "fit", counted)
    first, again = (points("ring in 2-D", recipe, 0, num=50, work=tmp_path / "new") for _ in range(2))
    assert fits == [0]
    assert set(first) == {"target", "fresh sample", "noise", "Gaussian", "uniform", "skewed"}
    assert all(torch.equal(first[name], again[name]) for name in first)
    make = honest(recipe, TARGETS["ring in 2-D"], seed=0)  # pyright: ignore[reportArgumentType]
    with torch.inference_mode():
        assert torch.equal(first["Gaussian"], make(first["noise"]))
    points("ring in 2-D", recipe, 1, num=50, work=tmp_path / "new")
    points("ring in 2-D", replace(recipe, steps=10), 0, num=50, work=tmp_path / "new")
    points("ring in 2-D", recipe, 0, num=51, work=tmp_path / "new")
    points("eight modes in 2-D", recipe, 0, num=50, work=tmp_path / "new")
    assert fits == [0, 1, 0, 0, 0]


LEARNING = EnergyDescent(steps=200), PointDiffusion(steps=400, batch_size=128, hidden=32, waves=8)


@pytest.mark.parametrize("recipe", LEARNING, ids=lambda recipe: type(recipe).__name__)
def test_training_brings_points_to_the_target(recipe: EnergyDescent | PointDiffusion):
    """Two modes: most points leave the middle, where noise has most of its own."""
    make = recipe.fit(TARGETS["two modes in 1-D"], seed=0)
    z = torch.randn(1000, 1, generator=torch.Generator().manual_seed(3))
    target = TARGETS["two modes in 1-D"](1000, torch.Generator().manual_seed(4))
    with torch.inference_mode():
        assert wasserstein(make(z), target) < 0.5 * wasserstein(z, target)


def test_a_denoiser_of_points_knows_the_variance_where_it_has_learned_nothing():
    """Whose perceptron says 0: c_skip x, the posterior mean of a standard normal point."""
    denoiser = PointDenoiser(dim=2, hidden=8, waves=3, fastest=4.0)
    for parameter in denoiser.layers[-1].parameters():
        torch.nn.init.zeros_(parameter)
    x, sigma = torch.randn(5, 2), torch.tensor([0.1, 0.5, 1.0, 2.0, 9.0])
    expected = x / (1 + sigma[:, None] ** 2)
    assert torch.allclose(denoiser(x, sigma), expected)
    assert torch.allclose(denoiser(x[2:3], sigma[2]), expected[2:3])


def test_points_of_another_scale_come_out_at_it():
    target = TARGETS["two modes in 1-D"]
    make = PointDiffusion(scale=5.0, steps=60, hidden=16, waves=4).fit(lambda n, g: 5 * target(n, g), seed=0)
    assert make(torch.randn(500, 1, generator=torch.Generator().manual_seed(0))).std().item() == pytest.approx(
        5, rel=0.2
    )


def test_normal_points_stay_normal():
    """Noise of another size than the network is told would narrow or widen what it draws."""
    recipe = PointDiffusion(steps=200, batch_size=256, hidden=16, waves=2)
    make = recipe.fit(lambda n, g: torch.randn(n, 1, generator=g), seed=0)
    z = torch.randn(4000, 1, generator=torch.Generator().manual_seed(1))
    assert make(z).std().item() == pytest.approx(z.std().item(), rel=0.1)

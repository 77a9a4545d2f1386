"""The grid's readings, on points whose readings are known; the game on it is repeatable."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import headfirst.generate.grid as grid
from headfirst.errors import InputError
from headfirst.generate import GridGAN, grid_mode, grid_points, read_grid
from headfirst.generate.grid import MODES, SIGMA, WATCHED


def test_a_perfect_sampler():
    n = 40_000
    found = read_grid(grid_points(np.arange(n), seed=3))
    inside = 1 - math.exp(-4.5)
    assert found.modes == MODES
    assert found.share == pytest.approx(inside, abs=4 * math.sqrt(inside * (1 - inside) / n))
    assert found.spread_ratio == pytest.approx(1, abs=0.01)
    assert found.class_weight_distance < 0.03  # 0.011 of it are the points of no mode


def test_points_are_the_same_in_any_company_and_new_in_every_epoch():
    many = grid_points(np.arange(100), seed=1)
    assert torch.equal(grid_points(np.array([7, 3]), seed=1), many[[7, 3]])
    assert not torch.equal(grid_points(np.arange(100), seed=1, epoch=1), many)
    assert not torch.equal(grid_points(np.arange(100), seed=2), many)


def test_modes_of_known_points():
    points = torch.tensor([[-4.0, -4.0], [-4.0, -2.1], [4.0, 4.14], [4.0, 4.16], [1.0, 1.0]])
    assert grid_mode(points).tolist() == [0, 1, 24, -1, -1]


def test_readings_written_out():
    points = torch.cat([torch.zeros(60, 2) + 0.03, torch.ones(40, 2)])
    found = read_grid(points)
    assert (found.modes, found.share) == (1, 0.6)
    assert found.class_weight_distance == pytest.approx((0.56 + 24 * 0.04 + 0.4) / 2)
    perfect = np.linspace(0, 3, 200_001)  # radii in σ, Rayleigh's density, cut at 3
    density = perfect * np.exp(-(perfect**2) / 2)
    expected = math.sqrt(2 * 0.03**2 / ((perfect**2 * density).sum() / density.sum())) / SIGMA
    assert found.spread_ratio == pytest.approx(expected, rel=1e-4)
    nowhere = read_grid(torch.ones(3, 2))
    assert (nowhere.modes, nowhere.share, nowhere.spread_ratio) == (0, 0.0, None)
    with pytest.raises(InputError, match="points must be finite and at least one, got 0"):
        read_grid(torch.zeros(0, 2))
    with pytest.raises(InputError, match="points must be finite"):
        read_grid(torch.full((1, 2), math.nan))


def test_training_is_repeatable_and_depends_on_the_seed():
    short = replace(GridGAN(), steps=40, batch_size=16, hidden=8)
    seen: list[int] = []
    one, two = short.fit(seed=1), short.fit(seed=1, watch=lambda steps, _: seen.append(steps))
    other = short.fit(seed=2)
    assert one.reading == two.reading
    assert seen == list(range(2, 41, 2))
    weights = [torch.cat([p.flatten() for p in result.generator.parameters()]) for result in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert one.readings == two.readings
    assert [reading.epoch for reading in one.readings] == seen


class Sampler(grid.PointGenerator):
    """Draws from the first `modes` modes, whatever it has learnt."""

    modes = MODES

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        place = torch.special.ndtr(noise[:, 0].double()) * self.modes
        offsets = torch.stack([torch.special.ndtri((place % 1).clamp(1e-4, 1 - 1e-4)), noise[:, 1]], dim=1)
        centres = torch.cartesian_prod(*[2.0 * (torch.arange(5) - 2)] * 2)
        nothing = 0 * sum(weight.sum() for weight in self.parameters())
        return (centres[place.long()] + SIGMA * offsets).float() + nothing


@pytest.mark.parametrize(("modes", "alarmed"), [(25, False), (13, False), (3, True), (1, True)])
def test_the_alarm_tells_few_modes_from_many(modes: int, alarmed: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grid, "PointGenerator", Sampler)
    monkeypatch.setattr(Sampler, "modes", modes)
    made = replace(GridGAN(), steps=8, batch_size=16, hidden=8).fit()
    assert made.reading.modes == modes
    share = np.mean([0 <= mode < modes for mode in grid_mode(grid_points(np.arange(WATCHED), seed=0, epoch=8))])
    assert made.readings[-1].coverage == pytest.approx(share, abs=0.03)  # no reading knows of modes
    assert [event.split(":")[:2] for event in made.events] == ([["epoch 2", " mode collapse"]] if alarmed else [])

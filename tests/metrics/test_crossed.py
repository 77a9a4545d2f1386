"""Intervals over pre-trainings, label draws and images: coverage where the truth is known, pairing, refusals."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
import torch

from headfirst.errors import InputError
from headfirst.metrics import bootstrap_interval, crossed_difference, crossed_interval, paired_difference


def _runs(random: np.random.Generator, p: int, s: int, n: int, spread: tuple[float, float]) -> torch.Tensor:
    """(P, S, N) of a known mean 0.6: pre-training, label draw and image each have an effect of their own."""
    of_training = random.normal(0, spread[0], (p, 1, 1))
    of_draw = random.normal(0, spread[1], (1, s, 1))
    chance = np.clip(0.6 + of_training + of_draw, 0, 1)
    return torch.from_numpy((random.random((p, s, n)) < chance).astype(np.float64))


def test_it_covers_the_truth_where_pretrainings_differ_and_a_flat_count_of_runs_does_not() -> None:
    random = np.random.default_rng(5)
    held, flat = [], []
    for i in range(120):
        x = _runs(random, 3, 4, 300, (0.05, 0.03))
        found = crossed_interval(x, seed=i, num_draws=400)
        held.append(found.low <= 0.6 <= found.high)
        naive = bootstrap_interval(x.flatten(0, 1), seed=i, bounds=(0.0, 1.0), num_draws=400)
        flat.append(naive.low <= 0.6 <= naive.high)
    assert np.mean(held) >= 0.93
    assert np.mean(flat) <= 0.88  # twelve rows, three pre-trainings: no twelve independent runs


def test_one_pretraining_is_the_houses_own_interval() -> None:
    x = _runs(np.random.default_rng(0), 1, 5, 200, (0.0, 0.05))
    y = _runs(np.random.default_rng(1), 1, 5, 200, (0.0, 0.05))
    for ours, houses in (
        (crossed_interval(x, seed=3), bootstrap_interval(x[0], seed=3, bounds=(0.0, 1.0))),
        (crossed_difference(x, y, seed=3), paired_difference(x[0], y[0], seed=3)),
    ):
        assert astuple(ours) == pytest.approx(astuple(houses), abs=1e-12)


def test_a_difference_pairs_the_draws_and_not_the_pretrainings() -> None:
    random = np.random.default_rng(2)
    draw = random.normal(0, 0.15, (1, 6, 1))  # few labels: a lucky draw is lucky for both sides
    easy = random.random((1, 6, 400))
    a = torch.from_numpy((easy < 0.65 + draw).astype(float))
    b = torch.from_numpy((easy < 0.60 + draw).astype(float))
    paired = crossed_difference(a, b, seed=0)
    assert 0.03 < paired.low <= paired.value <= paired.high < 0.07
    apart = crossed_interval(a, seed=0)
    assert paired.high - paired.low < 0.25 * (apart.high - apart.low)
    # Pre-trainings swapped among themselves change nothing: they have no partner on the other side.
    several = torch.cat([a, a * 0.0, a * 0.5])
    assert crossed_difference(several, b, seed=0).value == pytest.approx(
        crossed_difference(several.flip(0), b, seed=0).value
    )


def test_no_width_is_no_certainty() -> None:
    found = crossed_interval(torch.ones(2, 3, 50), seed=0)
    assert found.high == 1.0
    assert found.low == pytest.approx(0.025 ** (1 / 50))


def test_refusals() -> None:
    with pytest.raises(InputError, match="samples of shape"):
        crossed_interval(torch.ones(1, 0, 3), seed=0)
    with pytest.raises(InputError, match="finite"):
        crossed_interval(torch.full((1, 1, 3), float("nan")), seed=0)
    with pytest.raises(InputError, match=r"same label draws and images.*\(2, 3\) and \(1, 3\)"):
        crossed_difference(torch.ones(1, 2, 3), torch.ones(1, 1, 3), seed=0)

"""Coverage by class: planted generators reach what they must, and the lower bound holds as often as it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gaussian_classes import centres, drawn, features

from headfirst.augment import class_coverage
from headfirst.errors import InputError
from headfirst.metrics import binomial_interval

CENTRES = centres(2, 4, 5.0)


def test_a_mode_that_is_missing_is_seen() -> None:
    real, val = drawn(CENTRES, 30, seed=0), drawn(CENTRES, 50, seed=1)
    generated = drawn(CENTRES, 60, seed=2)
    ant, bee = class_coverage(val, generated, real)
    assert min(ant.value, bee.value) > 0.8
    assert (ant.class_name, ant.num) == ("ant", 50)
    assert ant.by_real == pytest.approx(0.9, abs=0.15)
    only_ants = generated.take(torch.nonzero(generated.labels == 0)[:, 0].tolist())
    again = class_coverage(val, replace(only_ants, classes=real.classes), real)
    assert again[0] == ant
    assert (again[1].covered, again[1].low) == (0, 0.0)
    assert again[1].high == binomial_interval(0, 50).high
    half = [i for i in range(60) if generated.values[i, 1] < 0]  # one side of the first class
    assert class_coverage(val, generated.take([*half, *range(60, 120)]), real)[0].value < ant.value


def test_the_interval_is_exact() -> None:
    # Given the real and generated images, what is covered is a coin with a fixed chance.
    real, generated = drawn(CENTRES, 10, seed=0), drawn(CENTRES, 6, seed=5)
    truth = class_coverage(drawn(CENTRES, 20000, seed=9), generated, real)[0].value
    assert 0.2 < truth < 0.95
    found = [class_coverage(drawn(CENTRES, 15, seed=1000 + s), generated, real)[0] for s in range(200)]
    assert sum(c.low <= truth for c in found) >= 193  # of 97.5 %: 195, sd 2.2; exact intervals lie above
    assert all(c.value == c.covered / 15 for c in found)


def test_what_cannot_be_asked_is_left_out_or_refused() -> None:
    real = features(torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([0, 0, 1]))
    val = features(torch.tensor([[0.5], [9.0]]), torch.tensor([0, 1]))
    assert [c.class_name for c in class_coverage(val, val, real)] == ["ant"]
    with pytest.raises(InputError, match="same backbone"):
        class_coverage(val, replace(val, source="other"), real)

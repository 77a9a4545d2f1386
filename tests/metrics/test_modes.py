import itertools
import math

import numpy as np
import pytest
import torch

from headfirst.errors import InputError
from headfirst.metrics import class_weight_distance, closest_pair, duplicate_estimate, modes_covered, neighbours


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def test_modes_covered_counts_what_has_enough_samples():
    labels = torch.tensor([0, 0, 0, 3, 3, 4, -1, -1])
    assert [modes_covered(labels, 6, least=n) for n in (1, 2, 3, 4)] == [3, 2, 1, 0]


def test_class_weight_distance_by_hand():
    found = class_weight_distance(torch.tensor([0, 0, 1, -1]), torch.tensor([0.25, 0.5, 0.25]))
    assert found.total_variation == pytest.approx((0.25 + 0.25 + 0.25 + 0.25) / 2)
    assert class_weight_distance(torch.tensor([1, 1]), torch.tensor([1.0, 0.0])).total_variation == 1
    assert class_weight_distance(torch.tensor([0, 0]), torch.tensor([1.0, 0.0])).expected == 0


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.7, 0.2, 0.1], [0.25, 0.25, 0.5, 0.0]])
def test_the_expected_distance_is_the_mean_over_every_sample(weights):
    n, k = 5, len(weights)
    mean = 0.0
    for labels in itertools.product(range(k), repeat=n):
        chance = math.prod(weights[c] for c in labels)
        mean += chance * class_weight_distance(torch.tensor(labels), torch.tensor(weights)).total_variation
    found = class_weight_distance(torch.zeros(n, dtype=torch.long), torch.tensor(weights, dtype=torch.float64))
    assert found.expected == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("block", [1, 100, 2**20])
def test_duplicates_are_counted_up_to_the_threshold(block, monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    x = normal(0, 60, 3) + 50
    d = np.sqrt(((x.numpy()[:, None] - x.numpy()[None]) ** 2).sum(axis=2))[np.triu_indices(60, 1)]
    edge = float(np.sort(d)[9])
    assert duplicate_estimate(x, edge * (1 + 1e-9)).pairs == 10
    assert duplicate_estimate(x, edge * (1 - 1e-9)).pairs == 9
    assert closest_pair(x) == pytest.approx(d.min(), rel=1e-12)
    assert duplicate_estimate(torch.cat([x, x[:5]]), 0.0).pairs == 5


@pytest.mark.parametrize("weights", [np.full(50, 0.02), 2.0 ** -np.arange(1, 30)])
def test_support_of_a_finite_generator(weights):
    """Images drawn from a list: the pairs' rate is unbiased for Σ p², and the interval holds 1 / Σ p²."""
    weights = weights / weights.sum()
    truth = 1 / (weights**2).sum()
    images = normal(1, len(weights), 4)
    found = [
        duplicate_estimate(images[np.random.default_rng((2, i)).choice(len(weights), size=60, p=weights)], 1e-6)
        for i in range(300)
    ]
    rates = np.array([one.rate for one in found])
    assert abs(rates.mean() - 1 / truth) < 4 * rates.std() / 300**0.5
    assert np.mean([one.low <= truth <= one.high for one in found]) > 0.9


def test_no_duplicates_bound_the_support_from_below_only():
    found = duplicate_estimate(normal(3, 100, 10), 1e-6)
    assert (found.pairs, found.rate, found.support, found.high) == (0, 0, math.inf, math.inf)
    assert found.low == pytest.approx(4950 / -math.log(0.025))
    same = duplicate_estimate(torch.ones(10, 3), 0.0)
    assert (same.pairs, same.support, same.low) == (45, 1, 1)


LABELS, HALF = torch.tensor([0, 1]), torch.tensor([0.5, 0.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: modes_covered(LABELS, 1), "-1 … 0, got 1 at row 1"),
        (lambda: modes_covered(LABELS[:0], 3), "got 0 samples"),
        (lambda: modes_covered(LABELS, 3, least=0), "least=0"),
        (lambda: class_weight_distance(LABELS, 2 * HALF), "sum to 1"),
        (lambda: class_weight_distance(LABELS, HALF * math.nan), "sum to 1"),
        (lambda: duplicate_estimate(torch.eye(3)[:1], 0.1), "at least 2 images"),
        (lambda: duplicate_estimate(torch.eye(3), -1.0), "at least 0, got -1"),
        (lambda: duplicate_estimate(torch.eye(3), math.nan), "got nan"),
        (lambda: closest_pair(torch.eye(3) * math.inf), "NaN or infinity"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(InputError, match=message):
        call()

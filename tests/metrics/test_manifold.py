import math

import numpy as np
import pytest
import torch

from headfirst.errors import InputError
from headfirst.metrics import density_coverage, expected_coverage, neighbours, precision_recall


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def distances(a, b):
    return np.sqrt(((a.numpy()[:, None] - b.numpy()[None]) ** 2).sum(axis=2))


def radii(x, k):
    d = distances(x, x)
    return np.array([sorted(np.delete(row, i))[k - 1] for i, row in enumerate(d)])


@pytest.mark.parametrize("block", [1, 200, 2**20])
@pytest.mark.parametrize("k", [1, 3, 10])
def test_all_four_are_those_of_brute_force_whatever_the_blocks(block, k, monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    monkeypatch.setattr(neighbours, "_NUMBERS", 10)
    real, fake = normal(0, 40, 3) + 100, 0.7 * normal(1, 25, 3) + 100.5
    d, around_real, around_fake = distances(fake, real), radii(real, k), radii(fake, k)
    found, other = precision_recall(real, fake, k), density_coverage(real, fake, k)
    assert found.precision == pytest.approx((d <= around_real).any(axis=1).mean())
    assert found.recall == pytest.approx((around_fake >= d.T).any(axis=1).mean())
    assert other.density == pytest.approx((d <= around_real).sum() / (k * 25))
    assert other.coverage == pytest.approx((d <= around_real).any(axis=0).mean())
    others = distances(real, real) <= around_real
    np.fill_diagonal(others, False)
    assert found.expected == pytest.approx(others.any(axis=1).mean())


def test_a_tight_cluster_inside_a_wide_set_is_precise_and_recalls_nothing():
    real, fake = normal(2, 500, 8), 1e-3 * normal(3, 500, 8)
    found, other = precision_recall(real, fake, 3), density_coverage(real, fake, 5)
    assert found.precision > 0.99
    assert found.recall < 0.01
    assert other.density > 1
    assert other.coverage < 0.35
    swapped = precision_recall(fake, real, 3)
    assert (swapped.precision, swapped.recall) == (found.recall, found.precision)


@pytest.mark.parametrize(("n", "m", "k"), [(40, 40, 1), (40, 80, 3), (80, 30, 5)])
def test_two_samples_of_one_distribution_give_what_is_expected(n, m, k):
    """Means over 300 draws, within four standard errors: density and coverage exactly, precision nearly."""
    rows = []
    for i in range(300):
        real, fake = normal((4, i), n, 4).exp(), normal((5, i), m, 4).exp()
        found, other = precision_recall(real, fake, k), density_coverage(real, fake, k)
        rows.append([other.density, other.coverage, found.precision - found.expected])
    mean, error = np.mean(rows, axis=0), np.std(rows, axis=0) / 300**0.5
    assert abs(mean[0] - 1) < 4 * error[0]
    assert abs(mean[1] - expected_coverage(n, m, k)) < 4 * error[1]
    assert abs(mean[2]) < 4 * error[2] + 0.01
    assert error[1] < 0.006


def test_expected_coverage_by_counting():
    """Two real others and two generated in any order about a real one, k = 1: empty where a real one comes first."""
    assert expected_coverage(3, 2, 1) == pytest.approx(1 - 2 / 4)
    assert expected_coverage(3, 2, 2) == pytest.approx(1 - 2 / 4 * 1 / 3)


def test_copies_lie_on_the_edge_of_the_balls_of_their_originals():
    """A generator that returns the training set: every copy is in, whatever the products round to."""
    real = normal(6, 300, 20) + 1000
    found, other = precision_recall(real, real.flip(0), 1), density_coverage(real, real.flip(0), 1)
    assert found.precision == found.recall == other.coverage == 1
    assert other.density == pytest.approx(2)  # in its own ball, and as the neighbour in another


@pytest.mark.parametrize("factor", [1e-150, 1e250])
def test_scale_and_shift_do_not_matter(factor):
    real, fake = normal(7, 60, 5), normal(8, 70, 5) * 0.8
    assert precision_recall(factor * real, factor * fake, 3) == precision_recall(real + 3, fake + 3, 3)
    assert density_coverage(factor * real, factor * fake, 3) == density_coverage(real + 3, fake + 3, 3)


def test_constant_features():
    found, other = (
        precision_recall(torch.ones(9, 4), torch.ones(7, 4), 2),
        density_coverage(torch.ones(9, 4), torch.zeros(7, 4), 2),
    )
    assert (found.precision, found.recall, found.expected) == (1, 1, 1)
    assert (other.density, other.coverage) == (0, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: precision_recall(torch.eye(4), torch.eye(4)[:2], 2), "k must lie in 1 … 1, below the number"),
        (lambda: precision_recall(torch.eye(4), torch.eye(4), 0), "got 0"),
        (lambda: density_coverage(torch.eye(4), torch.eye(4), 4), "k must lie in 1 … 3"),
        (lambda: density_coverage(torch.eye(4), torch.eye(3), 1), "one length, got 4 and 3"),
        (lambda: density_coverage(torch.eye(4), torch.eye(4)[:0], 1), "at least one image"),
        (lambda: precision_recall(torch.eye(4) * math.nan, torch.eye(4), 1), "NaN or infinity"),
        (lambda: expected_coverage(5, 0, 1), "5 real and 0 generated"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(InputError, match=message):
        call()

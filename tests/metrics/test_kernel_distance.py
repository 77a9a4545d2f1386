import math

import numpy as np
import pytest
import torch

from headfirst.errors import InputError
from headfirst.metrics import kernel, kernel_distance


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def brute_force(a, b):
    def k(x, y):
        return (float(np.dot(x, y)) / len(x) + 1) ** 3

    a, b = a.numpy(), b.numpy()
    n, m = len(a), len(b)
    aa = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    bb = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return aa + bb - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


@pytest.mark.parametrize("block", [1, 7 * 13, 2**20])
def test_is_the_sum_over_pairs_whatever_the_blocks(block, monkeypatch):
    monkeypatch.setattr(kernel, "_BLOCK", block)
    a, b = normal(0, 29, 6), 1.5 * normal(1, 13, 6) + 0.5
    found = kernel_distance(a, b)
    assert found.value == found.corrected == pytest.approx(brute_force(a, b), rel=1e-11)
    assert kernel_distance(b, a).high == pytest.approx(found.high)


def test_unbiased_for_known_moments():
    """N(0, 1) and N(μ, 1) differ by μ, μ² and μ³ + 3μ in their moments, which (xy + 1)³ weighs 3, 3 and 1."""
    mu = 0.5
    truth = 3 * mu**2 + 3 * (mu**2) ** 2 + (mu**3 + 3 * mu) ** 2
    found = [kernel_distance(normal((2, i), 40, 1), normal((3, i), 60, 1) + mu) for i in range(800)]
    corrected = np.array([one.corrected for one in found])
    assert abs(corrected.mean() - truth) < 3 * corrected.std() / 800**0.5
    assert corrected.std() / 800**0.5 < truth / 15


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_intervals_hold_the_truth(shift):
    d = 8
    s = shift**2 * d  # |μ|²; E k of independent x ~ N(μ, I), y ~ N(ν, I) needs E (x·y)^p

    def moments(mm, nn, mn):
        first = mn
        second = mn**2 + mm + nn + d
        third = mn**3 + 3 * mn * (mm + nn + d) + 6 * mn
        return 1 + 3 * first / d + 3 * second / d**2 + third / d**3

    truth = moments(0, 0, 0) + moments(s, s, s) - 2 * moments(0, s, 0)
    found = [kernel_distance(normal((4, i), 60, d), normal((5, i), 80, d) + shift) for i in range(200)]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.92
    spread = np.std([one.corrected for one in found])
    assert np.mean([one.high - max(one.corrected, 0) for one in found]) < 1.96 * 2 * spread
    assert abs(np.mean([one.corrected for one in found]) - truth) < 3 * spread / 200**0.5


@pytest.mark.parametrize("block", [1, 50, 29 * 12, 2**20])
def test_the_halves_of_a_symmetric_kernel_are_the_whole(block, monkeypatch):
    """Means by row and what rows leave of the variance, from the whole matrix of kernel values."""
    monkeypatch.setattr(kernel, "_BLOCK", block)
    a = normal(7, 29, 6) + 0.3
    whole = ((a @ a.T / 6 + 1) ** 3).fill_diagonal_(0)
    found = kernel._within(a)
    by_row = whole.sum(dim=1) / 28
    left = whole.square().sum() / (29 * 28) - 2 * by_row.var(correction=0) - by_row.mean() ** 2
    assert found.rows.tolist() == pytest.approx(by_row.tolist(), rel=1e-12)
    assert found.interaction == pytest.approx(left.item(), rel=1e-12)


def test_identical_and_constant_features():
    a = normal(6, 30, 4)
    same = kernel_distance(a, a)
    assert same.corrected < 0 == same.low < same.high
    constant = kernel_distance(torch.ones(5, 4), 2 * torch.ones(6, 4))
    assert constant.value == pytest.approx(8 + 125 - 2 * 27)
    assert constant.low == constant.high == constant.value  # nothing varies, so nothing is uncertain
    huge = kernel_distance(1e23 * a, a)
    assert math.isfinite(huge.value)
    assert math.isfinite(huge.low)
    assert math.isfinite(huge.high)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.eye(3)[:1], torch.eye(3), "at least 2 images on either side, got 1 and 3"),
        (torch.eye(3), torch.eye(4), "one length, got 3 and 4"),
        (torch.eye(3), math.inf * torch.ones(3, 3), "NaN or infinity"),
        (torch.eye(3), 1e60 * torch.eye(3).double(), "within ± 1e\\+24"),
    ],
)
def test_refuses(a, b, message):
    with pytest.raises(InputError, match=message):
        kernel_distance(a, b)

import math

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.special
import scipy.stats
import sklearn.covariance
import sklearn.metrics
import sklearn.neighbors
import sklearn.preprocessing
import torch

from headfirst.errors import InputError
from headfirst.metrics import (
    Mahalanobis,
    auroc,
    auroc_interval,
    energy,
    false_positive_rate,
    max_softmax,
    neighbour_distance,
)


def normal(seed, *shape, shift=0.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, 1.0, shape))


def test_scores_of_logits_are_scipys():
    z = 5 * normal(0, 40, 7)
    assert max_softmax(z).numpy() == pytest.approx(scipy.special.softmax(z.numpy(), axis=1).max(axis=1))
    for temperature in (0.1, 1.0, 20.0):
        expected = temperature * scipy.special.logsumexp(z.numpy() / temperature, axis=1)
        assert energy(z, temperature).numpy() == pytest.approx(expected)
    assert max_softmax(z + 1000).numpy() == pytest.approx(max_softmax(z).numpy())
    assert energy(z + 1000).numpy() == pytest.approx(energy(z).numpy() + 1000)


@pytest.mark.parametrize("k", [1, 5, 30])
def test_neighbour_distance_is_scikit_learns(k, monkeypatch):
    monkeypatch.setattr("headfirst.metrics.detection._ENTRIES_AT_ONCE", 200)  # several blocks
    features, home = normal(0, 50, 6), normal(1, 30, 6)
    unit = sklearn.preprocessing.normalize
    tree = sklearn.neighbors.NearestNeighbors(n_neighbors=k).fit(unit(home.numpy()))
    expected = -tree.kneighbors(unit(features.numpy()))[0][:, -1]
    assert neighbour_distance(features, home, k).numpy() == pytest.approx(expected)
    assert neighbour_distance(7 * features, home / 9, k).numpy() == pytest.approx(expected)


def test_small_neighbour_distances_are_exact():
    """A direction turned by 1e-10 is 1e-10 away; 2 - 2 cos would say 0."""
    home = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    turned = torch.tensor([[1.0, 1e-10]], dtype=torch.float64)
    assert neighbour_distance(turned, home, 1).item() == pytest.approx(-1e-10, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(200, 5), (30, 60), (12, 1)])
def test_mahalanobis_is_scikit_learns_and_scipys(n, d):
    labels = torch.arange(n) % 3 + 2 * (torch.arange(n) % 3 == 2)  # 0, 1 and 4: classes without images are left out
    means = 10 * normal(0, 5, d)
    features = 1000 + means[labels] + normal(1, n, d) * torch.linspace(0.3, 3, d)
    x, y = features.numpy(), labels.numpy()
    centres = {k: x[y == k].mean(axis=0) for k in (0, 1, 4)}
    residuals = np.stack([row - centres[k] for row, k in zip(x, y, strict=True)])
    covariance = sklearn.covariance.LedoitWolf(assume_centered=True).fit(residuals).covariance_
    fitted = Mahalanobis.fit(features, labels)
    assert fitted.covariance.numpy() == pytest.approx(covariance)
    new = 1000 + 5 * normal(2, 20, d)
    inverse = np.linalg.inv(covariance)
    expected = [
        -min(scipy.spatial.distance.mahalanobis(row, c, inverse) ** 2 for c in centres.values()) for row in new.numpy()
    ]
    assert fitted(new).numpy() == pytest.approx(expected)
    assert fitted(fitted.means).numpy() == pytest.approx(0, abs=1e-18)


def test_mahalanobis_does_not_depend_on_the_axes():
    rotation = torch.linalg.qr(normal(3, 6, 6)).Q
    features, labels, new = normal(0, 40, 6), torch.arange(40) % 4, normal(1, 9, 6)
    turned = Mahalanobis.fit(features @ rotation + 3, labels)(new @ rotation + 3)
    torch.testing.assert_close(turned, Mahalanobis.fit(features, labels)(new))


def integers(seed, n, high):
    """Scores with many ties."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, high, n)).double()


@pytest.mark.parametrize("seed", range(5))
def test_auroc_and_false_positive_rate_are_scikit_learns(seed):
    for home, away in (
        (normal(seed, 60, shift=1.0), normal(seed + 10, 45)),
        (integers(seed, 60, 6) + 1, integers(seed + 10, 45, 6)),
    ):
        truth, scores = np.repeat([1, 0], [60, 45]), np.concatenate([home, away])
        assert auroc(home, away) == pytest.approx(sklearn.metrics.roc_auc_score(truth, scores))
        fpr, tpr, _ = sklearn.metrics.roc_curve(truth, scores, drop_intermediate=False)
        for rate in (0.05, 0.5, 0.95, 1.0):
            assert false_positive_rate(home, away, rate) == pytest.approx(fpr[np.argmax(tpr >= rate - 1e-12)])


def test_auroc_counts_pairs():
    home, away = integers(0, 13, 4), integers(1, 8, 4)
    pairs = [(a > b) + 0.5 * (a == b) for a in home.tolist() for b in away.tolist()]
    assert auroc(home, away) == pytest.approx(np.mean(pairs))
    assert auroc(away, home) == pytest.approx(1 - np.mean(pairs))
    assert auroc(home.exp(), away.exp()) == auroc(home, away)


def test_auroc_interval_is_the_bootstrap():
    """Against resampling the pairs' matrix, and DeLong's variance."""
    home, away = normal(0, 80, shift=0.8), normal(1, 120)
    found = auroc_interval(home, away, seed=0)
    wins = (home[:, None] > away).double()
    random, draws = np.random.default_rng(5), []
    for _ in range(2000):
        rows, columns = random.integers(80, size=80), random.integers(120, size=120)
        draws.append(wins[rows][:, columns].mean().item())
    assert found.value == pytest.approx(wins.mean().item())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.01)
    delong = math.sqrt(wins.mean(1).var().item() / 80 + wins.mean(0).var().item() / 120)
    assert found.high - found.low == pytest.approx(2 * 1.96 * delong, rel=0.1)
    assert found == auroc_interval(home, away, seed=0)
    assert found != auroc_interval(home, away, seed=1)


def test_auroc_interval_covers():
    """Normal scores a distance apart: the truth is Φ(distance / √2)."""
    trials, covered, truth = 200, 0, scipy.stats.norm.cdf(1.2 / math.sqrt(2))
    for trial in range(trials):
        home, away = normal(2 * trial, 90, shift=1.2), normal(2 * trial + 1, 60)
        found = auroc_interval(home, away, seed=0, num_draws=400)
        covered += found.low <= truth <= found.high
    low, high = scipy.stats.binom.interval(0.999, trials, 0.95)
    assert low - 0.02 * trials <= covered <= high  # the percentile bootstrap is a little narrow


@pytest.mark.parametrize(("n", "m"), [(1, 1), (40, 7), (10, 300)])
def test_no_interval_has_zero_width(n, m):
    """No overlap: Clopper-Pearson of min(n, m) pairs that all agree. All equal: half of its bound to either side."""
    u = 1 - 0.025 ** (1 / min(n, m))
    apart = auroc_interval(torch.ones(n), torch.zeros(m), seed=0)
    assert (apart.value, apart.low, apart.high) == (1.0, pytest.approx(1 - u), 1.0)
    reversed_ = auroc_interval(torch.zeros(n), torch.ones(m), seed=0)
    assert (reversed_.value, reversed_.low, reversed_.high) == (0.0, 0.0, pytest.approx(u))
    equal = auroc_interval(torch.ones(n), torch.ones(m), seed=0)
    assert (equal.value, equal.low, equal.high) == (0.5, pytest.approx(0.5 - u / 2), pytest.approx(0.5 + u / 2))


X, Y, ONE = torch.ones(3, 2), torch.zeros(3).long(), torch.ones(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: max_softmax(torch.tensor([[0.2, 0.8]])), "pass their logarithms"),
        (lambda: energy(torch.tensor([[math.inf, 0.0]])), "infinite one at row 0"),
        (lambda: energy(torch.tensor([[2.0, 0.0]]), 0.0), "positive and finite, got 0"),
        (lambda: neighbour_distance(X, X, 4), r"1 … 3, the number of home features, got 4"),
        (lambda: neighbour_distance(X, X, 0), "got 0"),
        (lambda: neighbour_distance(X * 0, X, 1), "all zero has no direction, got one at row 0"),
        (lambda: neighbour_distance(X * math.nan, X, 1), "finite, got NaN or infinity at row 0"),
        (lambda: neighbour_distance(X[:0], X, 1), r"shape \(0, 2\)"),
        (lambda: Mahalanobis.fit(X, Y - 1), "leave unlabelled images"),
        (lambda: Mahalanobis.fit(X, Y), "equal within each class"),
        (lambda: Mahalanobis.fit(normal(0, 3, 2), torch.arange(3)), "equal within each class"),
        (lambda: auroc(ONE, ONE[:0]), "at least one row"),
        (lambda: auroc(ONE * math.nan, ONE), "got NaN"),
        (lambda: auroc_interval(ONE[:0], ONE, seed=0), "at least one row"),
        (lambda: auroc_interval(ONE, ONE, seed=0, level=95.0), "level must lie strictly"),
        (lambda: false_positive_rate(ONE, ONE, 0.0), r"must lie in \(0, 1\], got 0"),
        (lambda: false_positive_rate(ONE[:0], ONE), "at least one row"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(InputError, match=message):
        call()

import math

import numpy as np
import pytest
import scipy.stats
import torch

from headfirst.errors import InputError
from headfirst.metrics import adaptive_scores, conformal_threshold, least_ambiguous_scores, prediction_sets


def probabilities(n=200, k=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(n, k, generator=random, dtype=torch.float64)).softmax(1)


def test_least_ambiguous_scores():
    p = probabilities()
    assert torch.equal(least_ambiguous_scores(p), 1 - p)


@pytest.mark.parametrize("randomised", [False, True])
def test_adaptive_scores_class_by_class(randomised):
    p = probabilities(50)
    p[:20] = torch.tensor([0.1, 0.3, 0.3, 0.2, 0.1])  # ties
    u = torch.rand(50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = adaptive_scores(p, u if randomised else None)
    for i, row in enumerate(p.tolist()):
        for k, value in enumerate(row):
            more, equal = sum(q for q in row if q > value), sum(q for q in row if q == value)
            expected = more + (u[i].item() if randomised else 1) * equal
            assert found[i, k].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_randomised_scores_of_true_probabilities_are_uniform(tied):
    random = torch.Generator().manual_seed(2)
    p = probabilities(5000)
    if tied:
        p = torch.tensor([[0.25, 0.25, 0.5]], dtype=torch.float64).expand(5000, 3)
    labels = torch.multinomial(p, 1, generator=random)
    scores = adaptive_scores(p, torch.rand(5000, generator=random, dtype=torch.float64)).gather(1, labels)
    assert scipy.stats.kstest(scores[:, 0].numpy(), "uniform").pvalue > 0.01


def test_adaptive_scores_end_at_exactly_one():
    """The least likely class scores 1 in every row, however float32 rounded its sum: none is left out for that."""
    found = adaptive_scores(probabilities(300).float())
    assert (found.amax(1) == 1).all()
    assert (found > 0).all()


@pytest.mark.parametrize("n", [*range(1, 40), 99, 499])
def test_threshold_is_the_exact_rank(n):
    """In whole numbers: ⌈(n + 1)(100 - percent) / 100⌉, with no rounding to go wrong."""
    scores = torch.randperm(n, generator=torch.Generator().manual_seed(n)).double() + 1  # the rank itself
    for percent in range(1, 100):
        rank = -((n + 1) * (percent - 100) // 100)
        assert conformal_threshold(scores, percent / 100) == (rank if rank <= n else math.inf)


def test_threshold_where_floating_point_would_err():
    assert conformal_threshold(torch.arange(1.0, 20.0), 0.1) == 18
    # (49 + 1) * (1 - 0.42) is 29.000000000000004 in float64.
    assert math.ceil(50 * (1 - 0.42)) == 30
    assert conformal_threshold(torch.arange(1.0, 50.0), 0.42) == 29
    assert conformal_threshold(torch.arange(1.0, 20.0), np.float64(0.1)) == 18


def test_equal_scores_count_each():
    assert conformal_threshold(torch.tensor([0.2, 0.2, 0.2, 0.9]), 0.4) == pytest.approx(0.2)
    assert conformal_threshold(torch.tensor([0.2, 0.2, 0.2, 0.9]), 0.3) == pytest.approx(0.9)


@pytest.mark.parametrize(("n", "alpha"), [(50, 0.1), (20, 0.05), (15, 0.05)])
@pytest.mark.parametrize("rule", ["least", "adaptive", "randomised"])
def test_marginal_coverage(n, alpha, rule):
    """A wrong model still covers ⌈(n + 1)(1 - α)⌉/(n + 1) on average, exactly; within four standard errors."""
    trials, fresh, covered = 300, 100, []
    for trial in range(trials):
        random = torch.Generator().manual_seed(trial)
        z = torch.randn(n + fresh, 4, generator=random, dtype=torch.float64)
        labels = torch.multinomial(z.softmax(1), 1, generator=random)
        p = (3 * z + torch.tensor([1.0, 0.0, 0.0, 0.0])).softmax(1)  # overconfident, and fond of one class
        u = torch.rand(len(p), generator=random, dtype=torch.float64)
        scores = {
            "least": least_ambiguous_scores(p),
            "adaptive": adaptive_scores(p),
            "randomised": adaptive_scores(p, u),
        }[rule]
        threshold = conformal_threshold(scores[:n].gather(1, labels[:n])[:, 0], alpha)
        covered.append(prediction_sets(scores[n:], threshold).gather(1, labels[n:]).double().mean().item())
    expected = min(1.0, math.ceil(round((n + 1) * (1 - alpha), 9)) / (n + 1))
    tolerance = 4 * np.std(covered) / math.sqrt(trials) + 1e-12
    # Adaptive scores of 1 are tied among images, and ties only add coverage.
    above = 0.05 if rule == "adaptive" else tolerance
    assert -tolerance <= np.mean(covered) - expected <= above


def test_sets_hold_what_scores_at_most_the_threshold():
    scores = torch.tensor([[0.1, 0.5, 0.9], [0.5, 0.6, 0.7]])
    assert prediction_sets(scores, 0.5).tolist() == [[True, True, False], [True, False, False]]
    assert prediction_sets(scores, math.inf).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: least_ambiguous_scores(torch.tensor([[2.0, 1.0]])), "apply softmax to logits first"),
        (lambda: adaptive_scores(torch.tensor([[2.0, 1.0]])), "apply softmax to logits first"),
        (lambda: adaptive_scores(torch.zeros(0, 2)), "at least one row"),
        (lambda: adaptive_scores(torch.tensor([[0.5, 0.5]]), torch.tensor([1.0])), r"\[0, 1\)"),
        (lambda: conformal_threshold(torch.tensor([0.1]), 0.0), "strictly between 0 and 1, got 0"),
        (lambda: conformal_threshold(torch.tensor([0.1]), 1.0), "strictly between 0 and 1, got 1"),
        (lambda: conformal_threshold(torch.tensor([0.1]), math.nan), "strictly between 0 and 1, got nan"),
        (lambda: conformal_threshold(torch.zeros(0), 0.1), "at least one row"),
        (lambda: conformal_threshold(torch.tensor([math.nan]), 0.1), "got NaN at row 0"),
        (lambda: prediction_sets(torch.tensor([[0.1]]), math.nan), "must be a number, got NaN"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(InputError, match=message):
        call()

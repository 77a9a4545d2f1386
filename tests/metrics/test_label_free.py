import math

import numpy as np
import pytest
import torch

from headfirst.errors import InputError
from headfirst.metrics import (
    accuracy,
    agreement,
    average_confidence,
    average_thresholded_confidence,
    fit_confidence_threshold,
)


def calibrated(n, seed=0, shift=0.0):
    """Probabilities and labels drawn from them."""
    random = torch.Generator().manual_seed(seed)
    p = (2 * torch.randn(n, 4, generator=random, dtype=torch.float64) + shift).softmax(1)
    return p, torch.multinomial(p, 1, generator=random)[:, 0]


def two_classes(confidences):
    top = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([top, 1 - top], dim=1)


def test_average_confidence_is_the_accuracy_of_a_calibrated_model():
    """Within four binomial standard errors."""
    p, labels = calibrated(20_000)
    assert average_confidence(p) == pytest.approx(p.max(1).values.mean().item())
    assert average_confidence(p) == pytest.approx(accuracy(p, labels), abs=4 * 0.5 / math.sqrt(20_000))


@pytest.mark.parametrize("n", [1, 2, 37, 1000])
def test_the_share_above_the_threshold_is_the_accuracy_where_it_was_fitted(n):
    p, labels = calibrated(n, seed=n)
    threshold = fit_confidence_threshold(p, labels)
    assert average_thresholded_confidence(p, threshold) == accuracy(p, labels)


def test_the_threshold_carries_over_where_a_confidence_means_the_same():
    """Labels drawn from the same probabilities, images elsewhere: right where the share was right."""
    p, _ = calibrated(40_000, seed=1)
    confidence = p.max(1).values
    labels = torch.where(confidence > 0.7, p.argmax(1), (p.argmax(1) + 1) % 4)  # right above 0.7 and only there
    threshold = fit_confidence_threshold(p, labels)
    assert threshold == pytest.approx(0.7, abs=1e-3)
    q, _ = calibrated(5000, seed=2, shift=torch.tensor([1.5, 0.0, 0.0, 0.0]))
    truth = (q.max(1).values > 0.7).double().mean().item()
    assert average_thresholded_confidence(q, threshold) == pytest.approx(truth, abs=0.003)


@pytest.mark.parametrize(("right", "expected"), [(0, math.inf), (1, math.inf), (2, 0.9), (3, 0.9), (4, 0.8), (5, 0.6)])
def test_ties_take_the_nearest_share(right, expected):
    """Three images at 0.9, one at 0.8, two at 0.6: shares 0, 3/6, 4/6 and 6/6 can be had."""
    p = two_classes([0.9, 0.9, 0.9, 0.8, 0.6, 0.6])
    labels = (torch.arange(6) >= right).long()
    expected = 0.8 if right == 5 else expected  # 5 is as near to 4 as to 6: the larger threshold
    assert fit_confidence_threshold(p, labels) == (math.inf if expected == math.inf else pytest.approx(expected))


def test_no_image_reaches_infinity():
    assert average_thresholded_confidence(two_classes([1.0, 0.9]), math.inf) == 0


def test_agreement():
    random = np.random.default_rng(0)
    a, b = torch.from_numpy(random.random((100, 3))), torch.from_numpy(random.random((100, 3)))
    assert agreement(a, b) == np.mean(a.numpy().argmax(1) == b.numpy().argmax(1))
    assert agreement(a, b) == agreement(b, 5 * a - 1)
    assert agreement(a, a) == 1
    assert agreement(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 0.0]])) == 1  # ties go to the first class


def test_agreement_forecasts_the_accuracy_of_an_ensemble_that_is_calibrated():
    """Two models that each answer at random with the true probabilities agree as often as either is right."""
    p, labels = calibrated(40_000, seed=3)
    random = torch.Generator().manual_seed(4)
    a, b = (torch.eye(4)[torch.multinomial(p, 1, generator=random)[:, 0]] for _ in range(2))
    assert agreement(a, b) == pytest.approx(accuracy(a, labels), abs=4 * 0.71 / math.sqrt(40_000))


P = torch.tensor([[0.5, 0.5]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: average_confidence(torch.tensor([[3.0, 1.0]])), "apply softmax to logits first"),
        (lambda: average_confidence(torch.zeros(0, 2)), "at least one row"),
        (lambda: fit_confidence_threshold(P, torch.tensor([2])), "labels must lie in 0 … 1, got 2"),
        (lambda: fit_confidence_threshold(2 * P, torch.tensor([1])), "apply softmax to logits first"),
        (lambda: average_thresholded_confidence(P, math.nan), "must be a number, got NaN"),
        (lambda: agreement(P, torch.ones(3, 2)), "got 1 and 3"),
        (lambda: agreement(P, torch.tensor([[math.nan, 0.0]])), "NaN at row 0"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(InputError, match=message):
        call()

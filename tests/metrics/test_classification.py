import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headfirst.errors import InputError
from headfirst.metrics import (
    accuracy,
    balanced_accuracy,
    brier_score,
    confusion_matrix,
    log_loss,
    negative_log_likelihood,
    per_class_accuracy,
)

K = 4
draws = st.integers(2, 60).flatmap(
    lambda n: st.tuples(
        arrays.arrays(np.float64, (n, K), elements=st.floats(-8, 8, width=32), unique=True),
        arrays.arrays(np.int64, (n,), elements=st.integers(0, K - 1)),
    )
)


@settings(max_examples=30, deadline=None)
@given(draws)
def test_agrees_with_scikit_learn(drawn):
    logits, labels = map(torch.from_numpy, drawn)
    predicted, true = logits.argmax(1).numpy(), labels.numpy()
    p = logits.softmax(1)
    classes = list(range(K))
    one_hot = np.eye(K)[true]

    assert accuracy(logits, labels) == pytest.approx(sklearn.metrics.accuracy_score(true, predicted))
    assert (
        confusion_matrix(logits, labels).numpy() == sklearn.metrics.confusion_matrix(true, predicted, labels=classes)
    ).all()
    with np.errstate(all="ignore"):
        recall = sklearn.metrics.recall_score(true, predicted, labels=classes, average=None, zero_division=np.nan)
    assert per_class_accuracy(logits, labels).numpy() == pytest.approx(recall, nan_ok=True)
    assert balanced_accuracy(logits, labels) == pytest.approx(np.nanmean(recall))
    expected = sklearn.metrics.log_loss(true, p.numpy(), labels=classes)
    assert negative_log_likelihood(logits, labels) == pytest.approx(expected, abs=1e-12)
    assert log_loss(p.log(), labels) == pytest.approx(expected, abs=1e-12)
    assert brier_score(p, labels) == pytest.approx(((p.numpy() - one_hot) ** 2).sum(1).mean(), abs=1e-12)


def test_log_loss_clips_at_epsilon_and_nll_does_not():
    certain = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    label = torch.tensor([1])
    sklearn_says = sklearn.metrics.log_loss([1], certain.numpy(), labels=[0, 1])
    assert log_loss(certain.log(), label) == pytest.approx(sklearn_says)
    assert log_loss(certain.log(), label) == pytest.approx(36.0437, abs=1e-4)
    assert negative_log_likelihood(torch.tensor([[100.0, 0.0]]), label) == pytest.approx(100.0)


def test_float32_logits_are_summed_in_float64():
    logits = torch.randn(20_000, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(20_000, dtype=torch.int64)
    exact = -logits.double().log_softmax(1)[:, 0].mean().item()
    assert abs(negative_log_likelihood(logits, labels) - exact) < 1e-12


def test_equal_scores_go_to_the_first_class():
    assert accuracy(torch.ones(2, 3), torch.tensor([0, 1])) == 0.5


def test_a_class_without_images_is_nan_and_does_not_count():
    scores = torch.eye(3)[[0, 1]]
    assert math.isnan(per_class_accuracy(scores, torch.tensor([0, 1]))[2])
    assert balanced_accuracy(scores, torch.tensor([0, 1])) == 1.0


@pytest.mark.parametrize(
    ("metric", "scores", "labels", "message"),
    [
        (accuracy, torch.ones(0, 3), torch.ones(0, dtype=torch.int64), "at least one row"),
        (accuracy, torch.ones(2, 3), torch.tensor([0, -1]), r"0 … 2, got -1 at row 1"),
        (accuracy, torch.ones(2, 3), torch.tensor([3, 0]), r"0 … 2, got 3 at row 0"),
        (confusion_matrix, torch.tensor([[1.0, float("nan")]]), torch.tensor([0]), "NaN at row 0"),
        (brier_score, torch.tensor([[2.0, 1.0]]), torch.tensor([0]), r"sum 3; apply softmax"),
        (brier_score, torch.tensor([[1.5, -0.5]]), torch.tensor([0]), r"minimum -0.5"),
        (log_loss, torch.tensor([[0.5, 0.5]]), torch.tensor([0]), "apply log_softmax"),
    ],
)
def test_refuses(metric, scores, labels, message):
    with pytest.raises(InputError, match=message):
        metric(scores, labels)

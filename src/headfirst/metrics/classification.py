"""How often, and how surely, a classifier is right.

Shape letters: N images, K classes. `scores` are anything whose largest entry is the prediction (logits,
similarities, probabilities); where probabilities or logits are due, the name says so and they are checked.
Equal scores go to the first class. Everything is computed in float64.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.metrics.checks import (
    as_float64,
    check_log_probabilities,
    check_probabilities,
    check_scores,
)

LOG_LOSS_FLOOR = math.log(torch.finfo(torch.float64).eps)
"""Log-probabilities of the true class are read as no lower than this (-36.04): see `log_loss`."""


def accuracy(scores: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Share of rows whose largest score is the label's, in [0, 1].

    Raises:
        InputError: no rows, a label outside 0 … K-1, a NaN score.

    >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0]]), torch.tensor([0, 1, 1]))
    0.6666666666666666
    """
    check_scores(scores, labels)
    return (scores.argmax(dim=1) == labels).double().mean().item()


def per_class_accuracy(scores: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, " k"]:
    """Accuracy within each class (recall), (K,) float64 in [0, 1]; NaN for a class without images.

    >>> per_class_accuracy(torch.eye(3)[[0, 0, 1]], torch.tensor([0, 1, 1]))
    tensor([1.0000, 0.5000,    nan], dtype=torch.float64)
    """
    counts = confusion_matrix(scores, labels).double()
    return counts.diagonal() / counts.sum(dim=1)


def balanced_accuracy(scores: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Mean of `per_class_accuracy` over the classes that have images, in [0, 1].

    >>> balanced_accuracy(torch.eye(3)[[0, 0, 1]], torch.tensor([0, 1, 1]))
    0.75
    """
    return per_class_accuracy(scores, labels).nanmean().item()


def confusion_matrix(scores: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Int[Tensor, "k k"]:
    """Counts, int64: entry (i, j) is the number of images of class i called class j.

    >>> confusion_matrix(torch.eye(2)[[0, 0, 1]], torch.tensor([0, 1, 1]))
    tensor([[1, 0],
            [1, 1]])
    """
    check_scores(scores, labels)
    k = scores.shape[1]
    pairs = labels.long() * k + scores.argmax(dim=1)
    return torch.bincount(pairs, minlength=k * k).reshape(k, k)


def negative_log_likelihood(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Mean of -log softmax(logits)[label], in nats, in [0, ∞).

    Takes logits (unbounded), not probabilities; nothing is clipped. For log-probabilities with exact
    zeros, as a nearest-neighbour vote gives, see `log_loss`.

    >>> round(negative_log_likelihood(torch.zeros(1, 4), torch.tensor([2])), 6)   # log 4
    1.386294
    """
    check_scores(logits, labels)
    return torch.nn.functional.cross_entropy(as_float64(logits), labels.long().cpu()).item()


def log_losses(log_probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The terms of `log_loss`, one for each row, (N,) float64 in [0, 36.04] nats."""
    check_log_probabilities(log_probabilities, labels)
    true_class = as_float64(log_probabilities).gather(1, labels.long().cpu()[:, None])[:, 0]
    return -true_class.clamp(min=LOG_LOSS_FLOOR, max=0.0)


def log_loss(log_probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Mean of -log p(label), in nats, in [0, 36.04].

    Convention: a probability below the float64 epsilon (2.2e-16; exactly 0 among them) counts as that
    epsilon, as `sklearn.metrics.log_loss` does, so one confident vote against the truth costs 36.04
    nats and not infinity. `Report` states the same in its schema.

    Args:
        log_probabilities: natural logarithms of rows that sum to one; -inf is allowed.

    >>> round(log_loss(torch.tensor([[0.25, 0.75], [1.0, 0.0]]).log(), torch.tensor([0, 0])), 6)   # log 2
    0.693147
    """
    return log_losses(log_probabilities, labels).mean().item()


def brier_scores(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The terms of `brier_score`, one for each row, (N,) float64 in [0, 2]."""
    check_probabilities(probabilities, labels)
    error = as_float64(probabilities).clone()
    error[torch.arange(len(labels)), labels.long().cpu()] -= 1
    return error.square().sum(dim=1)


def brier_score(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Mean over rows of Σ_k (p_k - 1[k = label])², in [0, 2] (Brier 1950, all classes summed).

    >>> brier_score(torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([0, 0]))
    0.25
    """
    return brier_scores(probabilities, labels).mean().item()

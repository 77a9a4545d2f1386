"""What metrics refuse: no rows, labels outside the classes, what are no numbers or not those asked for."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.errors import InputError

SUM_TOLERANCE = 1e-3
"""float32 softmax over a thousand classes is off by about 1e-6; half precision by 1e-3."""


def check_numbers(scores: Float[Tensor, "n k"]) -> None:
    """Refuse an empty split and a NaN score."""
    if len(scores) == 0:
        raise InputError("a metric needs at least one row, got none; is the split empty?")
    if scores.isnan().any():
        row = int(scores.isnan().any(dim=1).nonzero()[0])
        raise InputError(f"scores must be numbers, got NaN at row {row}; did training diverge?")


def check_scores(scores: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> None:
    """`check_numbers`, and refuse a label outside 0 … K-1."""
    check_numbers(scores)
    k = scores.shape[1]
    outside = (labels < 0) | (labels >= k)
    if outside.any():
        row = int(outside.nonzero()[0])
        raise InputError(
            f"labels must lie in 0 … {k - 1}, got {int(labels[row])} at row {row}; "
            "leave unlabelled images (-1) out before measuring"
        )


def check_probabilities(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> None:
    """`check_scores` and `check_distributions`."""
    check_scores(probabilities, labels)
    check_distributions(probabilities)


def check_distributions(probabilities: Float[Tensor, "n k"]) -> None:
    """`check_numbers`, and refuse rows that are not distributions (logits, similarities, percentages)."""
    check_numbers(probabilities)
    sums = probabilities.double().sum(dim=1)
    wrong = (probabilities < 0).any(dim=1) | ((sums - 1).abs() > SUM_TOLERANCE)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise InputError(
            f"probabilities must be non-negative and sum to 1, got row {row} with minimum "
            f"{probabilities[row].min().item():.4g} and sum {sums[row].item():.4g}; "
            "apply softmax to logits first"
        )


def check_logits(logits: Float[Tensor, "n k"]) -> None:
    """`check_numbers`, and refuse infinite logits and what can only be probabilities."""
    check_numbers(logits)
    if logits.isinf().any():
        row = int(logits.isinf().any(dim=1).nonzero()[0])
        raise InputError(
            f"logits must be finite, got an infinite one at row {row}; probabilities that are exactly 0 have no logits"
        )
    if bool((logits >= 0).all() and ((logits.double().sum(dim=1) - 1).abs() <= SUM_TOLERANCE).all()):
        raise InputError(
            "need logits, but no entry is negative and every row sums to 1, as probabilities do; pass their logarithms"
        )


def check_features(features: Float[Tensor, "n d"]) -> None:
    """Refuse no rows, and features that are not finite."""
    if 0 in features.shape:
        raise InputError(f"need features of at least one image, got shape {tuple(features.shape)}; is the split empty?")
    if not features.isfinite().all():
        row = int((~features.isfinite()).any(dim=1).nonzero()[0])
        raise InputError(f"features must be finite, got NaN or infinity at row {row}; did training diverge?")


def check_log_probabilities(log_probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> None:
    """`check_scores`, and refuse rows whose exponentials do not sum to one."""
    check_scores(log_probabilities, labels)
    log_sums = log_probabilities.double().logsumexp(dim=1)
    if (wrong := ~(log_sums.abs() <= SUM_TOLERANCE)).any():
        row = int(wrong.nonzero()[0])
        raise InputError(
            f"the exponentials of log-probabilities must sum to 1, got log-sum "
            f"{log_sums[row].item():.4g} at row {row}; apply log_softmax to logits first"
        )


def as_float64(scores: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Statistics are computed in float64, on the CPU, without a graph."""
    return scores.detach().to(device="cpu", dtype=torch.float64)

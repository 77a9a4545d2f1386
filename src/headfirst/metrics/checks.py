"""What every metric refuses: no rows, labels outside the classes, scores that are not numbers."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.errors import InputError


def check_scores(scores: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> None:
    """Refuse an empty split, a label outside 0 … K-1 and a NaN score."""
    n, k = scores.shape
    if n == 0:
        raise InputError("a metric needs at least one row, got none; is the split empty?")
    outside = (labels < 0) | (labels >= k)
    if outside.any():
        row = int(outside.nonzero()[0])
        raise InputError(
            f"labels must lie in 0 … {k - 1}, got {int(labels[row])} at row {row}; "
            "leave unlabelled images (-1) out before measuring"
        )
    if scores.isnan().any():
        row = int(scores.isnan().any(dim=1).nonzero()[0])
        raise InputError(f"scores must be numbers, got NaN at row {row}; did training diverge?")


def check_probabilities(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> None:
    """`check_scores`, and refuse rows that are not distributions (logits, similarities, percentages)."""
    check_scores(probabilities, labels)
    # float32 softmax over a thousand classes is off by about 1e-6; half precision by 1e-3.
    sums = probabilities.double().sum(dim=1)
    wrong = (probabilities < 0).any(dim=1) | ((sums - 1).abs() > 1e-3)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise InputError(
            f"probabilities must be non-negative and sum to 1, got row {row} with minimum "
            f"{probabilities[row].min().item():.4g} and sum {sums[row].item():.4g}; "
            "apply softmax to logits first"
        )


def check_log_probabilities(log_probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> None:
    """`check_scores`, and refuse rows whose exponentials do not sum to one."""
    check_scores(log_probabilities, labels)
    log_sums = log_probabilities.double().logsumexp(dim=1)
    if (wrong := ~(log_sums.abs() <= 1e-3)).any():
        row = int(wrong.nonzero()[0])
        raise InputError(
            f"the exponentials of log-probabilities must sum to 1, got log-sum "
            f"{log_sums[row].item():.4g} at row {row}; apply log_softmax to logits first"
        )


def as_float64(scores: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Statistics are computed in float64, on the CPU, without a graph."""
    return scores.detach().to(device="cpu", dtype=torch.float64)

"""Does a confidence of 80 % mean right four times in five? Top-label calibration error, by bins.

Within bin b, gap_b = (number right - sum of confidences) / N; the error is a norm of the gaps.
Shape letters: N images, K classes, B bins.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.errors import InputError, did_you_mean
from headfirst.metrics.checks import as_float64, check_probabilities


def expected_calibration_error(
    probabilities: Float[Tensor, "n k"],
    labels: Int[Tensor, " n"],
    num_bins: int = 15,
    binning: Literal["width", "mass"] = "width",
    norm: Literal["l1", "l2", "max"] = "l1",
) -> float:
    """Distance between confidence and accuracy of the predicted class, in [0, 1].

    With n_b of N rows in bin b: l1 = Σ n_b/N |acc_b - conf_b|, l2 = √(Σ n_b/N (acc_b - conf_b)²),
    max = max_b |acc_b - conf_b| over the bins that have rows.

    Args:
        probabilities: (N, K), rows sum to one; not logits.
        labels: (N,) in 0 … K-1.
        num_bins: B ≥ 1.
        binning: "width": ((b-1)/B, b/B], a confidence of 0 in the first; "mass": rows sorted by
            confidence, cut into B runs whose lengths differ by at most one (the first are longer).
        norm: "l1" is the expected, "max" the maximum calibration error; "l2" is rooted.

    Raises:
        InputError: rows that are not distributions, labels outside the classes, an unknown option.

    Source: Naeini et al., AAAI 2015; Guo et al., ICML 2017, eq. 3 and 5; equal mass as in Nguyen and
    O'Connor, EMNLP 2015. Deviation: rows of equal confidence share their mean correctness, so that the
    order of the rows never matters.

    >>> probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    >>> labels = torch.tensor([0, 1, 1, 1])
    >>> round(expected_calibration_error(probabilities, labels), 6)          # (|.5-.9| + |1-.6|) / 2
    0.4
    """
    check_probabilities(probabilities, labels)
    confidence, correct = top_label(probabilities, labels)
    bins = bin_of(confidence, num_bins, binning)
    # Equal confidences may be cut by a mass bin's edge; their mean makes which of them fell where moot.
    correct = mean_within_ties(confidence, correct)
    weight = torch.bincount(bins, minlength=num_bins).double() / len(bins)
    gap = torch.zeros(num_bins, dtype=torch.float64).index_add(0, bins, correct - confidence) / len(bins)
    filled = weight > 0
    weight, gap = weight[filled], gap[filled]
    if norm == "l1":
        return gap.abs().sum().item()
    if norm == "l2":
        return (gap.square() / weight).sum().sqrt().item()
    if norm == "max":
        return (gap.abs() / weight).max().item()
    raise InputError(f"norm must be 'l1', 'l2' or 'max', got {norm!r}{did_you_mean(norm, ['l1', 'l2', 'max'])}")


def top_label(
    probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Confidence of the predicted class, and 1 where it is the label's, 0 elsewhere; both float64."""
    confidence, predicted = as_float64(probabilities).max(dim=1)
    # Rounding may leave a confidence a hair above one.
    return confidence.clamp(max=1.0), (predicted == labels.cpu()).double()


def bin_of(confidence: Float[Tensor, " n"], num_bins: int, binning: Literal["width", "mass"]) -> Int[Tensor, " n"]:
    """The bin of each confidence, 0 … B-1; see `expected_calibration_error` for the edges."""
    if num_bins < 1:
        raise InputError(f"num_bins must be at least 1, got {num_bins}")
    if binning == "width":
        inner_edges = torch.arange(1, num_bins, dtype=torch.float64) / num_bins
        return torch.bucketize(confidence, inner_edges)
    if binning == "mass":
        n = len(confidence)
        sizes = torch.tensor([n // num_bins + (b < n % num_bins) for b in range(num_bins)])
        bins = torch.empty(n, dtype=torch.int64)
        bins[confidence.argsort(stable=True)] = torch.arange(num_bins).repeat_interleave(sizes)
        return bins
    raise InputError(f"binning must be 'width' or 'mass', got {binning!r}{did_you_mean(binning, ['width', 'mass'])}")


def mean_within_ties(key: Float[Tensor, " n"], values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """`values`, each replaced by the mean over the rows with the same `key`.

    >>> mean_within_ties(torch.tensor([0.5, 0.7, 0.5]), torch.tensor([0.0, 1.0, 1.0]))
    tensor([0.5000, 1.0000, 0.5000])
    """
    unique, group, size = key.unique(return_inverse=True, return_counts=True)
    return (torch.zeros_like(unique, dtype=values.dtype).index_add(0, group, values) / size)[group]

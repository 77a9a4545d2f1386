"""Does a confidence of 80 % mean right four times in five? Calibration errors, by bins.

Within a bin, accuracy is the share that is right and confidence the mean probability; the error is a norm of the gaps.
Shape letters: N images, K classes, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped
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
    bins = _binned(confidence, correct, num_bins, binning)
    weight, gap = bins.count.double() / len(labels), (bins.accuracy - bins.confidence).abs()
    if norm == "l1":
        return (weight * gap).sum().item()
    if norm == "l2":
        return (weight * gap.square()).sum().sqrt().item()
    if norm == "max":
        return gap.max().item()
    raise InputError(f"norm must be 'l1', 'l2' or 'max', got {norm!r}{did_you_mean(norm, ['l1', 'l2', 'max'])}")


def classwise_calibration_error(
    probabilities: Float[Tensor, "n k"],
    labels: Int[Tensor, " n"],
    num_bins: int = 15,
    binning: Literal["width", "mass"] = "width",
) -> float:
    """Mean over the K classes of the calibration error (l1) of each class's own probability, in [0, 1].

    For class k, Σ_b n_b/N |(share of bin b that is of class k) - (mean of p_k in bin b)|: unlike the top label's
    error it sees the probabilities of the classes that were not predicted.

    Args:
        probabilities: as in `expected_calibration_error`.
        labels: in [0, K).
        num_bins: at least 1.
        binning: "mass" makes it the adaptive calibration error.

    Raises:
        InputError: as `expected_calibration_error`.

    Source: Kull et al., NeurIPS 2019; Nixon et al., CVPR workshops 2019. Deviation: equal
    probabilities share their mean, as in `expected_calibration_error`.

    >>> probabilities = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]])
    >>> classwise_calibration_error(probabilities, torch.tensor([0, 0]))       # (0.5 + 0.5 + 0) / 3
    0.3333333333333333
    """
    check_probabilities(probabilities, labels)
    errors = []
    for k, p in enumerate(as_float64(probabilities).clamp(max=1.0).T):
        bins = _binned(p, (labels.cpu() == k).double(), num_bins, binning)
        errors.append((bins.count * (bins.accuracy - bins.confidence).abs()).sum() / len(labels))
    return torch.stack(errors).mean().item()


@dataclass(frozen=True, kw_only=True, eq=False)
class ReliabilityBins:
    """The bins of a reliability diagram that hold images, by ascending confidence.

    Attributes:
        confidence: (B,) mean probability of the predicted class.
        accuracy: (B,) share that is right; images of equal confidence share theirs, so `accuracy · count` need
            not be a whole number where a bin's edge cuts them.
        count: (B,) int64, images.
    """

    confidence: Float[Tensor, " b"]
    accuracy: Float[Tensor, " b"]
    count: Int[Tensor, " b"]


def reliability_bins(
    probabilities: Float[Tensor, "n k"],
    labels: Int[Tensor, " n"],
    num_bins: int = 15,
    binning: Literal["width", "mass"] = "mass",
) -> ReliabilityBins:
    """Confidence against accuracy, bin by bin; Σ count/N |accuracy - confidence| is the expected calibration error.

    Args:
        probabilities: as in `expected_calibration_error`.
        labels: in [0, K).
        num_bins: at least 1.
        binning: bins of equal width or of equal numbers of images.

    Raises:
        InputError: as `expected_calibration_error`.

    Source: DeGroot and Fienberg, The Statistician 1983; Niculescu-Mizil and Caruana, ICML 2005.

    >>> probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    >>> bins = reliability_bins(probabilities, torch.tensor([0, 1, 1]), num_bins=10, binning="width")
    >>> bins.accuracy, bins.count
    (tensor([1.0000, 0.5000], dtype=torch.float64), tensor([1, 2]))
    """
    check_probabilities(probabilities, labels)
    return _binned(*top_label(probabilities, labels), num_bins, binning)


@dataclass(frozen=True, kw_only=True)
class BrierParts:
    """brier_score = reliability - resolution + uncertainty + within_bins, exactly.

    Attributes:
        reliability: ≥ 0, squared distance of probability from frequency: 0 where calibrated.
        resolution: ≥ 0, squared distance of the bins' frequencies from the overall ones: what the scores tell apart.
        uncertainty: ≥ 0, the Brier score of always saying the overall frequencies.
        within_bins: variance of the probabilities inside bins less twice their covariance with the truth; of either
            sign, 0 where every bin holds one probability.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float


def brier_decomposition(
    probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"], num_bins: int = 15
) -> BrierParts:
    """The parts of the Brier score, summed over classes.

    For class k, y = 1[label = k], and bins b of p_k of equal width with n_b of N rows and means p_b, y_b:
    reliability Σ n_b/N (p_b - y_b)², resolution Σ n_b/N (y_b - ȳ)², uncertainty ȳ(1 - ȳ), within bins
    Σ_i [(p_i - p_b)² - 2 (p_i - p_b)(y_i - y_b)] / N.

    Args:
        probabilities: (N, K), rows sum to one; not logits.
        labels: (N,) in 0 … K-1.
        num_bins: B ≥ 1; see `expected_calibration_error` for the edges.

    Raises:
        InputError: rows that are not distributions, labels outside the classes, no bins.

    Source: Murphy, Journal of Applied Meteorology 1973; the remainder: Stephenson, Coelho and Jolliffe, Weather
    and Forecasting 2008.

    >>> brier_decomposition(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    BrierParts(reliability=0.0, resolution=0.5, uncertainty=0.5, within_bins=0.0)
    """
    check_probabilities(probabilities, labels)
    reliability = resolution = uncertainty = within = 0.0
    for k, p in enumerate(as_float64(probabilities).T):
        y = (labels.cpu() == k).double()
        bins = bin_of(p, num_bins, "width")
        p_b, y_b = mean_within_ties(bins, p), mean_within_ties(bins, y)  # of each row's bin
        reliability += (p_b - y_b).square().mean().item()
        resolution += (y_b - y.mean()).square().mean().item()
        uncertainty += (y.mean() * (1 - y.mean())).item()
        within += ((p - p_b).square() - 2 * (p - p_b) * (y - y_b)).mean().item()
    return BrierParts(reliability=reliability, resolution=resolution, uncertainty=uncertainty, within_bins=within)


def top_label(
    probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Confidence of the predicted class, and 1 where it is the label's, 0 elsewhere; both float64."""
    confidence, predicted = as_float64(probabilities).max(dim=1)
    # Rounding may leave a confidence a hair above one.
    return confidence.clamp(max=1.0), (predicted == labels.cpu()).double()


def _binned(
    confidence: Float[Tensor, " n"],
    correct: Float[Tensor, " n"],
    num_bins: int,
    binning: Literal["width", "mass"],
) -> ReliabilityBins:
    bins = bin_of(confidence, num_bins, binning)
    # Equal confidences may be cut by a mass bin's edge; their mean makes which of them fell where moot.
    correct = mean_within_ties(confidence, correct)
    count = torch.bincount(bins, minlength=num_bins)
    filled = count > 0
    means = [
        (torch.zeros(num_bins, dtype=torch.float64).index_add(0, bins, values) / count)[filled]
        for values in (confidence, correct)
    ]
    return ReliabilityBins(confidence=means[0], accuracy=means[1], count=count[filled])


def bin_of(confidence: Float[Tensor, " n"], num_bins: int, binning: Literal["width", "mass"]) -> Int[Tensor, " n"]:
    """The bin of each confidence, 0 … B-1; see `expected_calibration_error` for the edges."""
    if num_bins < 1:
        raise InputError(f"num_bins must be at least 1, got {num_bins}")
    if binning == "width":
        inner_edges = torch.arange(1, num_bins, dtype=torch.float64) / num_bins
        return torch.bucketize(confidence.contiguous(), inner_edges)
    if binning == "mass":
        n = len(confidence)
        sizes = torch.tensor([n // num_bins + (b < n % num_bins) for b in range(num_bins)])
        bins = torch.empty(n, dtype=torch.int64)
        bins[confidence.argsort(stable=True)] = torch.arange(num_bins).repeat_interleave(sizes)
        return bins
    raise InputError(f"binning must be 'width' or 'mass', got {binning!r}{did_you_mean(binning, ['width', 'mass'])}")


def mean_within_ties(key: Shaped[Tensor, " n"], values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """`values`, each replaced by the mean over the rows with the same `key`.

    >>> mean_within_ties(torch.tensor([0.5, 0.7, 0.5]), torch.tensor([0.0, 1.0, 1.0]))
    tensor([0.5000, 1.0000, 0.5000])
    """
    unique, group, size = key.unique(return_inverse=True, return_counts=True)
    return (torch.zeros_like(unique, dtype=values.dtype).index_add(0, group, values) / size)[group]

"""How right a model is on images without labels, guessed from its probabilities.

Each is exact under an assumption that shift may break: that it is calibrated there too, that a confidence means the
same there, that two models err apart. A report prints them beside the truth.

Shape letters: N images, K classes.
"""

from __future__ import annotations

import math

from jaxtyping import Float, Int
from torch import Tensor

from headfirst.errors import InputError
from headfirst.metrics.calibration import top_label
from headfirst.metrics.checks import as_float64, check_distributions, check_numbers, check_probabilities


def average_confidence(probabilities: Float[Tensor, "n k"]) -> float:
    """Mean probability of the predicted class, in [1/K, 1]: the accuracy, if the model is calibrated.

    Args:
        probabilities: (N, K), rows sum to one; not logits.

    Raises:
        InputError: no rows, rows that are not distributions.

    Source: Guillory et al., ICCV 2021 (their AC).

    >>> import torch
    >>> average_confidence(torch.tensor([[0.75, 0.25], [0.5, 0.5]]))
    0.625
    """
    check_distributions(probabilities)
    return _confidence(probabilities).mean().item()


def fit_confidence_threshold(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """The confidence that a share of images equal to the accuracy reaches.

    With m of N images right, the m-th largest confidence; where that one is tied, the confidence whose share is
    nearest to m/N, the larger of two. Infinity, which no image reaches, where none is right (or nearest to none).

    Args:
        probabilities: (N, K) of labelled images that did not fit the model, rows sum to one; not logits.
        labels: (N,) in 0 … K-1.

    Raises:
        InputError: rows that are not distributions, labels outside the classes.

    Source: Garg et al., ICLR 2022 (average thresholded confidence, with the largest probability as score).

    >>> import torch
    >>> probabilities = torch.tensor([[0.875, 0.125], [0.75, 0.25], [0.625, 0.375]])
    >>> fit_confidence_threshold(probabilities, torch.tensor([0, 0, 1]))
    0.75
    """
    check_probabilities(probabilities, labels)
    confidence, correct = top_label(probabilities, labels)
    values, counts = confidence.unique(return_counts=True)
    reached = counts.flip(0).cumsum(0)  # by how many images, for each value from the largest
    off = (reached - correct.sum()).abs()
    best = int(off.argmin())
    return values.flip(0)[best].item() if off[best] < correct.sum() else math.inf


def average_thresholded_confidence(probabilities: Float[Tensor, "n k"], threshold: float) -> float:
    """Share of images whose confidence is at least `threshold`, in [0, 1]: the accuracy, if a confidence means
    here what it meant where `fit_confidence_threshold` found it.

    Args:
        probabilities: (N, K), rows sum to one; not logits.
        threshold: from `fit_confidence_threshold`, of the same model.

    Raises:
        InputError: no rows, rows that are not distributions, a threshold that is NaN.

    Source: Garg et al., ICLR 2022.

    >>> import torch
    >>> average_thresholded_confidence(torch.tensor([[0.75, 0.25], [0.5, 0.5]]), threshold=0.75)
    0.5
    """
    check_distributions(probabilities)
    if math.isnan(threshold):
        raise InputError("the threshold must be a number, got NaN")
    return (_confidence(probabilities) >= threshold).double().mean().item()


def agreement(scores: Float[Tensor, "n k"], other_scores: Float[Tensor, "m k"]) -> float:
    """Share of rows whose largest score is at the same class, in [0, 1].

    That of two models of one recipe and other seeds is their accuracy, where they are calibrated as an ensemble.

    Args:
        scores: (N, K); equal scores go to the first class.
        other_scores: (N, K), the same images in the same order.

    Raises:
        InputError: no rows, other numbers of rows, a NaN score.

    Source: Jiang et al., ICLR 2022.

    >>> import torch
    >>> agreement(torch.tensor([[0.6, 0.4], [0.9, 0.1]]), torch.tensor([[2.0, 1.0], [1.0, 3.0]]))
    0.5
    """
    check_numbers(scores)
    check_numbers(other_scores)
    if len(scores) != len(other_scores):
        raise InputError(f"agreement needs the same images on both sides, got {len(scores)} and {len(other_scores)}")
    return (scores.argmax(dim=1) == other_scores.argmax(dim=1)).double().mean().item()


def _confidence(probabilities: Tensor) -> Tensor:
    return as_float64(probabilities).amax(dim=1).clamp(max=1.0)

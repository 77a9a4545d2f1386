"""Answering only where sure: error among the answers against the share answered, and where to stop answering.

Shape letters: N images. Confidence is any number that is higher where the model is surer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.special import bdtr
from torch import Tensor

from headfirst.errors import InputError
from headfirst.metrics.calibration import mean_within_ties
from headfirst.metrics.checks import as_float64, check_numbers
from headfirst.metrics.resampling import check_level


@dataclass(frozen=True, kw_only=True, eq=False)
class RiskCoverage:
    """Entry i: what answering the i + 1 surest of N images would give.

    Attributes:
        coverage: (N,) share answered, 1/N … 1.
        risk: (N,) share of the answers that is wrong, in [0, 1].
    """

    coverage: Float[Tensor, " n"]
    risk: Float[Tensor, " n"]


def risk_coverage(confidence: Float[Tensor, " n"], correct: Bool[Tensor, " m"] | Float[Tensor, " m"]) -> RiskCoverage:
    """The risk-coverage curve; images of equal confidence share their errors, so their order never matters.

    Args:
        confidence: (N,) higher where surer.
        correct: (N,) true or 1 where the prediction is right.

    Raises:
        InputError: no images, other lengths, a NaN confidence, `correct` other than 0 or 1.

    Source: El-Yaniv and Wiener, JMLR 2010.

    >>> curve = risk_coverage(torch.tensor([0.9, 0.8, 0.6, 0.5]), torch.tensor([True, True, False, True]))
    >>> curve.risk
    tensor([0.0000, 0.0000, 0.3333, 0.2500], dtype=torch.float64)
    """
    confidence, wrong = _descending(confidence, correct)
    count = torch.arange(1, len(wrong) + 1, dtype=torch.float64)
    return RiskCoverage(coverage=count / len(wrong), risk=mean_within_ties(confidence, wrong).cumsum(dim=0) / count)


def area_under_risk_coverage(
    confidence: Float[Tensor, " n"], correct: Bool[Tensor, " m"] | Float[Tensor, " m"]
) -> float:
    """Mean of the risk over the N coverages, in [0, 1]; the error rate itself where confidence tells nothing.

    Args and Raises: as `risk_coverage`.

    Source: Geifman, Uziel and El-Yaniv, ICLR 2019.

    >>> area_under_risk_coverage(torch.tensor([0.9, 0.8, 0.6, 0.5]), torch.tensor([True, True, False, False]))
    0.20833333333333331
    """
    return risk_coverage(confidence, correct).risk.mean().item()


def abstention_threshold(
    confidence: Float[Tensor, " n"],
    correct: Bool[Tensor, " m"] | Float[Tensor, " m"],
    max_error: float,
    level: float = 0.95,
) -> float:
    """The least confidence to answer at, so that the error among new answers is at most `max_error`.

    The j surest images pass if the exact (Clopper-Pearson) upper bound of their error, at confidence
    1 - (1 - level)/M, is at most `max_error`. M runs begin at j = a, 2a, 4a, …, where a is the fewest images that
    can pass and M the most runs that fit into N; each adds one image at a time until the test fails. The most
    images that passed in any run are answered. A run goes past the first threshold whose true error is too large
    with probability (1 - level)/M at most (fixed-sequence testing), so any does with 1 - level (a union over runs).

    That is the promise: over draws of these images, the error of new ones as sure as the threshold exceeds
    `max_error` in at most 1 - level of them. It holds where new images are drawn like these, none of them fitted or
    chose the model, and the error among the answers does not fall as the threshold is lowered.

    Args:
        confidence: (N,) higher where surer.
        correct: (N,) true or 1 where the prediction is right.
        max_error: in (0, 1).
        level: in (0, 1).

    Returns:
        A confidence among those given, or infinity: answer nothing, since nothing qualifies.

    Raises:
        InputError: as `risk_coverage`; max_error or level outside (0, 1).

    Source: Geifman and El-Yaniv, NeurIPS 2017, whose union is over the steps of a binary search; fixed sequences:
    Angelopoulos et al., Learn then Test, 2021.

    >>> sure = torch.linspace(1, 0, 100)
    >>> round(abstention_threshold(sure, sure > 0.3, max_error=0.1), 4)      # of the 72 surest, 2 are wrong
    0.2828
    """
    check_level(level)
    if not 0 < max_error < 1:
        raise InputError(
            f"the error allowed (max_error, --abstain) must lie strictly between 0 and 1, got {max_error}; "
            "0.05 allows one error in 20"
        )
    descending, wrong = (x.numpy() for x in _descending(confidence, correct))
    n, tail = len(wrong), 1 - level

    def fewest(parts: int) -> int:  # that can pass, none of them wrong
        return math.ceil(math.log(tail / parts) / math.log(1 - max_error))

    if fewest(1) > n:
        return math.inf
    parts = 1
    while fewest(parts + 1) * 2**parts <= n:
        parts += 1
    answered = np.searchsorted(-descending, -descending, side="right")  # images as sure as the j-th, ties and all
    errors = wrong.cumsum()[answered - 1]
    # The Clopper-Pearson bound is ≤ max_error where so few errors would be rare at a rate of max_error.
    passes = bdtr(errors, answered, max_error) <= tail / parts
    most = 0
    for start in (fewest(parts) * 2**m for m in range(parts)):
        run = passes[start - 1 :]
        length = len(run) if run.all() else int(run.argmin())
        if length:
            most = max(most, int(answered[start - 2 + length]))
    return float(descending[most - 1]) if most else math.inf


def _descending(confidence: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
    """Confidence from the surest, and 1 where wrong; float64."""
    check_numbers(confidence[:, None])
    if confidence.shape != correct.shape:
        raise InputError(f"need one correctness for each confidence, got {len(correct)} for {len(confidence)}")
    right = as_float64(correct.double())
    if not bool(((right == 0) | (right == 1)).all()):
        raise InputError("correct must be 1 where right and 0 elsewhere, got something in between; pass booleans")
    descending, order = as_float64(confidence).sort(descending=True, stable=True)
    return descending, 1 - right[order]

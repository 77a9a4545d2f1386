"""Sets of classes that hold the true one with a stated probability, whatever the model (split conformal prediction).

scores of calibration images → `conformal_threshold` → `prediction_sets` of new ones. If both are exchangeable (drawn
alike), the set of a new image holds its class with probability at least 1 - α, on average over calibration sets;
under distribution shift nothing is promised.

Shape letters: N images, K classes. A score is high where the class fits the image badly.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headfirst.errors import InputError
from headfirst.metrics.checks import as_float64, check_distributions, check_numbers


def least_ambiguous_scores(probabilities: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """1 - p of each class, (N, K) float64: the smallest sets on average, at times empty.

    Args:
        probabilities: (N, K), rows sum to one; not logits.

    Raises:
        InputError: no rows, rows that are not distributions.

    Source: Sadinle, Lei and Wasserman, JASA 2019.

    >>> least_ambiguous_scores(torch.tensor([[0.75, 0.25]]))
    tensor([[0.2500, 0.7500]], dtype=torch.float64)
    """
    check_distributions(probabilities)
    return 1 - as_float64(probabilities)


def adaptive_scores(
    probabilities: Float[Tensor, "n k"], uniform: Float[Tensor, " n"] | None = None
) -> Float[Tensor, "n k"]:
    """Mass of the classes at least as likely as each class, (N, K) float64 in [0, 1].

    With u = `uniform`, mass of the more likely classes + u · mass of the equally likely ones, itself among them:
    uniform on [0, 1] for the true class where the probabilities are the true ones. Sets then are neither all
    too large nor, as without it, never empty.

    Args:
        probabilities: (N, K), rows sum to one; not logits.
        uniform: (N,) in [0, 1), drawn for each image; the same for all of its classes.

    Raises:
        InputError: no rows, rows that are not distributions, `uniform` outside [0, 1).

    Source: Romano, Sesia and Candès, NeurIPS 2020. Deviation: equally likely classes share their score.

    >>> adaptive_scores(torch.tensor([[0.25, 0.5, 0.25]]))
    tensor([[1.0000, 0.5000, 1.0000]], dtype=torch.float64)
    >>> adaptive_scores(torch.tensor([[0.25, 0.5, 0.25]]), uniform=torch.tensor([0.5]))
    tensor([[0.7500, 0.2500, 0.7500]], dtype=torch.float64)
    """
    check_distributions(probabilities)
    p = as_float64(probabilities)
    p = p / p.sum(dim=1, keepdim=True)
    ascending = p.sort(dim=1).values
    mass_of_lowest = torch.nn.functional.pad(ascending.cumsum(dim=1), (1, 0))  # of the 0, 1, …, K least likely
    less_likely = torch.searchsorted(ascending, p)
    at_least_as_likely = 1 - mass_of_lowest.gather(1, less_likely)
    if uniform is None:
        return at_least_as_likely
    if len(uniform) != len(p) or not bool(((uniform >= 0) & (uniform < 1)).all()):
        raise InputError(
            f"uniform must be {len(p)} numbers in [0, 1), one for each row, got {len(uniform)} "
            f"from {uniform.min().item():.4g} to {uniform.max().item():.4g}"
        )
    no_likelier = torch.searchsorted(ascending, p, right=True)
    more_likely = (1 - mass_of_lowest.gather(1, no_likelier)).clamp(min=0.0)
    return more_likely + as_float64(uniform)[:, None] * (at_least_as_likely - more_likely)


def conformal_threshold(scores: Float[Tensor, " n"], alpha: float) -> float:
    """The ⌈(N + 1)(1 - α)⌉-th smallest of the true classes' scores; infinite where that is beyond the N-th.

    A new image's true class scores at most this with probability at least 1 - α, and at most
    1 - α + 1/(N + 1) where no two scores are equal.

    Args:
        scores: (N,) of the true classes of calibration images, which neither fitted nor chose the model.
        alpha: share of misses allowed, strictly between 0 and 1, read as the decimal it prints as: (19 + 1)(1 - 0.1)
            is 18, whatever the rounding.

    Raises:
        InputError: no scores, a NaN among them, alpha outside (0, 1).

    Source: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005; Papadopoulos et al., ECML 2002.

    >>> conformal_threshold(torch.arange(1.0, 20.0), alpha=0.1)
    18.0
    >>> conformal_threshold(torch.arange(1.0, 9.0), alpha=0.1)          # eight images cannot vouch for 90 %
    inf
    """
    check_numbers(scores[:, None])
    if not 0 < alpha < 1:
        raise InputError(f"alpha must lie strictly between 0 and 1, got {alpha}; 0.1 asks for 90 % coverage")
    n = len(scores)
    rank = math.ceil((n + 1) * (1 - Fraction(str(float(alpha)))))
    return as_float64(scores).kthvalue(rank).values.item() if rank <= n else math.inf


def prediction_sets(scores: Float[Tensor, "n k"], threshold: float) -> Bool[Tensor, "n k"]:
    """Which classes score at most `threshold`, (N, K).

    Args:
        scores: (N, K) of every class, made like those that gave the threshold.
        threshold: from `conformal_threshold`; infinity takes every class.

    Raises:
        InputError: no rows, a NaN score or threshold.

    >>> prediction_sets(torch.tensor([[0.25, 0.75], [0.5, 0.5]]), threshold=0.5)
    tensor([[ True, False],
            [ True,  True]])
    """
    check_numbers(scores)
    if math.isnan(threshold):
        raise InputError("the threshold of a prediction set must be a number, got NaN")
    return as_float64(scores) <= threshold

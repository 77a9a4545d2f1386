"""Does a generator make everything, in the right amounts, and not the same image again? From labels and features.

Shape letters: N images, D features, K modes or classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.special import gammainccinv, gammaincinv, gammaln
from torch import Tensor

from headfirst.errors import InputError
from headfirst.metrics.checks import as_float64
from headfirst.metrics.neighbours import blocks, in_one_frame, paired
from headfirst.metrics.resampling import check_level


def modes_covered(labels: Int[Tensor, " n"], num_modes: int, *, least: int = 1) -> int:
    """How many of the modes 0 … K-1 have at least `least` samples.

    Args:
        labels: (N,) the mode of each sample; -1 for a sample that belongs to none.
        num_modes: K.
        least: samples that make a mode covered, at least 1.

    Raises:
        InputError: no samples, labels outside -1 … K-1, K or `least` below 1.

    >>> modes_covered(torch.tensor([0, 0, 2, -1]), 4)
    2
    """
    if least < 1:
        raise InputError(f"a mode is covered by at least 1 sample, got least={least}")
    return int((_counts(labels, num_modes) >= least).sum())


@dataclass(frozen=True, kw_only=True)
class ClassWeights:
    """How far the classes' shares are from those wanted.

    Attributes:
        total_variation: half the sum of absolute differences, in [0, 1]; samples of no class count in full.
        expected: what N independent samples with exactly the weights wanted give on average; never 0.
    """

    total_variation: float
    expected: float


def class_weight_distance(labels: Int[Tensor, " n"], weights: Float[Tensor, " k"]) -> ClassWeights:
    """Total variation ½ Σ_c |p̂_c - w_c| between the classes' shares and the weights wanted.

    Args:
        labels: (N,) the class of each sample; -1 for none.
        weights: (K,) not negative, sum 1, such as the shares among real images.

    Raises:
        InputError: no samples, labels outside -1 … K-1, weights that are no distribution.

    Source: of the expected value, De Moivre's mean absolute deviation of a binomial, exact; see Diaconis and Zabell,
    Statistical Science 1991.

    >>> found = class_weight_distance(torch.tensor([0, 0, 0, 1]), torch.tensor([0.5, 0.5]))
    >>> found.total_variation, round(found.expected, 6)                        # 0.25 · 4!/(2! 2!) / 2³
    (0.25, 0.1875)
    """
    w = as_float64(weights)
    if not len(w) or not bool((w >= 0).all()) or abs(w.sum().item() - 1) > 1e-3:
        raise InputError(f"class weights must be non-negative and sum to 1, got {weights.tolist()}")
    counts, n = _counts(labels, len(w)), len(labels)
    outside = 1 - counts.sum().item() / n
    total = (counts.double() / n - w).abs().sum().item() + outside
    expected = sum(_mean_absolute_deviation(n, p) for p in w.tolist())
    return ClassWeights(total_variation=total / 2, expected=expected / 2)


def _counts(labels: Int[Tensor, " n"], num_modes: int) -> Int[Tensor, " k"]:
    if num_modes < 1 or len(labels) == 0:
        raise InputError(f"need at least one sample and one mode, got {len(labels)} samples and {num_modes} modes")
    wrong = (labels < -1) | (labels >= num_modes)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise InputError(f"labels must lie in -1 … {num_modes - 1}, got {int(labels[row])} at row {row}")
    return torch.bincount(labels.cpu().long() + 1, minlength=num_modes + 1)[1:]


def _mean_absolute_deviation(n: int, p: float) -> float:
    """E |X/n - p| of X binomial (n, p): 2 ν C(n, ν) p^ν q^(n-ν+1) / n with ν = ⌊np⌋ + 1."""
    if not 0 < p < 1:
        return 0.0
    v = math.floor(n * p) + 1
    log_chosen = gammaln(n + 1) - gammaln(v + 1) - gammaln(n - v + 1)
    return 2 * v / n * math.exp(log_chosen + v * math.log(p) + (n - v + 1) * math.log1p(-p))


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """How often two samples are alike, and how many different ones that leaves.

    Attributes:
        pairs: pairs of samples no further apart than the threshold.
        rate: their share of all pairs, the estimated chance that two samples are alike, in [0, 1].
        support: 1 / rate: so many different images, all equally likely, would repeat as often; infinite for no pair.
        low, high: interval of the support; `high` is infinite where few pairs were found, and "n too small to tell".
    """

    pairs: int
    rate: float
    support: float
    low: float
    high: float


def duplicate_estimate(samples: Float[Tensor, "n d"], threshold: float, *, level: float = 0.95) -> Duplicates:
    """The birthday paradox turned round: N samples of a support of S images hold about N² / 2S pairs that are alike.

    The rate of alike pairs is an unbiased estimate of Σ p², whose inverse is at most the number of images that the
    generator can make. The number of pairs is taken for Poisson's, over-dispersed where some samples have far more
    partners than others; at no pair at all only `low` tells.

    Args:
        samples: (N, D), N at least 2.
        threshold: Euclidean distance up to which two samples are alike; less than `closest_pair` of as many real
            images is a choice that takes no look at the samples.
        level: in (0, 1).

    Raises:
        InputError: fewer than two samples, features that are not finite, a threshold that is negative or not finite; a
            level outside (0, 1).

    Source: Arora, Risteski and Zhang, ICLR 2018, section 2; interval of a count: Garwood, Biometrika 1936.

    >>> found = duplicate_estimate(torch.tensor([[0.0], [0.1], [5.0], [9.0]]), 0.5)
    >>> found.pairs, found.support
    (1, 6.0)
    """
    check_level(level)
    if not 0 <= threshold < math.inf:
        raise InputError(f"a threshold is a distance of at least 0, got {threshold}")
    x, _, scale = in_one_frame(samples, samples, least=2)
    n, limit = len(x), (threshold / scale) ** 2
    norms, partners = x.square().sum(dim=1), []
    for rows, squared in blocks(x, x):
        alike = squared <= limit
        edge = (squared - limit).abs() <= 1e-12 * (norms[rows, None] + norms)
        at, of = edge.nonzero(as_tuple=True)
        if len(at):
            alike[at, of] = paired(x, x, at + rows.start, of) <= limit * (1 + 1e-12)
        alike.diagonal(rows.start).fill_(False)
        partners.append(alike.sum(dim=1))
    degree = torch.cat(partners).double()
    pairs, possible = int(degree.sum()) // 2, n * (n - 1) / 2
    # Σ (d - d̄)² holds twice the Poisson part of the variance, 2 · pairs, beside what unequal samples add.
    dispersion = max((degree - degree.mean()).square().sum().item() / pairs - 1, 1.0) if pairs else 1.0
    tail, seen = (1 - level) / 2, pairs / dispersion
    most = dispersion * float(gammainccinv(seen + 1, tail))
    fewest = dispersion * float(gammaincinv(seen, tail)) if pairs else 0.0
    return Duplicates(
        pairs=pairs,
        rate=pairs / possible,
        support=possible / pairs if pairs else math.inf,
        low=max(possible / most, 1.0),
        high=possible / fewest if fewest else math.inf,
    )


def closest_pair(samples: Float[Tensor, "n d"]) -> float:
    """The least Euclidean distance between two of the samples.

    Args:
        samples: (N, D), N at least 2.

    Raises:
        InputError: fewer than two samples, features that are not finite.

    >>> closest_pair(torch.tensor([[0.0], [3.0], [4.0]]))
    1.0
    """
    x, _, scale = in_one_frame(samples, samples, least=2)
    found = []
    for rows, squared in blocks(x, x):
        squared.diagonal(rows.start).fill_(torch.inf)
        found.append(squared.argmin(dim=1))
    nearest = paired(x, x, torch.arange(len(x)), torch.cat(found))
    return nearest.min().sqrt().item() * scale

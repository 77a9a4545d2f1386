"""What is stored of a generator's images against real ones, and what follows from it.

What enters: numbers and where they come from. What leaves: `GeneratorScores`, a sentence on one, the difference of two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headfirst.errors import InputError
from headfirst.metrics import Memorisation, binomial_interval


@dataclass(frozen=True, kw_only=True)
class Score:
    """A number, its 95 % interval, and what a second sample of the real distribution would have on average.

    `low` and `high` are None where no interval is known; `expected` where it depends on the distribution.
    """

    value: float
    low: float | None = None
    high: float | None = None
    expected: float | None = None


def share(count: int, n: int, expected: float | None = None) -> Score:
    """So many of n, with the interval of a binomial share."""
    interval = binomial_interval(count, n)
    return Score(value=count / n, low=interval.low, high=interval.high, expected=expected)


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Generated images alike among themselves: nearer than half of the closest pair of as many training images.

    Attributes:
        support: so many images, all equally likely, would repeat as often; None where no pair is alike.
        low, high: its interval; `high` is None where there are too few pairs to tell.
    """

    pairs: int
    threshold: float
    support: float | None
    low: float
    high: float | None


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """Generated images of a class, and how many of them the classifier of real images takes for it."""

    name: str
    generated: int
    recognised: int


@dataclass(frozen=True, kw_only=True)
class ModelBound:
    """log p(x) is at least `nats`, the mean over real images, with its 95 % interval over images.

    Attributes:
        draws: of each image; more would raise the bound.
    """

    nats: float
    low: float
    high: float
    num_images: int
    draws: int


@dataclass(frozen=True, kw_only=True)
class GeneratorScores:
    """What a generator is worth, as far as so many images can tell.

    Attributes:
        generator: its fingerprint.
        data, split: the set of the real images, and which of its splits.
        real: content hash of the real images, as they were seen.
        backbone: its name.
        features: sha256 of the backbone's weights and preprocessing.
        preprocessing: of the backbone.
        size: pixels a side at which real images are seen too.
        seed: of the generated images, and of what is drawn among real ones.
        num_reference: training images that stand where the generated ones do, in `of_real`.
        of_generated: by name: frechet (as the literature reports it), frechet_corrected (without the bias of few
            images), kernel, precision, recall, density, coverage; where there are classes class_weights (total
            variation from the shares of the training images) and recognised (share that a linear probe of real
            training images takes for the class it was made as).
        of_real: the same of training images.
        by_class: of `recognised`.
        memorisation: None where the training images are not there; then `why_not` says so.
        bound: what the model itself says of the real images; None where it says nothing.
    """

    generator: str
    kind: str
    recipe: str
    data: str
    split: str
    real: str
    backbone: str
    features: str
    preprocessing: Mapping[str, Any]
    size: int
    seed: int
    num_generated: int
    num_real: int
    num_reference: int
    of_generated: Mapping[str, Score]
    of_real: Mapping[str, Score]
    repeats: Repeats
    by_class: tuple[ClassScore, ...] = ()
    memorisation: Memorisation | None = None
    why_not: str = ""
    bound: ModelBound | None = None


def told_apart(scores: GeneratorScores) -> str:
    """Whether made images differ from real ones, as far as so many can tell; a sentence."""
    found = scores.of_generated["frechet_corrected"]
    low, high = _ends(found)
    distance = f"Fréchet distance {max(found.value, 0):.3g} [{low:.3g}, {high:.3g}]"
    if low > 0:
        return f"Made images can be told from real ones: {distance}"
    return f"Too few images to tell made ones from real ones: {distance}"


@dataclass(frozen=True, kw_only=True)
class ScoreDifference:
    """The Fréchet distance of one generator less that of another, and what follows, in a sentence.

    `low` and `high` hold whatever the two estimates have in common: they are as far apart as both intervals allow.
    """

    value: float
    low: float
    high: float
    sentence: str


def compare_scores(a: GeneratorScores, b: GeneratorScores, names: tuple[str, str] = ("A", "B")) -> ScoreDifference:
    """Which generator's images are nearer to the real ones; "too few images to tell" is an answer.

    Raises:
        InputError: scores of different features or different real images, or twice of the same images.
    """
    for what, first, second in (
        ("features", (a.features, a.backbone), (b.features, b.backbone)),
        ("real images", (a.real, f"{a.split} of {a.data} at {a.size} pixels"),
         (b.real, f"{b.split} of {b.data} at {b.size} pixels")),
    ):  # fmt: skip
        if first[0] != second[0]:
            raise InputError(
                f"scores of different {what} say nothing of each other: {first[1]} ({first[0][:12]}) and {second[1]} "
                f"({second[0][:12]}); evaluate both in the same way"
            )
    if (a.generator, a.seed, a.num_generated) == (b.generator, b.seed, b.num_generated):
        raise InputError(
            "both are scores of the same images of one generator; give those of another, or of another seed"
        )
    x, y = a.of_generated["frechet_corrected"], b.of_generated["frechet_corrected"]
    (x_low, x_high), (y_low, y_high) = _ends(x), _ends(y)
    value, low, high = x.value - y.value, x_low - y_high, x_high - y_low
    num = f"{a.num_generated:,} and {b.num_generated:,} generated and {a.num_real:,} real images"
    if low > 0 or high < 0:
        better, worse = names if high < 0 else names[::-1]
        ends = sorted((abs(low), abs(high)))
        sentence = (
            f"{better} is better than {worse}: its Fréchet distance is lower by {abs(value):.4g} "
            f"[{ends[0]:.4g}, {ends[1]:.4g}], from {num}"
        )
    else:
        sentence = (
            f"too few images to tell {names[0]} from {names[1]}: their Fréchet distances differ by {value:.4g} "
            f"[{low:.4g}, {high:.4g}], from {num}"
        )
    return ScoreDifference(value=value, low=low, high=high, sentence=sentence)


def _ends(score: Score) -> tuple[float, float]:
    """Its interval; without one it may lie anywhere."""
    return -math.inf if score.low is None else score.low, math.inf if score.high is None else score.high

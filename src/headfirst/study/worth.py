"""What further labels are worth: of every class, and of one class while the others keep all of theirs.

What enters: features of labelled and of validation images. What leaves: learning curves and what they promise.
Shape letters: S seeds, M sizes, V validation images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from headfirst.metrics import Interval, balanced_accuracy_interval
from headfirst.study.fewer_labels import nested_counts, right_with_fewer
from headfirst.study.learning_curve import LEAST_SIZES, LearningCurve, learning_curve
from headfirst.types import Features, Progress, silent

FAR = 0.5
"""Where the labels there are, as a share of the further ones, are fewer, the law is stretched far: the plan says so."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Balanced accuracy on `val` with `labels` labels a class (a mean, where classes differ)."""

    labels: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Worth:
    """What `more` labels of one class, or of each (`class_name` None), add to balanced accuracy, with its interval.

    Attributes:
        labels: of the class as it is (a mean over classes).
        recall: accuracy on the class's validation images as it is (balanced accuracy).
    """

    class_name: str | None
    labels: float
    recall: float
    more: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """acc(k) = a - b k^(-c) for k labels of every class, in the proportions there are.

    Attributes:
        measured: at each size, over seeds and validation images.
        law: the law on a fine grid, from the least size to where it is asked about.
    """

    a: float
    b: float
    c: float
    measured: tuple[CurvePoint, ...]
    law: tuple[CurvePoint, ...]
    worth: Worth


@dataclass(frozen=True, kw_only=True, eq=False)
class Valuation:
    """The labels there are, and how `more` of them are to be valued.

    Attributes:
        train, val: labelled features; `val` scores.
        l2: the probe's strength for all labels.
        seeds: of the orders of the labels.
    """

    train: Features
    val: Features
    l2: float
    more: int
    seeds: Sequence[int]

    @property
    def totals(self) -> Int[np.ndarray, " K"]:
        """Labels of each class."""
        return self.train.labels.bincount(minlength=len(self.train.classes)).numpy()

    def overall(self) -> Curve | None:
        """The curve of all classes together; None where labels are too few."""
        counts = nested_counts(self.totals)
        k = counts.mean(axis=1).tolist()
        if len(k) < LEAST_SIZES:
            return None
        right = self._right(counts)
        fitted = learning_curve(right, self.val.labels, k, seed=self.seeds[0])
        now, then = k[-1], max(2 * k[-1], k[-1] + self.more)
        points = [balanced_accuracy_interval(right[:, m], self.val.labels, seed=self.seeds[0]) for m in range(len(k))]
        return Curve(
            a=fitted.law.a.item(),
            b=fitted.law.b.item() * now ** fitted.law.c.item(),
            c=fitted.law.c.item(),
            measured=tuple(_point(x, interval) for x, interval in zip(k, points, strict=True)),
            law=tuple(_point(x, fitted.at(x)) for x in np.geomspace(k[0], then, 40).tolist()),
            worth=self._worth(None, now, points[-1].value, fitted),
        )

    def by_class(self, most: int, *, progress: Progress = silent) -> tuple[tuple[Worth, ...], list[str]]:
        """What further labels of single classes are worth, the most valuable first; and what was left out.

        Args:
            most: classes to value, those of the lowest recall first.
        """
        labels, names, totals = self.val.labels, self.train.classes, self.totals
        now = self._right(totals[None])[0, 0]
        recall = {c: now[labels == c].double().mean().item() for c in labels.unique().tolist()}
        hardest = sorted(recall, key=lambda c: recall[c])
        few = [c for c in hardest if totals[c] < LEAST_SIZES]
        able = [c for c in hardest if c not in few]
        found = []
        for c in able[:most]:
            own = nested_counts(totals[c : c + 1])[:, 0]
            counts = np.tile(totals, (len(own), 1))
            counts[:, c] = own
            fitted = learning_curve(self._right(counts), labels, own.astype(float).tolist(), seed=self.seeds[0])
            found.append(self._worth(names[c], float(totals[c]), recall[c], fitted))
            progress("learning curves", len(found), min(len(able), most))
        notes = []
        if len(able) > len(found):
            notes.append(f"Of {len(able)} classes, the {len(found)} with the lowest recall on val were valued alone.")
        if any(worth.labels < FAR * self.more for worth in found):
            notes.append(
                f"{self.more} further labels are more than twice what some classes have. So far beyond what was seen "
                "the law promises too much, by half in simulations, where intervals of 95 % held 90 % of the time."
            )
        if few:
            listed = ", ".join(f"“{names[c]}” ({totals[c]})" for c in few[:10]) + (", …" if len(few) > 10 else "")
            notes.append(f"Fewer than {LEAST_SIZES} labels are too few to value further ones of a class: {listed}.")
        return tuple(sorted(found, key=lambda worth: -worth.value)), notes

    def _right(self, counts: Int[np.ndarray, "M K"]) -> Bool[Tensor, "S M V"]:
        return right_with_fewer(self.train, self.val, counts, l2=self.l2, seeds=self.seeds)

    def _worth(self, name: str | None, labels: float, recall: float, fitted: LearningCurve) -> Worth:
        gain = fitted.gain(float(self.more))
        return Worth(class_name=name, labels=labels, recall=recall, more=self.more, **asdict(gain))


def _point(labels: float, interval: Interval) -> CurvePoint:
    return CurvePoint(labels=labels, **asdict(interval))


def sentence(worth: Worth) -> str:
    """The worth in plain words; ± is the larger side of the interval.

    >>> sentence(Worth(class_name="horse", labels=20.0, recall=0.8, more=20, value=0.018, low=0.009, high=0.027))
    '20 more labels of “horse” are worth +1.8 ± 0.9 points of balanced validation accuracy.'
    """
    half = 100 * max(worth.high - worth.value, worth.value - worth.low)
    what = f"of “{worth.class_name}”" if worth.class_name is not None else "of every class"
    labels = f"1 more label {what} is" if worth.more == 1 else f"{worth.more} more labels {what} are"
    return f"{labels} worth {100 * worth.value:+.1f} ± {half:.1f} points of balanced validation accuracy."

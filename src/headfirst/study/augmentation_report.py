"""What is known after asking whether generated images help: numbers by ratio, counts, pictures, a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headfirst.augment import ClassCoverage
from headfirst.metrics import Interval, Memorisation

CROSS_VALIDATION = "cross-validation"


@dataclass(frozen=True, kw_only=True)
class RatioRow:
    """One ratio of generated to real images.

    Attributes:
        added: different generated images in the training set; `repeated`, images that are in it again.
        accuracy: by split, cross-validation first.
        gain: accuracy minus that without generated images, paired, by split; none at ratio 0. That of cross-validation
            holds for all ratios together.
    """

    ratio: float
    added: int
    repeated: int
    accuracy: Mapping[str, Interval]
    gain: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True)
class ShownSample:
    """A generated image beside the real training image that is nearest to it; pictures as inline addresses."""

    id: str
    class_name: str
    called: str
    verdict: str
    distance: float
    thumbnail: str
    nearest: str
    nearest_thumbnail: str


@dataclass(frozen=True, kw_only=True)
class AugmentationReport:
    """Every number of the question.

    Attributes:
        chosen: the ratio; 0 where generated images do not surely help.
        splits: reported, cross-validation first, then test, then the shifts.
        num: images behind each split.
        verdicts: of the last generator's images, by class and verdict.
        cross_validated: of all the others' images, by verdict.
        coverage: of `val` by the images that passed; empty where there is no `val`.
        memorisation: whether the last generator's images lie nearer to its training images than to `val`; None without.
        shown: some of the images, kept ones first.
        notes: what was left out, and why.
    """

    name: str
    generator: str
    chosen: float
    rows: tuple[RatioRow, ...]
    splits: tuple[str, ...]
    num: Mapping[str, int]
    verdicts: Mapping[str, Mapping[str, int]]
    cross_validated: Mapping[str, int]
    coverage: tuple[ClassCoverage, ...]
    memorisation: Memorisation | None
    shown: tuple[ShownSample, ...]
    notes: tuple[str, ...]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def row(self, ratio: float) -> RatioRow:
        """The one of that ratio."""
        return next(row for row in self.rows if row.ratio == ratio)

    def sentences(self) -> tuple[str, ...]:
        """The verdict, and what the reported splits say of it."""
        best = max(self.rows[1:], key=lambda row: row.gain[CROSS_VALIDATION].value)
        if not self.chosen:
            found = best.gain[CROSS_VALIDATION]
            first = (
                f"Synthetic images do not help here: none are added. The best ratio, {best.ratio:g} for each real "
                f"image, gives {_points(found)} on held-out training images, which is no sure gain."
            )
            return (first, *self._missed(best))
        row = self.row(self.chosen)
        first = (
            f"{self.chosen:g} synthetic images for each real one are added: {_points(row.gain[CROSS_VALIDATION])} on "
            "held-out training images."
        )
        return (first, *(self._told(split, row.gain[split]) for split in self.splits[1:]))

    def _missed(self, best: RatioRow) -> tuple[str, ...]:
        """Where the reported splits would have liked them."""
        return tuple(
            f"On {split} that ratio gives {_points(best.gain[split])}; it was not chosen there."
            for split in self.splits[1:]
            if best.gain[split].low > 0
        )

    def _told(self, split: str, gain: Interval) -> str:
        if gain.low > 0:
            return f"{split} bears it out: {_points(gain)}."
        if gain.high < 0:
            return f"On {split} they do harm: {_points(gain)}. Leave them out if that is where the model goes."
        return f"On {split} no difference can be told: {_points(gain)}."


def _points(gain: Interval) -> str:
    return f"{100 * gain.value:+.1f} points [{100 * gain.low:.1f}, {100 * gain.high:.1f}]"

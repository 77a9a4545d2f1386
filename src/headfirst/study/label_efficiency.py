"""Will it help? Accuracy of several arms by number of labels a class, their differences, and a plain verdict.

What enters: the arms (see `label_arms`) and the labelled training images. What leaves: a `LabelEfficiency`. The labels
are drawn anew for each of several draws and are the same for all arms; a probe's strength is chosen on those few labels
alone; the evaluation splits are read once, and choose nothing: the number of labels that decides the verdict is named
before, not found.

Shape letters: P pre-trainings, S draws of labelled images, N images of a split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from torch import Tensor

from headfirst.data import ImageSplit
from headfirst.errors import InputError, did_you_mean
from headfirst.features import side_by_side
from headfirst.metrics import Interval, crossed_difference, crossed_interval
from headfirst.study.label_arms import Arm, labelled_ids, right_by_draw
from headfirst.types import Progress, silent

RAW, START = "raw pixels", "starting backbone"
"""What the arms are compared with, where no other names are given."""


@dataclass(frozen=True, kw_only=True)
class ArmAccuracy:
    """Accuracy of `arm` on `split` with `labels` labels a class.

    Attributes:
        low, high: 95 % interval over images, draws of labels and, where there are several, pre-trainings.
        n: images; `draws`, `pretrainings`: how many of each stand behind it.
    """

    arm: str
    split: str
    labels: int
    value: float
    low: float
    high: float
    n: int
    draws: int
    pretrainings: int


@dataclass(frozen=True, kw_only=True)
class ArmDifference:
    """Accuracy of `arm` minus that of `baseline`, paired over images and draws, with its 95 % interval."""

    arm: str
    baseline: str
    split: str
    labels: int
    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves zero out, else 0."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True, kw_only=True)
class LabelsSaved:
    """How many labels a class `baseline` needs for what `arm` reaches with `labels`.

    The baseline's accuracy is interpolated in the logarithm of the labels. An end that lies beyond what was measured
    stands at the least or the greatest number measured: a `value` of `most` says "at least so many".

    Attributes:
        value: at the estimated difference; `low`, `high`: at the ends of its interval, the curve taken as known.
        least, most: numbers of labels between which the baseline was measured.
    """

    arm: str
    baseline: str
    split: str
    labels: int
    value: float
    low: float
    high: float
    least: float
    most: float


@dataclass(frozen=True, kw_only=True)
class LabelEfficiency:
    """Every number of the comparison.

    Attributes:
        shots: labels a class, ascending.
        splits: evaluated; the first decides.
        decisive: the number of labels that decides the verdicts.
        raw, start: names of the arms compared with; None where there is none.
    """

    arms: tuple[str, ...]
    shots: tuple[int, ...]
    splits: tuple[str, ...]
    decisive: int
    raw: str | None
    start: str | None
    accuracies: tuple[ArmAccuracy, ...]
    differences: tuple[ArmDifference, ...]
    saved: tuple[LabelsSaved, ...]

    def accuracy(self, arm: str, split: str, labels: int) -> ArmAccuracy:
        """The one of that arm, there."""
        return next(a for a in self.accuracies if (a.arm, a.split, a.labels) == (arm, split, labels))

    def difference(self, arm: str, baseline: str, split: str, labels: int) -> ArmDifference:
        """The one of that arm to that baseline, there."""
        asked = (arm, baseline, split, labels)
        return next(d for d in self.differences if (d.arm, d.baseline, d.split, d.labels) == asked)

    def verdicts(self) -> tuple[str, ...]:
        """One plain sentence an arm that is no baseline itself (nor an arm alone)."""
        judged = [arm for arm in self.arms if arm not in (self.raw, self.start)]
        return tuple(self._verdict(arm) for arm in judged) if self.raw or self.start else ()

    def as_markdown(self) -> str:
        """Accuracy in per cent with its interval: a row an arm and split, a column a number of labels."""
        head = ["arm", "split", *(f"{k} a class" for k in self.shots)]
        lines = [head, ["---", "---", *("---:" for _ in self.shots)]]
        for split in self.splits:
            for arm in self.arms:
                cells = [self.accuracy(arm, split, k) for k in self.shots]
                lines.append([_cell(arm), _cell(split), *(f"{_percent(a.value)} {_between(a)}" for a in cells)])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _verdict(self, arm: str) -> str:
        split, k = self.splits[0], self.decisive
        raw = self.difference(arm, self.raw, split, k) if self.raw else None
        start = self.difference(arm, self.start, split, k) if self.start else None
        main = start or raw
        assert main is not None  # verdicts() asks for one at least
        for gap in (raw, main):
            if gap is not None and gap.sign < 0:
                ending = self._away(gap) or ": don't."
                return f"{arm} is worse than {gap.baseline} here, {_measured(gap)}{ending}"
        if main.sign == 0:
            return f"{arm}: no difference to {main.baseline} can be told, {_measured(main)}{self._away(main) or '.'}"
        others = [j for j in self.shots if j != k]
        same = [j for j in others if self.difference(arm, main.baseline, split, j).sign > 0]
        against = [j for j in others if self.difference(arm, main.baseline, split, j).sign < 0]
        also = f"; so at {_listed(same)}" if same else ""
        but = f"; but worse at {_listed(against)}" if against else ""
        equal = next(s for s in self.saved if (s.arm, s.baseline, s.split, s.labels) == (arm, main.baseline, split, k))
        doubt = ""
        if raw is not None and main is start and raw.sign == 0:
            doubt = f" That it beats {raw.baseline} cannot be told ({_points(raw)})."
        away = self._away(main) or "."
        return f"{arm} helps: {_measured(main)} over {main.baseline}{also}{but}{away}{worth(equal)}{doubt}"

    def _away(self, home: ArmDifference) -> str:
        """The end of a sentence about home, where another split says otherwise; nothing where none does."""
        gaps = [self.difference(home.arm, home.baseline, split, home.labels) for split in self.splits[1:]]
        told = [f"{_points(gap)} on {gap.split}" for gap in gaps if gap.sign not in (0, home.sign)]
        return f"; away it is otherwise: {_listed(told)}." if told else ""


def label_efficiency(
    arms: Mapping[str, Arm],
    train: ImageSplit,
    *,
    shots: Sequence[int] = (1, 5, 10),
    draws: int = 5,
    splits: Sequence[str] = ("test",),
    raw: str | None = RAW,
    start: str | None = START,
    decisive: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> LabelEfficiency:
    """Compare arms at each number of labels.

    Args:
        arms: by name. Features by split (with `train`); a sequence of those, one a pre-training seed; or a function
            `(k, draw) -> {split: Predictions}` that trains a classifier on `few_shot(train, k, seed=draw)`.
        train: the labelled images that labels are drawn from.
        shots: labels a class.
        draws: random draws of labels; their seeds are seed, seed + 1, …
        splits: evaluated, the deciding one first.
        raw, start: arms to compare with; left out where there is no such arm under the standing name.
        decisive: the number of labels for the verdicts; the middle one of `shots` where None.

    Raises:
        InputError: no arms, a baseline that is no arm, shots that do not rise, arms of other evaluation images.
        DataError: a class with fewer training images than the most shots.
    """
    raw, start = _baseline(arms, raw, RAW), _baseline(arms, start, START)
    shots = tuple(shots)
    _check(arms, shots, draws, splits)
    decisive = shots[(len(shots) - 1) // 2] if decisive is None else decisive
    if decisive not in shots:
        raise InputError(f"decisive must be one of shots, {', '.join(map(str, shots))}, got {decisive}")
    seeds = range(seed, seed + draws)
    asked = {split: labelled_ids(arms, split) for split in splits}
    right: dict[tuple[str, int], dict[str, Tensor]] = {}
    trained = [(name, k) for k in shots for name, arm in arms.items() if callable(arm)]
    for done, (name, k) in enumerate(trained, 1):
        right[name, k] = right_by_draw(name, arms[name], train, k, seeds, asked)
        progress("few labels, trained", done, len(trained))
    # the longest first, so that no process is left alone with it
    probed = [(name, k) for k in reversed(shots) for name, arm in arms.items() if not callable(arm)]
    jobs = [partial(right_by_draw, name, arms[name], train, k, seeds, asked) for name, k in probed]
    right |= dict(zip(probed, side_by_side(jobs, stage="few labels", progress=progress), strict=True))
    _require_same_images(right, shots[0], splits)
    accuracies = tuple(
        ArmAccuracy(arm=name, split=split, labels=k, n=x.shape[2], draws=x.shape[1], pretrainings=x.shape[0],
                    **asdict(crossed_interval(x, seed=seed)))
        for name in arms for split in splits for k in shots for x in [right[name, k][split]]
    )  # fmt: skip
    differences = tuple(
        ArmDifference(arm=name, baseline=baseline, split=split, labels=k,
                      **asdict(crossed_difference(right[name, k][split], right[baseline, k][split], seed=seed)))
        for baseline in (raw, start) if baseline is not None
        for name in arms if name != baseline for split in splits for k in shots
    )  # fmt: skip
    curves = {(a.arm, a.split, a.labels): a.value for a in accuracies}
    saved = tuple(_saved(d, [curves[d.baseline, d.split, k] for k in shots], shots) for d in differences)
    return LabelEfficiency(
        arms=tuple(arms),
        shots=shots,
        splits=tuple(splits),
        decisive=decisive,
        raw=raw,
        start=start,
        accuracies=accuracies,
        differences=differences,
        saved=saved,
    )


def _baseline(arms: Mapping[str, Arm], name: str | None, standing: str) -> str | None:
    if name is None or name in arms:
        return name
    if name == standing:
        return None
    raise InputError(f"{name!r} is to be compared with, but is no arm{did_you_mean(name, arms)}")


def _check(arms: Mapping[str, Arm], shots: Sequence[int], draws: int, splits: Sequence[str]) -> None:
    if not arms or not splits:
        raise InputError(f"label efficiency needs at least one arm and one split, got {len(arms)} and {len(splits)}")
    if not shots or shots[0] < 1 or any(b <= a for a, b in pairwise(shots)):
        raise InputError(f"shots must be rising numbers of labels a class, at least 1, got {list(shots)}")
    if draws < 2:
        raise InputError(f"draws must be at least 2, to see how much the choice of labels matters, got {draws}")


def _require_same_images(right: Mapping[tuple[str, int], Mapping[str, Tensor]], k: int, splits: Sequence[str]) -> None:
    for split in splits:
        sizes = {name: found[split].shape[2] for (name, shots), found in right.items() if shots == k}
        if len(set(sizes.values())) > 1:
            counts = ", ".join(f"{name!r} {size}" for name, size in sizes.items())
            raise InputError(f"the arms must be evaluated on the same images of {split!r}, got {counts}")


def _saved(difference: ArmDifference, curve: Sequence[float], shots: Sequence[int]) -> LabelsSaved:
    here = curve[shots.index(difference.labels)]
    value, low, high = (
        _labels_for(here + x, curve, shots) for x in (difference.value, difference.low, difference.high)
    )
    return LabelsSaved(
        arm=difference.arm,
        baseline=difference.baseline,
        split=difference.split,
        labels=difference.labels,
        value=value,
        low=low,
        high=high,
        least=float(shots[0]),
        most=float(shots[-1]),
    )


def _labels_for(accuracy: float, curve: Sequence[float], shots: Sequence[int]) -> float:
    """The fewest labels a class with which the curve, its dips filled, reaches `accuracy`; the ends beyond it."""
    risen = np.maximum.accumulate(curve)
    if accuracy <= risen[0]:
        return float(shots[0])
    if accuracy > risen[-1]:
        return float(shots[-1])
    m = int(np.argmax(risen >= accuracy))
    share = (accuracy - risen[m - 1]) / (risen[m] - risen[m - 1])
    return math.exp((1 - share) * math.log(shots[m - 1]) + share * math.log(shots[m]))


def worth(saved: LabelsSaved) -> str:
    """What follows a verdict, as " Raw pixels needs about 14 labels a class …"; "" where nothing is saved."""
    if saved.labels >= saved.most or saved.value <= saved.labels:
        return ""
    if saved.value >= saved.most:
        return f" {_capital(saved.baseline)} needs at least {saved.most:.0f} labels a class for as much."
    low = f"≤ {saved.low:.0f}" if saved.low <= saved.least else f"{saved.low:.1f}"
    high = f"≥ {saved.high:.0f}" if saved.high >= saved.most else f"{saved.high:.1f}"
    return f" {_capital(saved.baseline)} needs about {saved.value:.1f} labels a class for as much [{low}, {high}]."


def _measured(difference: ArmDifference) -> str:
    labels = "1 label" if difference.labels == 1 else f"{difference.labels} labels"
    return f"at {labels} a class {_points(difference)} on {difference.split}"


def _points(difference: ArmDifference) -> str:
    return f"{100 * difference.value:+.1f} points [{100 * difference.low:.1f}, {100 * difference.high:.1f}]"


def _between(interval: Interval | ArmAccuracy) -> str:
    return f"[{_percent(interval.low)}, {_percent(interval.high)}]"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _listed(each: Sequence[object]) -> str:
    *most, last = map(str, each)
    return f"{', '.join(most)} and {last}" if most else last


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")

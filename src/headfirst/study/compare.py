"""Finished runs side by side: their accuracies, what differs between them, and paired differences where they may be.

A difference is paired where two runs were asked about the same images: the same ids with the same labels, in any
order. It is taken over the seeds both have. Where the images differ nothing is subtracted, and each run's own
interval stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from headfirst.errors import DataError, InputError
from headfirst.evaluation import by_method_and_split, correct, load_predictions
from headfirst.metrics import MEAN_OVER_SHIFTS, mean_over_splits
from headfirst.types import Predictions, Report, Row

ABSENT = "–"
"""The value of a setting that a run does not have."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FinishedRun:
    """A run's report and what each method with each seed said of the reported splits."""

    name: str
    report: Report
    predictions: Sequence[Predictions]


@dataclass(frozen=True, kw_only=True)
class RunRows:
    """One run's accuracies, as its own report has them."""

    name: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class RunDifference:
    """Accuracy in `run` minus accuracy in `baseline`, of one method on one split, paired over images and seeds."""

    run: str
    baseline: str
    method: str
    split: str
    value: float
    low: float
    high: float
    n: int
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Unpaired:
    """Why nothing was subtracted; `method` is None where it holds for all of them."""

    run: str
    baseline: str
    split: str
    reason: str
    method: str | None = None


@dataclass(frozen=True, kw_only=True)
class SettingDifference:
    """A setting that is not the same in all runs; one value a run, `ABSENT` where it has none."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything the comparison's page shows; the first run is the baseline."""

    runs: tuple[RunRows, ...]
    differences: tuple[RunDifference, ...]
    unpaired: tuple[Unpaired, ...]
    settings: tuple[SettingDifference, ...]


def compare(runs: Sequence[FinishedRun], *, seed: int = 0) -> Comparison:
    """Compare every run with the first.

    Args:
        runs: two or more, of the same classes.
        seed: of the bootstrap.

    Raises:
        InputError: fewer than two runs, or two of one name.
        DataError: runs of different classes.
    """
    names = [run.name for run in runs]
    if len(runs) < 2 or len(set(names)) < len(names):
        raise InputError(f"a comparison needs two or more different runs, got {', '.join(names) or 'none'}")
    first, *others = runs
    differences: list[RunDifference] = []
    unpaired: list[Unpaired] = []
    for run in others:
        _require_same_classes(run, first)
        subtracted, left = _against(run, first, seed=seed)
        differences += subtracted
        unpaired += left
    return Comparison(
        runs=tuple(
            RunRows(name=run.name, rows=tuple(row for row in run.report.rows if row.metric == "accuracy"))
            for run in runs
        ),
        differences=tuple(differences),
        unpaired=tuple(unpaired),
        settings=setting_differences([run.report for run in runs]),
    )


def reported_predictions(run: Path) -> list[Predictions]:
    """What the methods of a finished run said of its reported splits.

    Raises:
        DataError: the folder holds no finished run.
    """
    files = sorted((run / "work" / "predictions").glob("*.safetensors"))
    if not files:
        raise DataError(
            f"{run} is not the folder of a finished run: it has no predictions in work/predictions; give what --out "
            "of `headfirst run` named"
        )
    found = []
    for path in files:
        predictions, record = load_predictions(path)
        found += predictions[: record["num_reported"]]
    return found


def setting_differences(reports: Sequence[Report]) -> tuple[SettingDifference, ...]:
    """Recipe, backbone, images and versions that are not the same in all reports."""
    settings = [dict(_settings(report)) for report in reports]
    names = dict.fromkeys(name for one in settings for name in one)
    rows = {name: tuple(one.get(name, ABSENT) for one in settings) for name in names}
    return tuple(SettingDifference(name=name, values=row) for name, row in rows.items() if len(set(row)) > 1)


def _settings(report: Report) -> Iterator[tuple[str, str]]:
    if report.data is not None:
        yield "data", report.data.name
        yield from ((f"images of {split}", str(sum(n.values()))) for split, n in report.data.counts.items())
    # What the settings led to (learning rates chosen, seconds) is no setting.
    yield from _flat({name: value for name, value in report.recipe.items() if name != "models"})
    yield from _flat(report.versions, "version of ")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _require_same_classes(run: FinishedRun, baseline: FinishedRun) -> None:
    ours, theirs = (set(one.predictions[0].classes) for one in (run, baseline))
    if ours != theirs:
        only = [f"{one.name} alone knows {', '.join(sorted(more)[:5])}{', …' if len(more) > 5 else ''}"
                for one, more in ((run, ours - theirs), (baseline, theirs - ours)) if more]  # fmt: skip
        raise DataError(f"runs can be compared where their classes are the same, but {' and '.join(only)}")


def _against(run: FinishedRun, baseline: FinishedRun, *, seed: int) -> tuple[list[RunDifference], list[Unpaired]]:
    """Paired differences of every method and split of both, and why there is none for the others."""
    ours, theirs = by_method_and_split(run.predictions), by_method_and_split(baseline.predictions)
    found: list[RunDifference] = []
    reasons: list[Unpaired] = []
    our_labels, their_labels = _labels(ours), _labels(theirs)
    splits = [split for split in their_labels if split in our_labels]
    for split in splits:
        if our_labels[split] != their_labels[split]:
            reason = _how_they_differ(our_labels[split], their_labels[split])
            reasons.append(Unpaired(run=run.name, baseline=baseline.name, split=split, reason=reason))
    same = [split for split in splits if our_labels[split] == their_labels[split]]
    shifts = {split for split in (*our_labels, *their_labels) if split.startswith("shift-")}
    for method in dict.fromkeys(method for method, _ in theirs):
        gaps: dict[str, Tensor] = {}
        seeds: tuple[int, ...] = ()
        for split in same:
            a, b = ours.get((method, split), []), theirs.get((method, split), [])
            seeds = tuple(sorted({p.seed for p in a} & {p.seed for p in b}))
            if seeds:
                gaps[split] = _right(a, seeds).double() - _right(b, seeds).double()
            elif a and b:
                why = "no training seed in common"
                reasons.append(Unpaired(run=run.name, baseline=baseline.name, split=split, reason=why, method=method))
        blocks = {split: [gap] for split, gap in gaps.items()}
        if len(shifts) > 1 and gaps.keys() >= shifts:
            blocks[MEAN_OVER_SHIFTS] = [gaps[split] for split in sorted(shifts)]
        for split, gap in blocks.items():
            interval = mean_over_splits(gap, seed=seed, bounds=(-1.0, 1.0))
            found.append(
                RunDifference(run=run.name, baseline=baseline.name, method=method, split=split, **asdict(interval),
                              n=sum(block.shape[1] for block in gap), seeds=seeds)
            )  # fmt: skip
    return found, reasons


def _labels(groups: Mapping[tuple[str, str], Sequence[Predictions]]) -> dict[str, dict[str, str]]:
    """The class of each image, by split and id."""
    return {
        split: {id_: p.classes[label] for id_, label in zip(p.ids, p.labels.tolist(), strict=True)}
        for (_, split), (p, *_) in groups.items()
    }


def _how_they_differ(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    shared = ours.keys() & theirs.keys()
    relabelled = sum(ours[id_] != theirs[id_] for id_ in shared)
    what = f"the images differ: {len(ours)} and {len(theirs)}, of which {len(shared)} bear the same name"
    return what + (f" and {relabelled} of those another label" if relabelled else "")


def _right(group: Sequence[Predictions], seeds: Sequence[int]) -> Bool[Tensor, "s n"]:
    """Whether each of `seeds` is right, the images in the order of their ids."""
    by_seed = {p.seed: p for p in group}
    order = sorted(range(len(group[0])), key=lambda i: group[0].ids[i])
    return correct([by_seed[seed] for seed in seeds])[:, order]

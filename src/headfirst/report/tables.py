"""Rows arranged as a reader looks them up: method down the side, split across the top."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headfirst.metrics import MEAN_OVER_SHIFTS, WORST_SHIFT
from headfirst.report.numbers import decimal, percent, points
from headfirst.types import Confusion, Report, Row

HOME = "test"
CLASS_ACCURACY = "class_accuracy:"

_TITLES = {
    "accuracy": "Accuracy (%)",
    "balanced_accuracy": "Balanced accuracy (%)",
    "log_loss": "Log-loss (nats)",
    "brier_score": "Brier score (0 to 2)",
    "expected_calibration_error": "Calibration error, bins of equal mass (%)",
    "expected_calibration_error_width": "Calibration error, bins of equal width (%)",
    "log_loss_calibrated": "Log-loss, calibrated (nats)",
    "brier_score_calibrated": "Brier score, calibrated (0 to 2)",
    "expected_calibration_error_calibrated": "Calibration error, calibrated (%)",
    "coverage_least_ambiguous": "Coverage of least ambiguous sets (%; meant: 90)",
    "set_size_least_ambiguous": "Classes in a least ambiguous set",
    "coverage_adaptive": "Coverage of adaptive sets (%; meant: 90)",
    "set_size_adaptive": "Classes in an adaptive set",
    "area_under_risk_coverage": "Area under the risk-coverage curve",
}
_SHARES = ("accuracy", "balanced_accuracy", "expected_calibration_error", "coverage_")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of one metric by (method, split); `methods` and `splits` in the order to show them."""

    metric: str
    methods: tuple[str, ...]
    splits: tuple[str, ...]
    rows: Mapping[tuple[str, str], Row]

    def row(self, method: str, split: str) -> Row | None:
        return self.rows.get((method, split))

    def of_method(self, method: str) -> tuple[Row, ...]:
        return tuple(row for row in self.rows.values() if row.method == method)

    def of_split(self, split: str) -> tuple[Row, ...]:
        return tuple(row for row in self.rows.values() if row.split == split)

    @property
    def title(self) -> str:
        return title(self.metric)


def table(rows: Iterable[Row], metric: str) -> Table:
    """The rows of `metric`: home first, then what sums the shifts up, then the shifts as they come."""
    chosen = [row for row in rows if row.metric == metric]
    splits = list(dict.fromkeys(row.split for row in chosen))
    first = [name for name in (HOME, MEAN_OVER_SHIFTS, WORST_SHIFT) if name in splits]
    return Table(
        metric=metric,
        methods=tuple(dict.fromkeys(row.method for row in chosen)),
        splits=(*first, *(name for name in splits if name not in first)),
        rows={(row.method, row.split): row for row in chosen},
    )


def title(metric: str) -> str:
    """A metric's name for reading, with its unit."""
    return _TITLES.get(metric, metric.replace("_", " "))


def difference_tables(rows: Iterable[Row]) -> tuple[tuple[str, Table], ...]:
    """For each baseline: its name and the table of paired differences against it."""
    rows = [row for row in rows if row.metric == "accuracy_difference"]
    baselines = dict.fromkeys(row.baseline or "" for row in rows)
    return tuple(
        (name, table((row for row in rows if (row.baseline or "") == name), "accuracy_difference"))
        for name in baselines
    )


def further_tables(rows: Iterable[Row]) -> tuple[Table, ...]:
    """Every metric that has no place of its own on the page."""
    rows = tuple(rows)
    elsewhere = ("accuracy", "accuracy_difference")
    names = dict.fromkeys(
        row.metric for row in rows if row.metric not in elsewhere and not row.metric.startswith(CLASS_ACCURACY)
    )
    return tuple(table(rows, name) for name in names)


def class_table(rows: Iterable[Row], method: str) -> Table:
    """Accuracy by class of one method: the classes take the place of the methods."""
    by_class = {
        (row.metric.removeprefix(CLASS_ACCURACY), row.split): row
        for row in rows
        if row.method == method and row.metric.startswith(CLASS_ACCURACY)
    }
    return Table(
        metric="accuracy",
        methods=tuple(dict.fromkeys(name for name, _ in by_class)),
        splits=tuple(dict.fromkeys(split for _, split in by_class)),
        rows=by_class,
    )


def shown_value(row: Row) -> str:
    """The estimate as the page prints it."""
    return _format(row.metric)(row.value)


def shown_interval(row: Row) -> str:
    """The interval as the page prints it."""
    show = _format(row.metric)
    between = " to " if row.metric == "accuracy_difference" else "–"
    return f"{show(row.low)}{between}{show(row.high)}"


def is_clear(row: Row) -> bool:
    """Whether a difference's interval leaves zero out."""
    return row.low > 0 or row.high < 0


def shown_confusions(report: Report) -> tuple[Confusion, ...]:
    """Of the recommended method (else of the first there is): home, and the shift with most mistakes."""
    if not report.confusions:
        return ()
    method = report.recommendation.method if report.recommendation else report.confusions[0].method
    ours = [confusion for confusion in report.confusions if confusion.method == method]
    home = [confusion for confusion in ours if confusion.split == HOME]
    away = sorted((confusion for confusion in ours if confusion.split != HOME), key=_share_right)
    return (*home[:1], *away[:1])


def most_confused(confusion: Confusion, limit: int = 20) -> tuple[tuple[int, int, int], ...]:
    """(class, called, count), most frequent first: what stands in for a matrix too large to read."""
    pairs = [(i, j, count) for i, row in enumerate(confusion.counts) for j, count in enumerate(row) if i != j and count]
    return tuple(sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))[:limit])


def flattened(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (dotted name, text)."""
    for name, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{name}", ", ".join(str(item) for item in value) or "none"
        else:
            yield f"{prefix}{name}", "none" if value is None else str(value)


def _format(metric: str) -> Callable[[float], str]:
    if metric == "accuracy_difference":
        return points
    if metric.startswith((*_SHARES, CLASS_ACCURACY)):
        return percent
    return decimal


def _share_right(confusion: Confusion) -> float:
    total = sum(map(sum, confusion.counts))
    return sum(row[i] for i, row in enumerate(confusion.counts)) / total if total else 1.0

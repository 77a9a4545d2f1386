"""`Comparison` → compare.html, compare.json, and the tables a terminal shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headfirst.report import numbers, tables
from headfirst.report.document import plain
from headfirst.report.files import write_all
from headfirst.report.template import render

if TYPE_CHECKING:
    from headfirst.study.compare import Comparison, RunDifference

COMPARISON_VERSION = 1


def write_comparison(comparison: Comparison, directory: str | Path) -> Path:
    """Write compare.html and compare.json into `directory`, made if need be; the path of compare.html."""
    directory = Path(directory)
    contents = {"compare.html": comparison_page(comparison), "compare.json": comparison_json(comparison) + "\n"}
    write_all(contents, directory)
    return directory / "compare.html"


def comparison_json(comparison: Comparison) -> str:
    """The comparison as JSON, field by field."""
    document = {"schema_version": COMPARISON_VERSION, **plain(comparison, "comparison")}
    return json.dumps(document, indent=1, allow_nan=False)


def comparison_page(comparison: Comparison) -> str:
    """One self-contained page: accuracies run by run, paired differences, what is not the same."""
    return render(
        "compare.html",
        comparison=comparison,
        accuracy=[(run.name, tables.table(run.rows, "accuracy")) for run in comparison.runs],
        methods=_methods(comparison),
        splits=_splits(comparison),
        differences=_by_run(comparison),
        unpaired=unpaired_sentences(comparison),
        tables=tables,
        numbers=numbers,
    )


def comparison_text(comparison: Comparison) -> str:
    """The same as plain text: accuracy in per cent, differences in points, each with its 95 % interval."""
    first = comparison.runs[0].name
    accuracies = {
        (row.method, run.name, row.split): f"{tables.shown_value(row)} [{tables.shown_interval(row)}]"
        for run in comparison.runs
        for row in run.rows
    }
    splits = _splits(comparison)
    lines = [("accuracy, %", "run", *splits)]
    for method in _methods(comparison):
        for run in comparison.runs:
            row = [accuracies.get((method, run.name, split), "") for split in splits]
            lines += [(method, run.name, *row)] if any(row) else []
    blocks = [_grid(lines)]
    for run, found in _by_run(comparison).items():
        lines = [(f"{run} minus {first}, points", *splits)]
        lines += [(method, *(_shown(cells.get(split)) for split in splits)) for method, cells in found.items()]
        blocks.append(_grid(lines))
    blocks += ["\n".join(unpaired_sentences(comparison))] if comparison.unpaired else []
    if comparison.settings:
        heads = ("differs", *(run.name for run in comparison.runs))
        blocks.append(_grid([heads, *((setting.name, *setting.values) for setting in comparison.settings)]))
    return "\n\n".join(blocks)


def unpaired_sentences(comparison: Comparison) -> list[str]:
    """Where nothing was subtracted, and why."""
    return [
        f"{one.run} and {one.baseline} are not paired on {one.split}"
        f"{f' for {one.method}' if one.method else ''}: {one.reason}."
        for one in comparison.unpaired
    ]


def _methods(comparison: Comparison) -> list[str]:
    return list(dict.fromkeys(row.method for run in comparison.runs for row in run.rows))


def _splits(comparison: Comparison) -> tuple[str, ...]:
    return tables.table((row for run in comparison.runs for row in run.rows), "accuracy").splits


def _by_run(comparison: Comparison) -> dict[str, dict[str, dict[str, RunDifference]]]:
    """Differences by run, method and split."""
    found: dict[str, dict[str, dict[str, RunDifference]]] = {}
    for difference in comparison.differences:
        found.setdefault(difference.run, {}).setdefault(difference.method, {})[difference.split] = difference
    return found


def _shown(cell: RunDifference | None) -> str:
    return f"{numbers.points(cell.value)} [{numbers.points(cell.low)} to {numbers.points(cell.high)}]" if cell else ""


def _grid(lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, numbers to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )

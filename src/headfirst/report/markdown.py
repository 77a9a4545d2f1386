"""`Report` → markdown: the page's numbers for a pull request or a terminal, without the pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from headfirst.report import numbers, tables
from headfirst.report.text import markdown_text
from headfirst.types import DataSummary, Recommendation, Report, Row


def markdown(report: Report) -> str:
    """The report as GitHub-flavoured markdown; names are escaped, so none starts markup or a cell."""
    recommended = report.recommendation.method if report.recommendation else None
    blocks = [*_head(report.recommendation, report.data)]
    accuracy = tables.table(report.rows, "accuracy")
    if accuracy.methods:
        blocks += ["## Accuracy (%, 95 % interval)", _grid(accuracy, recommended)]
    for baseline, table in tables.difference_tables(report.rows):
        title = f"## Paired differences against {markdown_text(baseline)} (points, 95 % interval)"
        blocks += [title, _grid(table, recommended)]
    for table in tables.further_tables(report.rows):
        blocks += [f"## {markdown_text(table.title)}", _grid(table, recommended)]
    if report.costs:
        head = ("method", "fit", "search", "peak memory (MB)", "trained parameters")
        lines = (
            (
                markdown_text(cost.method),
                numbers.duration(cost.seconds),
                numbers.duration(cost.search_seconds),
                numbers.megabytes(cost.peak_memory),
                numbers.count(cost.trained_parameters),
            )
            for cost in report.costs
        )
        blocks += ["## Cost", _table(head, lines)]
    blocks += _data(report.data) if report.data else []
    for title, mapping in (("Recipe", report.recipe), ("Versions", report.versions)):
        if mapping:
            lines = ((markdown_text(name), markdown_text(value)) for name, value in tables.flattened(mapping))
            blocks += [f"## {title}", _table(("setting", "value"), lines)]
    return "\n\n".join(blocks) + "\n"


def _head(recommendation: Recommendation | None, data: DataSummary | None) -> Iterator[str]:
    yield f"# Headfirst on {markdown_text(data.name)}" if data else "# Headfirst"
    if recommendation:
        yield f"**{markdown_text(recommendation.sentence)}**"
        yield markdown_text(recommendation.reason)
        yield markdown_text(recommendation.verdict)


def _grid(table: tables.Table, recommended: str | None) -> str:
    lines = []
    for method in table.methods:
        name = markdown_text(method)
        chosen = dict.fromkeys(row.chosen_on for row in table.of_method(method))
        lines.append(
            (
                f"**{name}**" if method == recommended else name,
                *(_cell(table.row(method, split)) for split in table.splits),
                markdown_text(", ".join(chosen)),
            )
        )
    return _table(("method", *map(markdown_text, table.splits), "chosen on"), lines)


def _cell(row: Row | None) -> str:
    return f"{tables.shown_value(row)} ({tables.shown_interval(row)})" if row else numbers.UNKNOWN


def _data(data: DataSummary) -> Iterator[str]:
    yield "## Data"
    if data.rules:
        yield "\n".join(f"- {markdown_text(rule)}" for rule in data.rules)
    totals = ((markdown_text(split), numbers.count(sum(c.values()))) for split, c in data.counts.items())
    yield _table(("split", "images"), totals)
    duplicates, aside = numbers.count(len(data.duplicates)), numbers.count(len(data.quarantined))
    yield f"Duplicates removed from the training side: {duplicates}. Files set aside: {aside}."
    if data.quarantined:
        lines = ((markdown_text(item.id), markdown_text(item.reason)) for item in data.quarantined[:20])
        yield _table(("file set aside", "reason"), lines)


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))

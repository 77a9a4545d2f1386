"""The comparison's page, JSON and text: every number is the comparison's, and foreign names stay text."""

from __future__ import annotations

import json
from pathlib import Path

from test_page import HOSTILE, Reader

from headfirst.report import comparison_text, numbers, write_comparison
from headfirst.report.compare_page import comparison_page
from headfirst.study.compare import Comparison, RunDifference, RunRows, SettingDifference, Unpaired
from headfirst.types import Row


def example(names: tuple[str, ...] = ("one", "two"), methods: tuple[str, ...] = ("probe", "lp-ft")) -> Comparison:
    splits = ("test", "shift-art")

    def row(method: str, split: str, value: float) -> Row:
        return Row(method=method, split=split, metric="accuracy", value=value, low=value - 0.05, high=value + 0.04,
                   n=40, seed_count=3, chosen_on="val")  # fmt: skip

    def rows(shift: float) -> tuple[Row, ...]:
        return tuple(row(m, s, 0.5 + shift + 0.1 * i) for m in methods for i, s in enumerate(splits))

    return Comparison(
        runs=tuple(RunRows(name=name, rows=rows(0.02 * i)) for i, name in enumerate(names)),
        differences=tuple(
            RunDifference(run=name, baseline=names[0], method=m, split="test", value=0.02 * i, low=0.02 * i - 0.01,
                          high=0.02 * i + 0.03, n=40, seeds=(0, 1))
            for i, name in enumerate(names) if i for m in methods
        ),
        unpaired=(Unpaired(run=names[1], baseline=names[0], split="shift-art", reason="the images differ"),),
        settings=(SettingDifference(name="shots", values=tuple(names)),),
    )  # fmt: skip


def test_every_number_on_the_page_is_the_comparisons() -> None:
    comparison = example(("one", "two", "three"))
    tables = [(a, body) for a, (_, *body) in Reader(comparison_page(comparison)).tables if "data-metric" in a]
    accuracies = next(body for a, body in tables if a["data-metric"] == "accuracy")
    rows = {(run.name, r.method, r.split): r for run in comparison.runs for r in run.rows}
    assert len(accuracies) == 6
    for (method,), (run,), *cells in accuracies:
        for split, (value, interval) in zip(("test", "shift-art"), cells, strict=True):
            found = rows[run, method, split]
            assert value == numbers.percent(found.value)
            assert interval == f"{numbers.percent(found.low)}–{numbers.percent(found.high)}"
    found = {(d.run, d.method, d.split): d for d in comparison.differences}
    seen = set()
    for attributes, body in tables:
        if attributes["data-metric"] != "accuracy_difference":
            continue
        for (method,), (value, interval), (nothing,) in body:
            d = found[attributes["data-run"], method, "test"]
            assert value == numbers.points(d.value)
            assert interval == f"{numbers.points(d.low)} to {numbers.points(d.high)}"
            assert nothing == "–"
            seen.add((d.run, method, "test"))
    assert seen == found.keys()


def test_text_says_the_same() -> None:
    text = comparison_text(example())
    lines = text.splitlines()
    assert lines[0].split() == ["accuracy,", "%", "run", "test", "shift-art"]
    assert "52.0 [47.0–56.0]" in next(line for line in lines if line.startswith("probe") and "two" in line)
    start = lines.index(next(line for line in lines if line.startswith("two minus one, points")))
    assert "+2.0 [+1.0 to +5.0]" in lines[start + 1]
    assert "two and one are not paired on shift-art: the images differ." in lines
    assert text.splitlines()[-1].split() == ["shots", "one", "two"]


def test_foreign_names_stay_text() -> None:
    html = comparison_page(example(HOSTILE, HOSTILE))
    reader = Reader(html)
    assert {"script", "img", "link"}.isdisjoint(reader.tags)
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "default-src 'none'" in html


def test_two_files_are_written_and_the_json_is_the_comparison(tmp_path: Path) -> None:
    comparison = example()
    assert write_comparison(comparison, tmp_path / "out") == tmp_path / "out" / "compare.html"
    document = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert document["schema_version"] == 1
    assert [d["value"] for d in document["differences"]] == [d.value for d in comparison.differences]
    assert [r["name"] for r in document["runs"]] == ["one", "two"]


def test_runs_that_are_all_alike_are_said_to_be() -> None:
    comparison = example()
    alike = Comparison(runs=comparison.runs, differences=(), unpaired=(), settings=())
    html = comparison_page(alike)
    assert "versions are the same" in html
    assert "Paired differences" not in html

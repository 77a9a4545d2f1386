"""JSON lines survive a kill in the middle of a write."""

from __future__ import annotations

from pathlib import Path

from headfirst.train import append_line, read_lines


def test_a_torn_line_takes_neither_its_neighbour_before_nor_after(tmp_path: Path):
    path = tmp_path / "new" / "lines.jsonl"
    assert read_lines(path) == []
    append_line(path, {"a": 1})
    with path.open("a") as file:
        file.write('\n{"a": 2, "b')
    append_line(path, {"a": 3})
    assert read_lines(path) == [{"a": 1}, {"a": 3}]

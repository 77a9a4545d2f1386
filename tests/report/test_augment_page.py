"""The page of an augmentation: every number is the report's, nothing foreign runs or is fetched."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest
from test_page import HOSTILE, Reader

from headfirst.augment import KEPT, MEMORISED, VERDICTS, ClassCoverage, Provenance
from headfirst.errors import InputError
from headfirst.metrics import Interval, Memorisation
from headfirst.report import numbers, write_augmentation
from headfirst.report.augment_page import augment_page, provenance_csv
from headfirst.study.augmentation_report import CROSS_VALIDATION, AugmentationReport, RatioRow, ShownSample

PIXEL = "data:image/png;base64,iVBORw0KGgo="
SPLITS = (CROSS_VALIDATION, "test", "shift-sketch")


def example(names: tuple[str, ...] = ("dog", "horse"), chosen: float = 0.0, test: float = 0.0) -> AugmentationReport:
    def row(ratio: float) -> RatioRow:
        gains = (0.01 * ratio, test or 0.002 * ratio, -0.03 * ratio)
        return RatioRow(
            ratio=ratio, added=int(20 * ratio), repeated=int(3 * ratio),
            accuracy={s: Interval(0.8 + g, 0.75, 0.95) for s, g in zip(SPLITS, gains, strict=True)},
            gain={s: Interval(g, g - 0.01, g + 0.01) for s, g in zip(SPLITS, gains, strict=True)} if ratio else {},
        )  # fmt: skip

    return AugmentationReport(
        name=names[0],
        generator="VAE(epochs=3)",
        chosen=chosen,
        rows=tuple(map(row, (0.0, 0.5, 2.0))),
        splits=SPLITS,
        num={CROSS_VALIDATION: 40, "test": 2000, "shift-sketch": 90},
        verdicts={name: {v: 7 * i + j for j, v in enumerate(VERDICTS)} for i, name in enumerate(names)},
        cross_validated={v: 1000 + j for j, v in enumerate(VERDICTS)},
        coverage=tuple(ClassCoverage(class_name=name, covered=30, num=50, value=0.6, low=0.45, high=0.74, by_real=0.9)
                       for name in names),
        memorisation=Memorisation(share=0.71, expected=0.5, z=1.0, p_value=0.031, least_p_value=1e-4,
                                  verdict="memorised"),
        shown=tuple(ShownSample(id=f"synthetic/{name}/{i}", class_name=name, called=names[-1], distance=0.5 + i,
                                verdict=(KEPT, MEMORISED)[i % 2], thumbnail=PIXEL, nearest=f"train/{name}",
                                nearest_thumbnail=PIXEL) for i, name in enumerate(names)),
        notes=(names[0],),
        recipe={"backbone": names[-1]},
        versions={"headfirst": "0.1.0"},
    )  # fmt: skip


def origin(name: str = "dog") -> Provenance:
    return Provenance(id=f"synthetic/{name}/ab-0-1", class_name=name, seed=0, index=1, generator="ab", nearest=name,
                      distance=0.25, verdict=KEPT, used=2)  # fmt: skip


def test_every_number_on_the_page_is_the_reports() -> None:
    report = example(chosen=2.0)
    found = {t[0].get("data-metric"): t[1] for t in Reader(augment_page(report)).tables}
    _, base, *rows = found["gain"]
    assert [cell[0] for cell in base[1:4]] == ["80.0", "80.0", "80.0"]
    for cells, row in zip(rows, report.rows[1:], strict=True):
        for (value, interval), split in zip(cells[1:4], SPLITS, strict=True):
            gain = row.gain[split]
            assert value == numbers.points(gain.value)
            assert interval == f"{numbers.points(gain.low)} to {numbers.points(gain.high)}"
        assert cells[4] == [str(row.added), f"{row.repeated} repeated"] or cells[4][0] == str(row.added)
    assert rows[1][0] == ["2", "chosen"]
    _, *classes, together = found["verdicts"]
    for (name,), *counts in classes:
        assert [int(count) for (count,) in counts] == [report.verdicts[name][v] for v in VERDICTS]
    assert [count for (count,) in together[1:]] == ["1,000", "1,001", "1,002", "1,003"]
    _, *reached = found["coverage"]
    assert [[cell[0] for cell in row] for row in reached] == [[n, "50", "60.0", "90.0"] for n in ("dog", "horse")]


@pytest.mark.parametrize(
    ("chosen", "test", "words"),
    [
        (0.0, 0.0, ["Synthetic images do not help here: none are added. The best ratio, 2 for each real image, gives "
                    "+2.0 points [1.0, 3.0]"]),
        (0.0, 0.05, ["none are added", "On test that ratio gives +5.0 points [4.0, 6.0]; it was not chosen there."]),
        (2.0, 0.05, ["2 synthetic images for each real one are added: +2.0 points", "test bears it out: +5.0 points",
                     "On shift-sketch they do harm: -6.0 points [-7.0, -5.0]. Leave them out"]),
        (2.0, 0.0, ["On test no difference can be told: +0.4 points"]),
    ],
)  # fmt: skip
def test_the_verdict_says_what_was_found(chosen: float, test: float, words: list[str]) -> None:
    report = example(chosen=chosen, test=test)
    for some in words:
        assert some in " ".join(report.sentences())
        assert some in augment_page(report)


def test_the_page_is_one_file_that_fetches_and_runs_nothing() -> None:
    html = augment_page(example(HOSTILE))
    reader = Reader(html)
    assert {"script", "link", "iframe", "object"}.isdisjoint(reader.tags)
    sources = [value for _, name, value in reader.attributes if name in ("src", "href")]
    assert sources
    assert all(value.startswith(("data:image/", "#")) for value in sources)
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    assert "<script>alert(1)" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_four_files_are_written_and_say_the_same(tmp_path: Path) -> None:
    report = example()
    assert write_augmentation(report, [origin()], tmp_path) == tmp_path / "augment.html"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "augment.html", "augment.json", "provenance.csv", "provenance.json",
    ]  # fmt: skip
    document = json.loads((tmp_path / "augment.json").read_text())
    assert document["sentences"] == list(report.sentences())
    assert document["rows"][2]["gain"]["test"] == dataclasses.asdict(report.rows[2].gain["test"])
    assert "base64" not in json.dumps(document)
    assert json.loads((tmp_path / "provenance.json").read_text()) == [dataclasses.asdict(origin())]
    (line,) = csv.DictReader(io.StringIO((tmp_path / "provenance.csv").read_text()))
    assert line == {name: str(value) for name, value in dataclasses.asdict(origin()).items()}


def test_no_cell_is_a_formula_and_no_address_is_fetched() -> None:
    (line,) = csv.DictReader(io.StringIO(provenance_csv([origin("=1+1")])))
    assert (line["class_name"], line["nearest"]) == ("'=1+1", "'=1+1")
    report = example()
    shown = dataclasses.replace(report.shown[0], nearest_thumbnail="https://example.org/a.png")
    with pytest.raises(InputError, match="must be data:image"):
        augment_page(dataclasses.replace(report, shown=(shown,)))

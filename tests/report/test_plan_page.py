"""The plan's files: every number is the plan's, nothing foreign runs or is fetched."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from test_page import HOSTILE, Reader

from headfirst.errors import InputError
from headfirst.report import numbers, write_plan
from headfirst.report.curve import curve_figure
from headfirst.report.plan_page import plan_csv, plan_page
from headfirst.study.label_plan import LabelPlan, Pick
from headfirst.study.worth import Curve, CurvePoint, Worth, sentence

PIXEL = "data:image/png;base64,iVBORw0KGgo="


def worth(name: str | None, value: float = 0.02) -> Worth:
    return Worth(class_name=name, labels=20.0, recall=0.8, more=20, value=value, low=value - 0.015, high=value + 0.015)


def example_plan(names: tuple[str, ...] = ("dog", "horse", "person")) -> LabelPlan:
    def point(k: float) -> CurvePoint:
        value = 0.95 - 0.8 * k**-0.7
        return CurvePoint(labels=k, value=value, low=value - 0.04, high=min(1.0, value + 0.04))

    classes = tuple(worth(name, 0.03 - 0.01 * i) for i, name in enumerate(names))
    curve = Curve(
        a=0.95, b=0.8, c=0.7, measured=tuple(map(point, (2.0, 4.0, 5.0, 7.0, 10.0, 14.0, 20.0))),
        law=tuple(point(2.0 * 20 ** (i / 39)) for i in range(40)), worth=worth(None, 0.025),
    )  # fmt: skip
    return LabelPlan(
        name=names[0],
        curve=curve,
        classes=classes,
        picks=tuple(
            Pick(rank=i + 1, id=f"unlabelled/{name}", cluster=i, cluster_size=40 - i, cluster_labels=i % 2,
                 distance=0.1 * i, thumbnail=PIXEL)
            for i, name in enumerate(names)
        ),
        sentences=tuple(map(sentence, (curve.worth, *classes))),
        notes=("Of 37 classes, the 10 with the lowest recall on val were valued alone.", names[0]),
        recipe={"seeds": 10, "l2": 1e-3, "backbone": names[-1]},
        versions={"headfirst": "0.1.0"},
    )  # fmt: skip


def test_every_worth_on_the_page_is_the_plans() -> None:
    plan = example_plan()
    _, (_, *body) = next(t for t in Reader(plan_page(plan)).tables if t[0].get("data-metric") == "worth")
    assert len(body) == len(plan.classes)
    for (name,), (labels,), (recall,), (value, interval) in body:
        found = next(w for w in plan.classes if w.class_name == name)
        assert (labels, recall) == ("20", "80.0")
        assert value == numbers.points(found.value)
        assert interval == f"{numbers.points(found.low)} to {numbers.points(found.high)}"


def test_the_page_is_one_file_that_fetches_and_runs_nothing() -> None:
    html = plan_page(example_plan(HOSTILE))
    reader = Reader(html)
    assert {"script", "link", "iframe", "object"}.isdisjoint(reader.tags)
    sources = [value for _, name, value in reader.attributes if name in ("src", "href")]
    assert all(value.startswith(("data:image/", "#")) for value in sources)
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    assert "<script>alert(1)" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "default-src 'none'" in html


def test_csv_cells_are_no_formulas_and_wait_for_labels() -> None:
    plan = example_plan(("=1+1", "dog"))
    plan = dataclasses.replace(plan, picks=tuple(dataclasses.replace(p, id=p.id.split("/")[1]) for p in plan.picks))
    rows = list(csv.DictReader(io.StringIO(plan_csv(plan))))
    assert [row["path"] for row in rows] == ["'=1+1", "dog"]
    assert [row["label"] for row in rows] == ["", ""]
    assert [row["cluster_size"] for row in rows] == ["40", "39"]


def test_three_files_are_written_and_the_json_is_the_plan(tmp_path: Path) -> None:
    plan = example_plan()
    assert write_plan(plan, tmp_path / "out") == tmp_path / "out" / "plan.html"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["plan.csv", "plan.html", "plan.json"]
    document = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert document["schema_version"] == 1
    assert [w["value"] for w in document["classes"]] == [w.value for w in plan.classes]
    assert [p["id"] for p in document["picks"]] == [p.id for p in plan.picks]
    assert "thumbnail" not in document["picks"][0]


def test_points_of_the_figure_lie_where_the_numbers_say() -> None:
    curve = example_plan().curve
    assert curve is not None
    svg = ElementTree.fromstring(curve_figure(curve))
    uses = [u for u in svg.iter("{http://www.w3.org/2000/svg}use") if "var(--ink)" in (u.get("style") or "")]
    at = [(float(u.get("x") or 0), -float(u.get("y") or 0)) for u in uses]
    assert len(at) == len(curve.measured)
    for axis, values in enumerate(([p.labels for p in curve.measured], [p.value for p in curve.measured])):
        slope = (at[-1][axis] - at[0][axis]) / (values[-1] - values[0])
        assert slope > 0
        assert [p[axis] for p in at] == pytest.approx([at[0][axis] + slope * (v - values[0]) for v in values], abs=0.01)
    assert curve_figure(curve) == curve_figure(curve)


def test_a_list_alone_and_a_curve_alone_make_a_page() -> None:
    plan = example_plan()
    alone = plan_page(dataclasses.replace(plan, curve=None, classes=(), sentences=()))
    assert "3 images to label first" in alone
    assert "<svg" not in alone
    assert "Label these first" not in plan_page(dataclasses.replace(plan, picks=()))


def test_a_thumbnail_that_would_be_fetched_is_refused() -> None:
    plan = example_plan()
    pick = dataclasses.replace(plan.picks[0], thumbnail="https://example.org/x.jpg")
    with pytest.raises(InputError, match="must be data:image/jpeg"):
        plan_page(dataclasses.replace(plan, picks=(pick,)))

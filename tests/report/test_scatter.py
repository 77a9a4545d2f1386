import dataclasses
import itertools
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headfirst.report.scatter import scatter, spread
from headfirst.report.tables import table

heights = st.lists(st.floats(0, 1), min_size=1, max_size=10).map(sorted)


@given(heights)
def test_labels_never_overlap_and_stay_inside(wanted):
    placed = spread(wanted, gap=0.08, low=0.0, high=1.0)
    assert all(b - a >= 0.08 - 1e-9 for a, b in itertools.pairwise(placed))
    assert placed[0] >= -1e-9
    assert placed[-1] <= 1 + 1e-9


def test_labels_far_apart_do_not_move():
    assert spread([0.1, 0.5, 0.9], gap=0.1, low=0.0, high=1.0) == pytest.approx([0.1, 0.5, 0.9])


def test_each_method_is_named_once_and_points_lie_where_the_numbers_say(report):
    svg = ElementTree.fromstring(scatter(table(report.rows, "accuracy"), "lp-ft"))
    space = "{http://www.w3.org/2000/svg}"
    names = [text.text for text in svg.iter(f"{space}text")]
    methods = ("knn", "probe", "finetune", "wise-ft", "lp-ft")  # the recommended one is drawn on top
    assert [names.count(name) for name in methods] == [1] * 5
    rows = {(r.method, r.split): r.value for r in report.rows if r.metric == "accuracy"}
    # Round markers alone are drawn as <use> with these colours, in that order.
    marks = [
        (float(use.get("x")), -float(use.get("y")))
        for use in svg.iter(f"{space}use")
        if "stroke: var(--ink)" in use.get("style") or "stroke: var(--accent)" in use.get("style")
    ]
    assert len(marks) == 5
    for axis, split in enumerate(("test", "mean over shifts")):
        values = [rows[method, split] for method in methods]
        at = [mark[axis] for mark in marks]
        slope = (at[0] - at[3]) / (values[0] - values[3])
        assert slope > 0
        assert at == pytest.approx([at[0] + slope * (v - values[0]) for v in values], abs=0.01)


def test_one_shift_stands_for_the_mean_and_none_gives_no_figure(report):
    only = [r for r in report.rows if r.split in ("test", "shift-art")]
    assert "shift-art" in scatter(table(only, "accuracy"), None)
    assert scatter(table([r for r in only if r.split == "test"], "accuracy"), None) is None


def test_numbers_that_are_not_finite_are_left_out(report):
    rows = [
        dataclasses.replace(r, low=float("-inf")) if r.method == "knn" else r
        for r in report.rows
        if r.metric == "accuracy"
    ]
    assert ">knn<" not in scatter(table(rows, "accuracy"), None)


def test_a_name_is_never_read_as_a_formula(report):
    rows = [dataclasses.replace(r, method=r.method.replace("knn", "$\\frac{a}{b}$")) for r in report.rows]
    svg = scatter(table(rows, "accuracy"), None)
    assert "$\\frac{a}{b}$" in [text.text for text in ElementTree.fromstring(svg).iter() if text.text]

"""`LabelPlan` → plan.html, plan.csv, plan.json."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from headfirst.report import numbers, tables
from headfirst.report.curve import curve_figure
from headfirst.report.document import plain
from headfirst.report.files import write_all
from headfirst.report.template import render, require_inline
from headfirst.report.text import safe_cell

if TYPE_CHECKING:
    from headfirst.study.label_plan import LabelPlan

PLAN_VERSION = 1


def write_plan(plan: LabelPlan, directory: str | Path) -> Path:
    """Write the three files into `directory`, made if need be.

    Returns:
        The path of plan.html.

    Raises:
        InputError: a thumbnail that is no inline JPEG or PNG.
    """
    directory = Path(directory)
    contents = {"plan.html": plan_page(plan), "plan.csv": plan_csv(plan), "plan.json": plan_json(plan) + "\n"}
    write_all(contents, directory)
    return directory / "plan.html"


def plan_json(plan: LabelPlan) -> str:
    """The plan as JSON, field by field; thumbnails are on the page alone."""
    document = {"schema_version": PLAN_VERSION, **plain(plan, "plan")}
    document["picks"] = [{k: v for k, v in pick.items() if k != "thumbnail"} for pick in document["picks"]]
    return json.dumps(document, indent=1, allow_nan=False)


def plan_csv(plan: LabelPlan) -> str:
    """The images to label, with an empty column for the labels; no cell is a formula."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["rank", "path", "label", "cluster", "cluster_size", "cluster_labels", "distance"])
    for pick in plan.picks:
        writer.writerow(
            [pick.rank, safe_cell(pick.id), "", pick.cluster, pick.cluster_size, pick.cluster_labels, pick.distance]
        )
    return buffer.getvalue()


def plan_page(plan: LabelPlan) -> str:
    """One self-contained page: the sentences, the curve, the classes, a contact sheet."""
    for pick in plan.picks:
        require_inline(pick.id, pick.thumbnail)
    return render(
        "plan.html",
        plan=plan,
        # Made by matplotlib from numbers alone.
        figure=Markup(curve_figure(plan.curve)) if plan.curve else None,
        tables=tables,
        numbers=numbers,
    )

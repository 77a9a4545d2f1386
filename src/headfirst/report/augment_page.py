"""`AugmentationReport` → augment.html, augment.json, and where each generated image comes from as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING

from headfirst.augment import KEPT, VERDICTS, Provenance
from headfirst.report import numbers, tables
from headfirst.report.document import plain
from headfirst.report.files import write_all
from headfirst.report.template import render, require_inline
from headfirst.report.text import safe_cell

if TYPE_CHECKING:
    from headfirst.study.augmentation_report import AugmentationReport

AUGMENT_VERSION = 1


def write_augmentation(report: AugmentationReport, provenance: Sequence[Provenance], directory: str | Path) -> Path:
    """Write augment.html, augment.json, provenance.csv and provenance.json into `directory`, made if need be.

    Returns:
        The path of augment.html.

    Raises:
        InputError: a thumbnail that is no inline JPEG or PNG; a value that JSON cannot hold.
    """
    directory = Path(directory)
    contents = {
        "augment.html": augment_page(report),
        "provenance.csv": provenance_csv(provenance),
        "provenance.json": json.dumps(plain(tuple(provenance), "provenance"), indent=1, allow_nan=False) + "\n",
        "augment.json": augment_json(report) + "\n",
    }
    write_all(contents, directory)
    return directory / "augment.html"


def augment_json(report: AugmentationReport) -> str:
    """The report as JSON, field by field, with its sentences; pictures are on the page alone."""
    document = {"schema_version": AUGMENT_VERSION, **plain(report, "augmentation"), "sentences": report.sentences()}
    document["shown"] = [{k: v for k, v in one.items() if "thumbnail" not in k} for one in document["shown"]]
    return json.dumps(document, indent=1, allow_nan=False)


def provenance_csv(rows: Sequence[Provenance]) -> str:
    """One line an image; no cell is a formula."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([field.name for field in fields(Provenance)])
    for row in rows:
        writer.writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in astuple(row)])
    return buffer.getvalue()


def augment_page(report: AugmentationReport) -> str:
    """One self-contained page: the verdict, gains by ratio, what was thrown out and why, coverage, pictures."""
    for shown in report.shown:
        require_inline(shown.id, shown.thumbnail)
        require_inline(shown.nearest, shown.nearest_thumbnail)
    return render(
        "augment.html",
        report=report,
        verdicts=VERDICTS,
        kept=KEPT,
        groups=[(v, [shown for shown in report.shown if shown.verdict == v]) for v in VERDICTS],
        tables=tables,
        numbers=numbers,
    )

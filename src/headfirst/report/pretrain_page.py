"""`PretrainReport` → pretrain.html, pretrain.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from headfirst.report import numbers, tables
from headfirst.report.document import plain
from headfirst.report.files import write_all
from headfirst.report.pretrain_curves import curves_figure
from headfirst.report.template import render, require_inline

if TYPE_CHECKING:
    from headfirst.study.pretrain_report import PretrainReport

PRETRAIN_VERSION = 1

_PICTURES = ("thumbnail", "image", "masked", "reconstruction")


def write_pretrain(report: PretrainReport, directory: str | Path) -> Path:
    """Write pretrain.html and pretrain.json into `directory`, made if need be; the path of pretrain.html.

    Raises:
        InputError: a thumbnail that is no inline JPEG or PNG; a value that JSON cannot hold.
    """
    directory = Path(directory)
    write_all({"pretrain.html": pretrain_page(report), "pretrain.json": pretrain_json(report) + "\n"}, directory)
    return directory / "pretrain.html"


def pretrain_json(report: PretrainReport) -> str:
    """The report as JSON, field by field, with the verdicts; pictures are on the page alone."""
    document = _without_pictures({"schema_version": PRETRAIN_VERSION, **plain(report, "pretrain")})
    document["verdicts"] = list(report.label_efficiency.verdicts()) if report.label_efficiency else []
    return json.dumps(document, indent=1, allow_nan=False)


def pretrain_page(report: PretrainReport) -> str:
    """One self-contained page: will it help, what was seen before, how training went, what the network sees alike."""
    for id_, picture in _shown(report):
        require_inline(id_, picture)
    figure = curves_figure(report.readings, report.events)
    efficiency = report.label_efficiency
    return render(
        "pretrain.html",
        report=report,
        epochs=max((int(reading.get("epoch") or 0) for reading in report.readings), default=0),
        verdicts=efficiency.verdicts() if efficiency else (),
        # Made by matplotlib from numbers alone.
        figure=Markup(figure) if figure else None,
        columns=_columns(report),
        tables=tables,
        numbers=numbers,
    )


def _columns(report: PretrainReport) -> tuple[str, ...]:
    """What was read, the epoch first."""
    names = dict.fromkeys(name for reading in report.readings for name, value in reading.items() if value is not None)
    return tuple(sorted(names, key=lambda name: name != "epoch"))


def _shown(report: PretrainReport) -> Iterator[tuple[str, str]]:
    for near in report.neighbours:
        yield from ((shown.id, shown.thumbnail) for shown in (near, *near.neighbours))
    yield from ((outlier.id, outlier.thumbnail) for outlier in report.outliers)
    for triple in report.reconstructions:
        yield from ((triple.id, shown) for shown in (triple.image, triple.masked, triple.reconstruction))


def _without_pictures(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _without_pictures(item)
            for name, item in value.items()
            if not (name in _PICTURES and isinstance(item, str) and item.startswith("data:image/"))
        }
    return [_without_pictures(item) for item in value] if isinstance(value, list) else value

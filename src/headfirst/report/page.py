"""`Report` → one self-contained HTML page: no script, no network, readable on a phone and on paper."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from markupsafe import Markup

from headfirst.errors import InputError
from headfirst.report import numbers, tables
from headfirst.report.evidence import evidence
from headfirst.report.scatter import scatter
from headfirst.report.text import printable
from headfirst.types import Report

if TYPE_CHECKING:
    from jinja2 import Template

_THUMBNAIL = re.compile(r"data:image/(jpeg|png);base64,[A-Za-z0-9+/]+=*")
LISTED = 200
"""Rows of a list (duplicates, quarantined files) on the page; report.json has them all."""
LARGEST_MATRIX = 16
"""Classes up to which a confusion matrix is drawn; beyond, its most frequent confusions are listed."""


def page(report: Report) -> str:
    """The page as text.

    Raises:
        InputError: a thumbnail that is no inline JPEG or PNG (an address would be fetched).
    """
    for mistake in report.mistakes:
        if not _THUMBNAIL.fullmatch(mistake.thumbnail):
            raise InputError(
                f"the thumbnail of {mistake.id} must be data:image/jpeg;base64,… or data:image/png;base64,…, "
                f"got {mistake.thumbnail[:40]!r}"
            )
    accuracy = tables.table(report.rows, "accuracy")
    recommended = report.recommendation.method if report.recommendation else None
    figure = scatter(accuracy, recommended)
    return _template().render(
        report=report,
        accuracy=accuracy,
        recommended=recommended,
        **evidence(report, recommended or ""),
        # Made by matplotlib from escaped text; everything else on the page is escaped by the template.
        figure=Markup(figure) if figure else None,
        style=Markup(_beside("page.css")),
        differences=tables.difference_tables(report.rows),
        further=tables.further_tables(report.rows),
        by_class=tables.class_table(report.rows, recommended or ""),
        confusions=tables.shown_confusions(report),
        mistakes=_by_split(report),
        listed=LISTED,
        largest_matrix=LARGEST_MATRIX,
        tables=tables,
        numbers=numbers,
    )


def _by_split(report: Report) -> dict[str, list]:
    groups: dict[str, list] = {}
    for mistake in report.mistakes:
        groups.setdefault(mistake.split, []).append(mistake)
    return groups


@cache
def _template() -> Template:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_beside),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_presentable,
    )
    return environment.get_template("page.html")


def _beside(name: str) -> str:
    return files("headfirst.report").joinpath(name).read_text(encoding="utf-8")


def _presentable(value: object) -> object:
    """Every string the template prints, without control characters; jinja2 then escapes it."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

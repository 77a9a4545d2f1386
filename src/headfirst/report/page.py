"""`Report` → one self-contained HTML page: no script, no network, readable on a phone and on paper."""

from __future__ import annotations

from markupsafe import Markup

from headfirst.report import numbers, tables
from headfirst.report.evidence import evidence
from headfirst.report.scatter import scatter
from headfirst.report.template import render, require_inline
from headfirst.types import Report

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
        for shown in (mistake, *mistake.neighbours):
            require_inline(shown.id, shown.thumbnail)
    accuracy = tables.table(report.rows, "accuracy")
    recommended = report.recommendation.method if report.recommendation else None
    figure = scatter(accuracy, recommended)
    return render(
        "page.html",
        report=report,
        accuracy=accuracy,
        recommended=recommended,
        **evidence(report, recommended or ""),
        # Made by matplotlib from escaped text; everything else on the page is escaped by the template.
        figure=Markup(figure) if figure else None,
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

"""The page's evidence: every panel shows its numbers, none appears without them, foreign names are escaped."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from headfirst.errors import DataError
from headfirst.report.document import from_document, to_document
from headfirst.report.page import page
from headfirst.types import (
    Detection,
    DistortionReading,
    Forecast,
    FrontierPoint,
    Geometry,
    Movement,
    Reliability,
    Report,
    RiskCoverage,
    SplitGeometry,
    StageMovement,
)

SHIFT = "shift-<b>x</b>"
SECTIONS = ("trust", "forecast", "detection", "frontier", "geometry")


@pytest.fixture(scope="module")
def evident(report: Report) -> Report:
    splits = ("test", SHIFT)
    return replace(
        report,
        reliability=tuple(
            Reliability(method="lp-ft", split=split, calibrated=after, confidence=(0.4, 0.9), accuracy=(0.35, 0.8),
                        low=(0.3, 0.7), high=(0.4, 0.9), count=(50, 50))
            for split in splits for after in (False, True)
        ),
        risk_coverages=tuple(
            RiskCoverage(method="lp-ft", split=split, coverage=(0.5, 1.0), risk=(0.01, 0.1)) for split in splits
        ),
        forecasts=(
            Forecast(method="lp-ft", split=SHIFT, estimator="average_confidence", value=0.777, low=0.7, high=0.8,
                     truth=0.5, n=100),
            Forecast(method="lp-ft", split="unlabelled", estimator="average_confidence", value=0.666, low=0.6, high=0.7,
                     truth=float("nan"), n=100),
        ),
        detections=(
            Detection(method="lp-ft", split=SHIFT, score="energy", auroc=0.876, low=0.85, high=0.9,
                      false_positive_rate=0.543, n_home=100, n=100, chosen=True),
        ),
        frontier=tuple(
            FrontierPoint(alpha=alpha, temperature=1.0, selection=1 - alpha, home=0.9, away=alpha, chosen=alpha == 1.0)
            for alpha in (0.0, 0.5, 1.0)
        ),
        geometry=Geometry(
            rank=17, energy=0.95, threshold=0.31,
            splits=(SplitGeometry(split=SHIFT, n=100, angles=(0.1, 1.0, 1.5), energy_inside=0.642, low=0.6, high=0.7,
                                  effective_rank=12.3),),
            movements=(Movement(method="lp-ft", split=SHIFT, inside=0.123, outside=0.234, cka=0.9),),
            readings=tuple(DistortionReading(method="lp-ft", epoch=e, inside=0.1 * e, outside=0.2 * e) for e in (0, 1)),
            stages=(StageMovement(method="lp-ft", stage=0, change=0.045),),
        ),
    )  # fmt: skip


def section(html: str, name: str) -> str:
    found = re.search(rf'<section id="{name}">.*?</section>', html, flags=re.DOTALL)
    return found[0] if found else ""


def test_every_panel_is_filled(evident: Report):
    html = page(evident)
    assert all(section(html, name) for name in SECTIONS)
    assert all("<svg" in section(html, name) for name in ("trust", "frontier", "geometry"))
    assert "77.7" in section(html, "forecast")
    assert "66.6" in section(html, "forecast")
    assert re.search(r"54\.3\D+taken for home", section(html, "detection"))
    assert all(number in section(html, "geometry") for number in ("64.2", "12.3", "23.4", "4.5"))


def test_a_truth_outside_its_band_is_marked_and_an_unknown_one_is_not(evident: Report):
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", section(page(evident), "forecast"), flags=re.DOTALL)
    assert 'class="clear"' in rows[0]
    assert 'class="clear"' not in rows[1]


def test_the_document_holds_it_all(evident: Report):
    again = from_document(to_document(evident))
    assert repr(again) == repr(evident)  # NaN is no equal of itself, but reads alike
    document = to_document(evident)
    document["reliability"][0]["calibrated"] = 1
    with pytest.raises(DataError, match=r"report.reliability\[0\].calibrated should be bool, got 1"):
        from_document(document)


def test_no_panel_without_its_numbers(report: Report):
    html = page(report)
    assert not any(section(html, name) for name in SECTIONS)


def test_names_are_escaped_in_tables_and_figures(evident: Report):
    html = page(evident)
    assert "<b>x</b>" not in html
    assert "shift-&lt;b&gt;x&lt;/b&gt;" in section(html, "trust")
    assert html.count("://") == html.count("http://www.w3.org/")

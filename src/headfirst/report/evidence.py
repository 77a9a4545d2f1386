"""The parts of a page that show evidence beyond accuracy, arranged for its template."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from markupsafe import Markup

from headfirst.report import tables
from headfirst.report.frontier import frontier_figure
from headfirst.report.geometry import geometry_figure
from headfirst.report.trust import reliability_figure, risk_coverage_figure
from headfirst.types import Report

TRUST = (
    "expected_calibration_error",
    "expected_calibration_error_calibrated",
    "log_loss",
    "log_loss_calibrated",
    "coverage_least_ambiguous",
    "set_size_least_ambiguous",
    "coverage_adaptive",
    "set_size_adaptive",
)


def evidence(report: Report, method: str) -> dict[str, Any]:
    """The template's variables; `method` is the recommended one."""
    forecasts: dict[str, dict[str, Any]] = defaultdict(dict)
    for forecast in report.forecasts:
        forecasts[forecast.split][forecast.estimator] = forecast
    detections: dict[str, dict[str, Any]] = defaultdict(dict)
    for detection in report.detections:
        detections[detection.score][detection.split] = detection
    stages: dict[int, dict[str, float]] = defaultdict(dict)
    for stage in report.geometry.stages if report.geometry else ():
        stages[stage.stage][stage.method] = stage.change
    return {
        "reliability_figure": _markup(reliability_figure(report.reliability, method)),
        "risk_figure": _markup(risk_coverage_figure(report.risk_coverages, method)),
        "trust": _trust(report, method),
        "forecasts": forecasts,
        "estimators": list(dict.fromkeys(forecast.estimator for forecast in report.forecasts)),
        "detections": detections,
        "detection_splits": list(dict.fromkeys(detection.split for detection in report.detections)),
        "frontier_figure": _markup(frontier_figure(report.frontier)),
        "geometry_figure": _markup(geometry_figure(report.geometry)),
        "stages": stages,
        "stage_methods": list(dict.fromkeys(method for by_method in stages.values() for method in by_method)),
        "degrees": math.degrees,
    }


def _trust(report: Report, method: str) -> tables.Table:
    """The recommended method's measures of confidence: the measures take the place of the methods."""
    rows = {
        (tables.title(row.metric), row.split): row
        for metric in TRUST
        for row in report.rows
        if row.method == method and row.metric == metric
    }
    return tables.Table(
        metric="trust",
        methods=tuple(dict.fromkeys(name for name, _ in rows)),
        splits=tuple(dict.fromkeys(split for _, split in rows)),
        rows=rows,
    )


def _markup(figure: str | None) -> Markup | None:
    """Made by matplotlib from escaped text."""
    return Markup(figure) if figure else None

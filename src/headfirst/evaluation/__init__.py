"""Predictions → Report. Knows nothing of how a model was adapted."""

from headfirst.evaluation.evaluate import evaluate
from headfirst.evaluation.files import load_predictions, save_predictions
from headfirst.evaluation.rows import (
    by_method_and_split,
    confusion,
    correct,
    report_rows,
)
from headfirst.evaluation.trust import calibrated, reliability, risk_coverages, temperatures, top, trust_rows
from headfirst.evaluation.versions import versions

__all__ = [
    "by_method_and_split",
    "calibrated",
    "confusion",
    "correct",
    "evaluate",
    "load_predictions",
    "reliability",
    "report_rows",
    "risk_coverages",
    "save_predictions",
    "temperatures",
    "top",
    "trust_rows",
    "versions",
]

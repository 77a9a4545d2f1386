"""Tensors in, numbers and intervals out; no metric sees an image."""

from headfirst.metrics.calibration import expected_calibration_error
from headfirst.metrics.classification import (
    accuracy,
    balanced_accuracy,
    brier_score,
    confusion_matrix,
    log_loss,
    negative_log_likelihood,
    per_class_accuracy,
)
from headfirst.metrics.intervals import (
    Interval,
    binomial_interval,
    bootstrap_interval,
    mean_over_splits,
    paired_difference,
)
from headfirst.metrics.other_intervals import (
    balanced_accuracy_interval,
    bootstrap_statistic,
    calibration_error_interval,
)
from headfirst.metrics.rows import (
    MEAN_OVER_SHIFTS,
    WORST_SHIFT,
    difference_row,
    is_correct,
    mean_difference_over_shifts_row,
    mean_over_shifts_row,
    metric_rows,
    worst_shift_row,
)

__all__ = [
    "MEAN_OVER_SHIFTS",
    "WORST_SHIFT",
    "Interval",
    "accuracy",
    "balanced_accuracy",
    "balanced_accuracy_interval",
    "binomial_interval",
    "bootstrap_interval",
    "bootstrap_statistic",
    "brier_score",
    "calibration_error_interval",
    "confusion_matrix",
    "difference_row",
    "expected_calibration_error",
    "is_correct",
    "log_loss",
    "mean_difference_over_shifts_row",
    "mean_over_shifts_row",
    "mean_over_splits",
    "metric_rows",
    "negative_log_likelihood",
    "paired_difference",
    "per_class_accuracy",
    "worst_shift_row",
]

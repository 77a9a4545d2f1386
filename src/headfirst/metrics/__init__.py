"""Tensors in, numbers and intervals out; no metric sees an image."""

from headfirst.metrics.calibration import (
    BrierParts,
    ReliabilityBins,
    brier_decomposition,
    classwise_calibration_error,
    expected_calibration_error,
    reliability_bins,
)
from headfirst.metrics.classification import (
    accuracy,
    balanced_accuracy,
    brier_score,
    confusion_matrix,
    log_loss,
    negative_log_likelihood,
    per_class_accuracy,
)
from headfirst.metrics.conformal import (
    adaptive_scores,
    conformal_threshold,
    least_ambiguous_scores,
    prediction_sets,
)
from headfirst.metrics.crossed import crossed_difference, crossed_interval
from headfirst.metrics.detection import (
    Mahalanobis,
    auroc,
    auroc_interval,
    energy,
    false_positive_rate,
    max_softmax,
    neighbour_distance,
)
from headfirst.metrics.distances import Distance
from headfirst.metrics.frechet import frechet_distance, frechet_distance_gaussian
from headfirst.metrics.geometry import (
    Moved,
    effective_rank,
    energy_inside,
    linear_cka,
    movement,
    principal_angles,
    span,
)
from headfirst.metrics.intervals import (
    Interval,
    binomial_interval,
    bootstrap_interval,
    mean_over_splits,
    paired_difference,
)
from headfirst.metrics.kernel import kernel_distance
from headfirst.metrics.label_free import (
    agreement,
    average_confidence,
    average_thresholded_confidence,
    fit_confidence_threshold,
)
from headfirst.metrics.manifold import (
    DensityCoverage,
    PrecisionRecall,
    density_coverage,
    expected_coverage,
    precision_recall,
)
from headfirst.metrics.memorisation import DataCopying, Memorisation, data_copying_score, memorisation_test
from headfirst.metrics.modes import (
    ClassWeights,
    Duplicates,
    class_weight_distance,
    closest_pair,
    duplicate_estimate,
    modes_covered,
)
from headfirst.metrics.other_intervals import (
    balanced_accuracy_interval,
    bootstrap_statistic,
    calibration_error_interval,
)
from headfirst.metrics.retrieval import (
    alignment,
    modality_gap,
    retrieval_ranks,
    retrieval_recall,
    uniformity,
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
from headfirst.metrics.scaling import (
    VectorScaling,
    fit_temperature,
    fit_vector_scaling,
)
from headfirst.metrics.selective import (
    RiskCoverage,
    abstention_threshold,
    area_under_risk_coverage,
    risk_coverage,
)
from headfirst.metrics.simultaneous import simultaneous_differences
from headfirst.metrics.unsupervised import feature_spread, leave_one_out_knn, leave_one_out_ridge

__all__ = [
    "MEAN_OVER_SHIFTS",
    "WORST_SHIFT",
    "BrierParts",
    "ClassWeights",
    "DataCopying",
    "DensityCoverage",
    "Distance",
    "Duplicates",
    "Interval",
    "Mahalanobis",
    "Memorisation",
    "Moved",
    "PrecisionRecall",
    "ReliabilityBins",
    "RiskCoverage",
    "VectorScaling",
    "abstention_threshold",
    "accuracy",
    "adaptive_scores",
    "agreement",
    "alignment",
    "area_under_risk_coverage",
    "auroc",
    "auroc_interval",
    "average_confidence",
    "average_thresholded_confidence",
    "balanced_accuracy",
    "balanced_accuracy_interval",
    "binomial_interval",
    "bootstrap_interval",
    "bootstrap_statistic",
    "brier_decomposition",
    "brier_score",
    "calibration_error_interval",
    "class_weight_distance",
    "classwise_calibration_error",
    "closest_pair",
    "conformal_threshold",
    "confusion_matrix",
    "crossed_difference",
    "crossed_interval",
    "data_copying_score",
    "density_coverage",
    "difference_row",
    "duplicate_estimate",
    "effective_rank",
    "energy",
    "energy_inside",
    "expected_calibration_error",
    "expected_coverage",
    "false_positive_rate",
    "feature_spread",
    "fit_confidence_threshold",
    "fit_temperature",
    "fit_vector_scaling",
    "frechet_distance",
    "frechet_distance_gaussian",
    "is_correct",
    "kernel_distance",
    "least_ambiguous_scores",
    "leave_one_out_knn",
    "leave_one_out_ridge",
    "linear_cka",
    "log_loss",
    "max_softmax",
    "mean_difference_over_shifts_row",
    "mean_over_shifts_row",
    "mean_over_splits",
    "memorisation_test",
    "metric_rows",
    "modality_gap",
    "modes_covered",
    "movement",
    "negative_log_likelihood",
    "neighbour_distance",
    "paired_difference",
    "per_class_accuracy",
    "precision_recall",
    "prediction_sets",
    "principal_angles",
    "reliability_bins",
    "retrieval_ranks",
    "retrieval_recall",
    "risk_coverage",
    "simultaneous_differences",
    "span",
    "uniformity",
    "worst_shift_row",
]

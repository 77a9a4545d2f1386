"""From what a method says of a split to the rows of a report, each number with its interval.

Shape letters: S training seeds, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headfirst.errors import InputError
from headfirst.metrics.calibration import top_label
from headfirst.metrics.classification import LOG_LOSS_FLOOR, brier_scores, log_losses
from headfirst.metrics.intervals import (
    UNIT,
    Interval,
    bootstrap_interval,
    mean_over_splits,
    paired_difference,
    paired_samples,
)
from headfirst.metrics.other_intervals import balanced_accuracy_interval, calibration_error_interval
from headfirst.types import Row

MEAN_OVER_SHIFTS = "mean over shifts"
WORST_SHIFT = "worst shift"


def is_correct(scores: Float[Tensor, "s n k"], labels: Int[Tensor, " n"]) -> Bool[Tensor, "s n"]:
    """Where each seed is right: what intervals of accuracies and their differences start from."""
    return scores.argmax(dim=2) == labels


def metric_rows(
    method: str,
    split: str,
    chosen_on: str,
    log_probabilities: Float[Tensor, "s n k"],
    labels: Int[Tensor, " n"],
    *,
    seed: int,
    classes: Sequence[str] = (),
    level: float = 0.95,
) -> tuple[Row, ...]:
    """Everything measured of one method on one split, over all its seeds.

    Metrics: accuracy, balanced_accuracy, log_loss, brier_score, expected_calibration_error (15 bins of
    equal mass), expected_calibration_error_width (15 of equal width), and `class_accuracy:<name>` for each
    name in `classes` whose class has images.

    Args:
        chosen_on: the split that chose the hyper-parameters, or "fixed".
        log_probabilities: (S, N, K), natural logarithms of rows that sum to one; -inf is allowed.
        labels: (N,) in 0 … K-1.
        seed: of the resampling, shared by every method so that they meet the same resamples.
        classes: K names in label order, or none for no class rows.
    """
    if classes and len(classes) != log_probabilities.shape[2]:
        raise InputError(f"need {log_probabilities.shape[2]} class names, got {len(classes)}")
    labels = labels.cpu()
    by_seed = [one.double().cpu() for one in log_probabilities]
    losses = torch.stack([log_losses(one, labels) for one in by_seed])
    briers = torch.stack([brier_scores(one.exp(), labels) for one in by_seed])
    tops = [top_label(one.exp(), labels) for one in by_seed]
    confidence, correct = (torch.stack([top[i] for top in tops]) for i in (0, 1))

    found: dict[str, Interval] = {
        "accuracy": bootstrap_interval(correct, bounds=UNIT, seed=seed, level=level),
        "balanced_accuracy": balanced_accuracy_interval(correct, labels, seed=seed, level=level),
        "log_loss": bootstrap_interval(losses, bounds=(0.0, -LOG_LOSS_FLOOR), seed=seed, level=level),
        "brier_score": bootstrap_interval(briers, bounds=(0.0, 2.0), seed=seed, level=level),
        "expected_calibration_error": calibration_error_interval(
            confidence, correct, binning="mass", seed=seed, level=level
        ),
        "expected_calibration_error_width": calibration_error_interval(
            confidence, correct, binning="width", seed=seed, level=level
        ),
    }
    sizes = dict.fromkeys(found, len(labels))
    for index, name in enumerate(classes):
        of_class = labels == index
        if of_class.any():
            metric = f"class_accuracy:{name}"
            sizes[metric] = int(of_class.sum())
            found[metric] = bootstrap_interval(correct[:, of_class], bounds=UNIT, seed=seed, level=level)
    return tuple(
        _row(method, split, metric, interval, sizes[metric], len(by_seed), chosen_on)
        for metric, interval in found.items()
    )


def difference_row(
    method: str,
    baseline: str,
    split: str,
    chosen_on: str,
    correct: Bool[Tensor, "s n"],
    baseline_correct: Bool[Tensor, "t n"],
    *,
    seed: int,
    level: float = 0.95,
) -> Row:
    """`accuracy_difference`: accuracy of `method` minus that of `baseline`, paired over images and seeds."""
    interval = paired_difference(correct, baseline_correct, seed=seed, level=level)
    seed_count = max(len(correct), len(baseline_correct))
    row = _row(method, split, "accuracy_difference", interval, correct.shape[1], seed_count, chosen_on)
    return replace(row, baseline=baseline)


def mean_over_shifts_row(
    method: str, chosen_on: str, correct: Mapping[str, Tensor], *, seed: int, level: float = 0.95
) -> Row:
    """Accuracy averaged over the shifts, each counting alike; split "mean over shifts".

    Args:
        correct: for each shift, (S, N) where each seed is right.
    """
    interval = mean_over_splits(list(correct.values()), bounds=UNIT, seed=seed, level=level)
    n, seed_count = _extent(correct)
    return _row(method, MEAN_OVER_SHIFTS, "accuracy", interval, n, seed_count, chosen_on)


def mean_difference_over_shifts_row(
    method: str,
    baseline: str,
    chosen_on: str,
    correct: Mapping[str, Tensor],
    baseline_correct: Mapping[str, Tensor],
    *,
    seed: int,
    level: float = 0.95,
) -> Row:
    """`accuracy_difference` averaged over the shifts, paired; split "mean over shifts"."""
    if correct.keys() != baseline_correct.keys():
        raise InputError(f"both sides need the same shifts, got {list(correct)} and {list(baseline_correct)}")
    paired = {name: paired_samples(correct[name], baseline_correct[name]) for name in correct}
    interval = mean_over_splits(list(paired.values()), bounds=(-1.0, 1.0), seed=seed, level=level)
    n, seed_count = _extent(paired)
    row = _row(method, MEAN_OVER_SHIFTS, "accuracy_difference", interval, n, seed_count, chosen_on)
    return replace(row, baseline=baseline)


def worst_shift_row(shifts: Sequence[Row]) -> Row:
    """The least accuracy among the rows of one method's shifts; split "worst shift".

    The true minimum is at least the least lower bound and at most the least upper bound, so these are the
    interval: the worst shift was found by looking, and its own interval would be too optimistic.
    """
    worst = min(shifts, key=lambda row: row.value)
    low, high = min(row.low for row in shifts), min(row.high for row in shifts)
    return replace(worst, split=WORST_SHIFT, low=low, high=high)


def _extent(samples: Mapping[str, Tensor]) -> tuple[int, int]:
    return sum(block.shape[1] for block in samples.values()), max(len(block) for block in samples.values())


def _row(method: str, split: str, metric: str, interval: Interval, n: int, seed_count: int, chosen_on: str) -> Row:
    return Row(
        method=method,
        split=split,
        metric=metric,
        value=interval.value,
        low=interval.low,
        high=interval.high,
        n=n,
        seed_count=seed_count,
        chosen_on=chosen_on,
    )

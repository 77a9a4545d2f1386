"""Predictions of several methods, seeds and splits → the rows of a report.

Shape letters: S seeds, N images, K classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from headfirst.errors import DataError, InputError
from headfirst.metrics import (
    confusion_matrix,
    difference_row,
    mean_difference_over_shifts_row,
    mean_over_shifts_row,
    metric_rows,
    worst_shift_row,
)
from headfirst.types import Confusion, Predictions, Row

Group = dict[tuple[str, str], list[Predictions]]


def report_rows(predictions: Sequence[Predictions], *, baseline: str = "probe", seed: int = 0) -> tuple[Row, ...]:
    """Every metric of every method on every split, paired differences to `baseline`, mean and worst shift.

    Args:
        predictions: each (method, seed, split) once; all methods on the same images, in the same order.
        baseline: the method the others are compared with; no differences where it is absent.
        seed: of the bootstrap.

    Raises:
        InputError: a (method, seed, split) comes twice, or the images of a split differ between methods.
        DataError: an image without a label.
    """
    groups = by_method_and_split(predictions)
    methods = list(dict.fromkeys(method for method, _ in groups))
    splits = list(dict.fromkeys(split for _, split in groups))
    shifts = [split for split in splits if split.startswith("shift-")]
    rows: list[Row] = []
    for (method, split), group in groups.items():
        chosen_on = group[0].chosen_on
        log_probabilities = torch.stack([p.log_probabilities() for p in group])
        rows += metric_rows(
            method, split, chosen_on, log_probabilities, group[0].labels, seed=seed, classes=group[0].classes
        )
        if method != baseline and (baseline, split) in groups:
            other = correct(groups[baseline, split])
            rows.append(difference_row(method, baseline, split, chosen_on, correct(group), other, seed=seed))
    for method in methods:
        if shifts and all((method, shift) in groups for shift in shifts):
            rows += _over_shifts(rows, groups, method, shifts, baseline, seed)
    return tuple(rows)


def by_method_and_split(predictions: Sequence[Predictions]) -> Group:
    """Predictions by (method, split), in order of seed; checks that every method saw the same labelled images."""
    groups: Group = defaultdict(list)
    for p in predictions:
        groups[p.method, p.split].append(p)
    first: dict[str, Predictions] = {}
    for (method, split), group in groups.items():
        group.sort(key=lambda p: p.seed)
        seeds = [p.seed for p in group]
        if len(set(seeds)) < len(seeds):
            raise InputError(f"{method} on {split} is there twice for one seed: {seeds}")
        for p in group:
            reference = first.setdefault(split, p)
            if p.ids != reference.ids or not torch.equal(p.labels, reference.labels):
                raise InputError(f"{method} and {reference.method} were asked about different images of {split!r}")
            if bool((p.labels < 0).any()):
                raise DataError(f"{split!r} has images without a label, so nothing can be measured on it")
    return dict(groups)


def correct(group: Sequence[Predictions]) -> Bool[Tensor, "s n"]:
    """(S, N) whether each seed's most likely class is the label."""
    return torch.stack([p.values.argmax(dim=1) == p.labels for p in group])


def confusion(group: Sequence[Predictions]) -> Confusion:
    """Counts summed over seeds."""
    counts = sum(confusion_matrix(p.values, p.labels) for p in group)
    assert isinstance(counts, Tensor)
    return Confusion(method=group[0].method, split=group[0].split, counts=tuple(tuple(row) for row in counts.tolist()))


def _over_shifts(
    rows: Sequence[Row], groups: Group, method: str, shifts: Sequence[str], baseline: str, seed: int
) -> list[Row]:
    """Accuracy as the unweighted mean over shifts and on the worst one, and the paired difference of the means."""
    chosen_on = groups[method, shifts[0]][0].chosen_on
    scores = {shift: correct(groups[method, shift]) for shift in shifts}
    single = [row for row in rows if row.method == method and row.metric == "accuracy" and row.split in shifts]
    found = [mean_over_shifts_row(method, chosen_on, scores, seed=seed), worst_shift_row(single)]
    if method != baseline and all((baseline, shift) in groups for shift in shifts):
        others = {shift: correct(groups[baseline, shift]) for shift in shifts}
        found.append(mean_difference_over_shifts_row(method, baseline, chosen_on, scores, others, seed=seed))
    return found

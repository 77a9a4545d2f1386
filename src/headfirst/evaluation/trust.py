"""How far a confidence can be trusted, before and after a temperature fitted on validation; and what follows from it.

What enters: predictions on reported splits and, of the same methods and seeds, on the validation split. What leaves:
calibrated rows, coverage of conformal sets, reliability diagrams and risk-coverage curves.

Shape letters: S seeds, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError
from headfirst.evaluation.rows import by_method_and_split
from headfirst.metrics import (
    Interval,
    adaptive_scores,
    area_under_risk_coverage,
    binomial_interval,
    bootstrap_interval,
    bootstrap_statistic,
    conformal_threshold,
    fit_temperature,
    least_ambiguous_scores,
    metric_rows,
    prediction_sets,
    reliability_bins,
    risk_coverage,
)
from headfirst.randomness import keyed_uniform
from headfirst.types import Predictions, Reliability, RiskCoverage, Row

MISSES = 0.1
"""Share of true classes that a conformal set may miss."""
CALIBRATED = "_calibrated"
_REMEASURED = ("log_loss", "brier_score", "expected_calibration_error")
_COVERAGES = tuple(step / 20 for step in range(1, 21))

Temperatures = Mapping[tuple[str, int], float]
"""(method, seed) → temperature."""


def temperatures(validation: Sequence[Predictions]) -> dict[tuple[str, int], float]:
    """The temperature of each method and seed, fitted on its log-loss on the validation images."""
    return {(p.method, p.seed): fit_temperature(p.log_probabilities(), p.labels) for p in validation}


def calibrated(predictions: Predictions, temperature: float) -> Predictions:
    """The same predictions with logits divided by `temperature`; log-probabilities are logits up to a constant."""
    values = (predictions.log_probabilities() / temperature).float()
    return replace(predictions, values=values, kind="logits")


def trust_rows(reported: Sequence[Predictions], validation: Sequence[Predictions], *, seed: int = 0) -> tuple[Row, ...]:
    """What validation images make measurable on each reported split, all `chosen_on` the validation split.

    Metrics: `log_loss_calibrated`, `brier_score_calibrated`, `expected_calibration_error_calibrated` after temperature
    scaling; `coverage_least_ambiguous`, `set_size_least_ambiguous`, `coverage_adaptive`, `set_size_adaptive` of
    split-conformal sets meant to cover 90 %, randomised for the adaptive kind; `area_under_risk_coverage`.

    Args:
        reported: as for `report_rows`.
        validation: for each method and seed among `reported`, its predictions on the validation split.
        seed: of the bootstrap.

    Raises:
        InputError: a method or seed without validation predictions.
    """
    found = temperatures(validation)
    by_fit = {(p.method, p.seed): p for p in validation}
    rows: list[Row] = []
    for (method, split), group in by_method_and_split(reported).items():
        if missing := [p.seed for p in group if (method, p.seed) not in by_fit]:
            raise InputError(f"{method} has no validation predictions of seed {missing[0]}; calibration needs them")
        chosen_on = by_fit[method, group[0].seed].split
        scaled = [calibrated(p, found[method, p.seed]) for p in group]
        log_probabilities = torch.stack([p.log_probabilities() for p in scaled])
        labels = group[0].labels
        measured = metric_rows(method, split, chosen_on, log_probabilities, labels, seed=seed)
        rows += [replace(row, metric=row.metric + CALIBRATED) for row in measured if row.metric in _REMEASURED]
        held_out = [calibrated(by_fit[method, p.seed], found[method, p.seed]) for p in group]
        intervals = {
            **_conformal(scaled, held_out, seed),
            "area_under_risk_coverage": _risk_coverage_area(scaled, seed),
        }
        rows += [
            Row(method=method, split=split, metric=metric, value=interval.value, low=interval.low, high=interval.high,
                n=len(labels), seed_count=len(group), chosen_on=chosen_on)
            for metric, interval in intervals.items()
        ]  # fmt: skip
    return tuple(rows)


def _conformal(scaled: Sequence[Predictions], held_out: Sequence[Predictions], seed: int) -> dict[str, Interval]:
    """Coverage and size of the sets that the validation images' scores allow; sizes lie in [0, K]."""
    found: dict[str, Interval] = {}
    for name in ("least_ambiguous", "adaptive"):
        covered, sizes = [], []
        for p, validation in zip(scaled, held_out, strict=True):
            scores = _scores(name, validation).gather(1, validation.labels[:, None])[:, 0]
            sets = prediction_sets(_scores(name, p), conformal_threshold(scores, MISSES))
            covered.append(sets.gather(1, p.labels[:, None])[:, 0].double())
            sizes.append(sets.double().sum(dim=1))
        num_classes = float(len(scaled[0].classes))
        found[f"coverage_{name}"] = bootstrap_interval(torch.stack(covered), bounds=(0.0, 1.0), seed=seed)
        found[f"set_size_{name}"] = bootstrap_interval(torch.stack(sizes), bounds=(0.0, num_classes), seed=seed)
    return found


def _scores(name: str, predictions: Predictions) -> Float[Tensor, "n k"]:
    probabilities = predictions.probabilities()
    if name == "least_ambiguous":
        return least_ambiguous_scores(probabilities)
    # One draw an image, another for each split and seed.
    stream = int.from_bytes(predictions.split.encode()[-8:], "little")
    uniform = keyed_uniform(stream, predictions.seed, np.arange(len(predictions)))
    return adaptive_scores(probabilities, torch.from_numpy(uniform))


def _risk_coverage_area(scaled: Sequence[Predictions], seed: int) -> Interval:
    tops = [top(p) for p in scaled]
    orders = [confidence.argsort(descending=True, stable=True) for confidence, _ in tops]
    wrongs = [1 - correct for _, correct in tops]

    def statistic(weights: Tensor) -> Tensor:
        total = torch.zeros(len(weights), dtype=torch.float64)
        for order, wrong in zip(orders, wrongs, strict=True):
            drawn = weights[:, order]
            risk = (drawn * wrong[order]).cumsum(dim=1) / drawn.cumsum(dim=1).clamp(min=1.0)
            total += (drawn * risk).sum(dim=1) / drawn.sum(dim=1)
        return total / len(orders)

    per_seed = torch.tensor([area_under_risk_coverage(c, r) for c, r in tops], dtype=torch.float64)
    return bootstrap_statistic(statistic, per_seed, len(tops[0][0]), seed=seed, bounds=(0.0, 1.0))


def top(predictions: Predictions) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Confidence of the most likely class, and 1 where it is the label's, 0 elsewhere; float64."""
    confidence, called = predictions.probabilities().max(dim=1)
    return confidence, (called == predictions.labels).double()


def reliability(
    reported: Sequence[Predictions], validation: Sequence[Predictions], *, num_bins: int = 10
) -> tuple[Reliability, ...]:
    """Reliability diagrams of every method on every split, before and after temperature scaling."""
    found = temperatures(validation)
    diagrams = []
    for (method, split), group in by_method_and_split(reported).items():
        for after in (False, True):
            shown = [calibrated(p, found[method, p.seed]) if after else p for p in group]
            probabilities = torch.cat([p.probabilities() for p in shown])
            labels = torch.cat([p.labels for p in shown])
            bins = reliability_bins(probabilities, labels, num_bins=num_bins, binning="mass")
            # Seeds share their images: an interval that counted both would be too narrow.
            sizes = [max(1, round(count / len(group))) for count in bins.count.tolist()]
            edges = [
                binomial_interval(round(share * size), size)
                for share, size in zip(bins.accuracy.tolist(), sizes, strict=True)
            ]
            diagrams.append(
                Reliability(
                    method=method,
                    split=split,
                    calibrated=after,
                    confidence=tuple(bins.confidence.tolist()),
                    accuracy=tuple(bins.accuracy.tolist()),
                    low=tuple(edge.low for edge in edges),
                    high=tuple(edge.high for edge in edges),
                    count=tuple(int(count) for count in bins.count.tolist()),
                )
            )
    return tuple(diagrams)


def risk_coverages(reported: Sequence[Predictions], validation: Sequence[Predictions]) -> tuple[RiskCoverage, ...]:
    """Error among the answers given, at twenty shares of images answered, the surest first; a mean over seeds."""
    found = temperatures(validation)
    curves = []
    for (method, split), group in by_method_and_split(reported).items():
        risks = []
        for p in group:
            curve = risk_coverage(*top(calibrated(p, found[method, p.seed])))
            risks.append(np.interp(_COVERAGES, curve.coverage.numpy(), curve.risk.numpy()))
        curves.append(
            RiskCoverage(method=method, split=split, coverage=_COVERAGES, risk=tuple(np.mean(risks, axis=0).tolist()))
        )
    return tuple(curves)

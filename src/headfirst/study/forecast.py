"""What accuracy to expect on images nobody has labelled, and how far to believe it.

Each estimator is tried on corrupted copies of the validation images, whose labels are known; the central errors it made
there are its band: of 21, from the second least to the second greatest. A new shift that is no stranger than the copies
falls inside in 18 of 22 cases (exchangeability); a stranger one may fall anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headfirst.evaluation import calibrated
from headfirst.metrics import (
    accuracy,
    agreement,
    average_confidence,
    average_thresholded_confidence,
    fit_confidence_threshold,
    fit_temperature,
)
from headfirst.types import Forecast, Predictions

SEVERITIES = (1, 3, 5)
"""Of the corrupted copies, each of every kind."""


@dataclass(frozen=True, kw_only=True)
class Forecaster:
    """The estimators of one model, ready for unlabelled images.

    Attributes:
        temperature: the model's, fitted on validation.
        threshold: confidence above which a share of validation images equal to their accuracy lies.
        bands: for each estimator, the central errors (truth - estimate) on the corrupted copies; see `central`.
    """

    temperature: float
    threshold: float
    bands: dict[str, tuple[float, float]]

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Forecaster:
        """From what a saved model's calibration keeps; JSON writes an infinite threshold as null."""
        threshold = record["threshold"]
        return cls(
            temperature=record["temperature"],
            threshold=float("inf") if threshold is None else threshold,
            bands={name: (low, high) for name, (low, high) in record["bands"].items()},
        )

    def record(self) -> dict[str, Any]:
        """What `from_record` reads, as JSON holds it."""
        threshold = self.threshold if self.threshold < float("inf") else None
        return {
            "temperature": self.temperature,
            "threshold": threshold,
            "bands": {k: list(v) for k, v in self.bands.items()},
        }

    def forecasts(self, predictions: Predictions, other: Predictions | None) -> tuple[Forecast, ...]:
        """Predicted accuracies of one split, beside the truth where there are labels.

        Args:
            other: the same images by the other model that `fit` was given, or None.
        """
        labelled = bool((predictions.labels >= 0).all())
        truth = accuracy(predictions.values, predictions.labels) if labelled else float("nan")
        found = _estimates(predictions, other, self.temperature, self.threshold)
        return tuple(
            Forecast(
                method=predictions.method,
                split=predictions.split,
                estimator=name,  # pyright: ignore[reportArgumentType]
                value=value,
                low=min(max(value + self.bands[name][0], 0.0), 1.0),
                high=min(max(value + self.bands[name][1], 0.0), 1.0),
                truth=truth,
                n=len(predictions),
            )
            for name, value in found.items()
        )


def fit_forecaster(
    validation: Predictions,
    corrupted: Sequence[Predictions],
    others: Sequence[Predictions] | None,
) -> Forecaster:
    """Fit temperature and threshold on validation, bands on its corrupted copies.

    Args:
        corrupted: predictions on corrupted copies of the validation images.
        others: the same copies by the model whose agreement is asked (for a tuned model the probe), or None.
    """
    temperature = fit_temperature(validation.log_probabilities(), validation.labels)
    threshold = fit_confidence_threshold(calibrated(validation, temperature).probabilities(), validation.labels)
    errors: dict[str, list[float]] = {}
    for i, predictions in enumerate(corrupted):
        truth = accuracy(predictions.values, predictions.labels)
        other = others[i] if others else None
        for name, value in _estimates(predictions, other, temperature, threshold).items():
            errors.setdefault(name, []).append(truth - value)
    return Forecaster(
        temperature=temperature,
        threshold=threshold,
        bands={name: central(values) for name, values in errors.items()},
    )


def central(errors: Sequence[float]) -> tuple[float, float]:
    """The r-th least and the r-th greatest of n errors, r = ⌊(n + 1) / 10⌋ but at least 1.

    One more error, exchangeable with these, lies between them with probability (n + 1 - 2r) / (n + 1).

    >>> central([0.3, 0.1, 0.2])
    (0.1, 0.3)
    >>> central([float(i) for i in range(21)])
    (1.0, 19.0)
    """
    r = max(1, (len(errors) + 1) // 10)
    ordered = sorted(errors)
    return ordered[r - 1], ordered[-r]


def _estimates(
    predictions: Predictions, other: Predictions | None, temperature: float, threshold: float
) -> dict[str, float]:
    probabilities = calibrated(predictions, temperature).probabilities()
    found = {
        "average_confidence": average_confidence(probabilities),
        "average_thresholded_confidence": average_thresholded_confidence(probabilities, threshold),
    }
    if other is not None:
        found["agreement"] = agreement(predictions.values, other.values)
    return found

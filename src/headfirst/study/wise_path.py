"""The WiSE path: weights mixed at several α, the temperature refitted at each, α chosen where nothing is reported.

What enters: for each α, predictions on the selection splits. What leaves: the α of the least log-loss, averaged over
home validation and corrupted validation; ties go to the smaller, which is nearer to the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from headfirst.evaluation import calibrated, correct
from headfirst.metrics import fit_temperature, negative_log_likelihood
from headfirst.study.choose import CORRUPTED, HOME
from headfirst.types import FrontierPoint, Predictions


@dataclass(frozen=True)
class Scored:
    """An α's temperature, fitted on home validation, and its mean log-loss (nats) over the splits that choose."""

    temperature: float
    loss: float


def scored(selection: Sequence[Predictions], rows: np.ndarray | None = None) -> Scored:
    """Score predictions on `val` and `val-corrupted`, on `rows` of them (default all)."""
    by_split = {p.split: p for p in selection if p.split in (HOME, CORRUPTED)}
    kept = torch.arange(len(by_split[HOME])) if rows is None else torch.from_numpy(rows)
    home = by_split[HOME]
    temperature = fit_temperature(home.log_probabilities()[kept], home.labels[kept])
    losses = [
        negative_log_likelihood(calibrated(p, temperature).log_probabilities()[kept], p.labels[kept])
        for p in by_split.values()
    ]
    return Scored(temperature, float(np.mean(losses)))


def best_alpha(candidates: Mapping[float, Sequence[Predictions]], rows: np.ndarray | None = None) -> float:
    """The α whose selection predictions lose least."""
    return min(sorted(candidates), key=lambda alpha: scored(candidates[alpha], rows).loss)


def frontier(
    selection: Mapping[float, Sequence[Predictions]],
    reported: Mapping[float, Sequence[Predictions]],
    chosen: float,
) -> tuple[FrontierPoint, ...]:
    """The path as one curve: for each α what chose it, and what it turned out to be at home and away."""
    points = []
    for alpha in sorted(selection):
        found = scored(selection[alpha])
        accuracy = {p.split: correct([p]).double().mean().item() for p in reported[alpha]}
        away = [value for split, value in accuracy.items() if split.startswith("shift-")]
        points.append(
            FrontierPoint(
                alpha=alpha,
                temperature=found.temperature,
                selection=found.loss,
                home=accuracy["test"],
                away=float(np.mean(away)),
                chosen=alpha == chosen,
            )
        )
    return tuple(points)

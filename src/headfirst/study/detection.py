"""How well a model's scores tell shifted images from home: four scores, one chosen on corrupted validation images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from headfirst.adapt import TunedModel
from headfirst.metrics import (
    Mahalanobis,
    auroc,
    auroc_interval,
    energy,
    false_positive_rate,
    max_softmax,
    neighbour_distance,
)
from headfirst.types import Detection, Features

Score = Callable[[Features], Tensor]


def detections(
    model: TunedModel,
    train: Features,
    validation: Features,
    corrupted: Features,
    home: Features,
    away: Mapping[str, Features],
    *,
    seed: int = 0,
) -> tuple[Detection, ...]:
    """Every score against every split of `away`, all features being of the model's own backbone.

    Args:
        train: training features, the reference of the distances.
        validation, corrupted: the score that tells these two apart best is `chosen`.
        home: features of `test`, what counts as in-domain.
        away: features of the splits to tell from it, labelled or not.
        seed: of the bootstrap.
    """
    scores = scores_of(model, train)
    separation = {name: auroc(score(validation), score(corrupted)) for name, score in scores.items()}
    chosen = max(separation, key=lambda name: separation[name])
    found = []
    for name, score in scores.items():
        inside = score(home)
        for split, features in away.items():
            outside = score(features)
            interval = auroc_interval(inside, outside, seed=seed)
            found.append(
                Detection(
                    method=model.method,
                    split=split,
                    score=name,
                    auroc=interval.value,
                    low=interval.low,
                    high=interval.high,
                    false_positive_rate=false_positive_rate(inside, outside),
                    n_home=len(home),
                    n=len(features),
                    chosen=name == chosen,
                )
            )
    return tuple(found)


def scores_of(model: TunedModel, train: Features) -> dict[str, Score]:
    """The four scores; higher means more like home."""
    mahalanobis = Mahalanobis.fit(train.values, train.labels)

    def logits(features: Features) -> Tensor:
        return model.predictions(features).values

    return {
        "max_softmax": lambda features: max_softmax(logits(features)),
        "energy": lambda features: energy(logits(features)),
        "neighbour_distance": lambda features: neighbour_distance(features.values, train.values, k=min(5, len(train))),
        "mahalanobis": lambda features: mahalanobis(features.values),
    }

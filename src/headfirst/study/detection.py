"""How well a model's scores tell shifted images from home: four scores, one chosen on corrupted validation images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from headfirst.adapt import TunedModel
from headfirst.data import ImageSet, ImageSplit, corrupt_mixed, prepare, prepare_split
from headfirst.features import embed
from headfirst.metrics import (
    Mahalanobis,
    auroc,
    auroc_interval,
    energy,
    false_positive_rate,
    max_softmax,
    neighbour_distance,
)
from headfirst.randomness import keyed_permutation
from headfirst.types import Detection, Features, Progress, silent

MOST = 1000
"""Images a split that are looked at."""

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


def detect(
    model: TunedModel,
    images: ImageSet,
    away: Mapping[str, ImageSplit],
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> tuple[Detection, ...]:
    """`detections` from images: `images` gives `train`, `val` and `test`, `away` any labelled or unlabelled splits.

    Every split is sampled down to `MOST` images; the corrupted copies of `val` are made here.
    """
    preprocessing = model.classifier.backbone.preprocessing
    prepared = prepare(images.only("train", "val", "test"), preprocessing, progress=progress)
    few = {name: sample(prepared[name], MOST) for name in ("train", "val", "test")}
    few["val-corrupted"] = corrupt_mixed(few["val"], 3, name="val-corrupted")
    few |= {
        name: sample(prepare_split(split, preprocessing, progress=progress)[0], MOST) for name, split in away.items()
    }
    with tempfile.TemporaryDirectory(prefix="headfirst-") as store:  # a tuned backbone's features are not kept
        seen = {
            name: embed(model.classifier.backbone, split, cache=Path(store), device=device, progress=progress)
            for name, split in few.items()
        }
        return detections(model, seen["train"], seen["val"], seen["val-corrupted"], seen["test"],
                          {name: seen[name] for name in away}, seed=seed)  # fmt: skip


def sample(split: ImageSplit, most: int) -> ImageSplit:
    """At most `most` images, drawn from a fixed key, in their order."""
    if len(split) <= most:
        return split
    return split.take(np.sort(keyed_permutation(len(split), 0x5A3)[:most]).tolist())


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

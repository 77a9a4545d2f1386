"""What is right and wrong with k labels a class, arm by arm: the rows that label efficiency is made of.

An arm is a set of features (raw pixels, an untrained network, a backbone, a pre-training), several of them where the
pre-training had several seeds, or a function that trains a classifier itself. All arms see the same few labels.

Shape letters: P pre-trainings, S draws of labelled images, N images of a split, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from headfirst.adapt import LinearProbe
from headfirst.data import ImageSplit, few_shot
from headfirst.errors import DataError, InputError
from headfirst.types import Features, Predictions

FeatureSet = Mapping[str, Features]
"""Features by split, `train` among them."""

Fitter = Callable[[int, int], Mapping[str, Predictions]]
"""`(k, seed)` → what a classifier trained on `few_shot(train, k, seed=seed)` says of each evaluation split."""

Arm = FeatureSet | Sequence[FeatureSet] | Fitter

RAW_SIDE = 32
"""Longest side of raw pixels: 3,072 numbers an image, as much as a probe of a few labels can be asked to weigh."""

_BATCH = 256


def raw_pixels(split: ImageSplit) -> Features:
    """Pixels / 255, flattened: what a probe knows without any network.

    Images of at most 32 pixels a side enter whole, larger ones as area averages of 32×32; `source` says which.

    Args:
        split: prepared.

    Returns:
        (N, 3·h·w) float32 in [0, 1].

    Raises:
        InputError: the split is not prepared.
    """
    height, width = split.batch([]).shape[2:]
    h, w = (height, width) if max(height, width) <= RAW_SIDE else (RAW_SIDE, RAW_SIDE)
    blocks = [
        adaptive_avg_pool2d(split.batch(rows).float() / 255, (h, w)).flatten(1)
        for rows in torch.arange(len(split)).split(_BATCH)
    ]
    return Features(
        values=torch.cat(blocks) if blocks else torch.empty(0, 3 * h * w),
        labels=torch.from_numpy(split.labels).long(),
        classes=split.classes,
        ids=split.ids,
        split=split.name,
        source=f"raw pixels, {h}×{w}",
    )


def right_by_draw(
    name: str, arm: Arm, train: ImageSplit, k: int, draws: Sequence[int], asked: Mapping[str, Sequence[str] | None]
) -> dict[str, Bool[Tensor, "p s n"]]:
    """(P, S, N) by split: whether the classifier of pre-training p with the k labels of draw s is right.

    Args:
        name: of the arm, for refusals.
        train: labelled; each draw takes `few_shot(train, k, seed=draw)`, the same for every arm.
        asked: the evaluation splits and the labelled images expected there, by id (None: whichever come).

    Raises:
        InputError: an arm lacks a split, or features of a training image, or has other images than asked.
        DataError: a class with fewer than k images; a split without labels.
    """
    if callable(arm):
        return {split: rows[None] for split, rows in _stacked([_fitted(name, arm(k, s), asked) for s in draws]).items()}
    return _stacked(
        [_stacked([_probed(name, one, train, k, s, asked) for s in draws]) for one in feature_sets(name, arm)]
    )


def feature_sets(name: str, arm: FeatureSet | Sequence[FeatureSet]) -> list[FeatureSet]:
    """The arm's sets, one a pre-training."""
    sets = [arm] if isinstance(arm, Mapping) else list(arm)
    if not sets:
        raise InputError(f"the arm {name!r} holds no features; give at least one pre-training's")
    return sets


def labelled_ids(arms: Mapping[str, Arm], split: str) -> tuple[str, ...] | None:
    """The split's labelled images as the first arm of features has them; None where there is none."""
    for name, arm in arms.items():
        if not callable(arm):
            features = _of(name, feature_sets(name, arm)[0], split)
            return tuple(id_ for id_, label in zip(features.ids, features.labels.tolist(), strict=True) if label >= 0)
    return None


def _of(name: str, features: FeatureSet, split: str) -> Features:
    if split not in features:
        raise InputError(f"the arm {name!r} has no features of {split!r}; it has {', '.join(features)}")
    return features[split]


def _stacked(found: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {split: torch.stack([one[split] for one in found]) for split in found[0]}


def _probed(
    name: str, features: FeatureSet, train: ImageSplit, k: int, draw: int, asked: Mapping[str, Sequence[str] | None]
) -> dict[str, Tensor]:
    known = _of(name, features, "train")
    place = {id_: row for row, id_ in enumerate(known.ids)}
    ids = few_shot(train, k, seed=draw).ids
    if missing := [id_ for id_ in ids if id_ not in place]:
        raise InputError(f"the arm {name!r} has no features of the training image {missing[0]!r}; embed all of train")
    few = known.take([place[id_] for id_ in ids])
    # A network that collapsed gives every image the same features: no probe can be fitted, and none is needed.
    told_apart = bool((few.values != few.values[0]).any())
    model = LinearProbe(seed=draw).fit(few) if told_apart else None
    found = {}
    for split, expected in asked.items():
        held = _of(name, features, split)
        predicted = model.predict(held) if model is not None else torch.zeros(len(held), dtype=torch.int64)
        found[split] = _right(name, held, predicted, expected)
    return found


def _fitted(
    name: str, predictions: Mapping[str, Predictions], asked: Mapping[str, Sequence[str] | None]
) -> dict[str, Tensor]:
    found = {}
    for split, expected in asked.items():
        if split not in predictions:
            raise InputError(f"the arm {name!r} says nothing of {split!r}; it has {', '.join(predictions)}")
        said = predictions[split]
        found[split] = _right(name, said, said.values.argmax(dim=1), expected)
    return found


def _right(
    name: str, held: Features | Predictions, predicted: Tensor, expected: Sequence[str] | None
) -> Bool[Tensor, " n"]:
    labelled = held.labels >= 0
    if not bool(labelled.any()):
        raise DataError(f"no image of {held.split!r} has a label in the arm {name!r}; accuracy needs labelled images")
    ids = [held.ids[i] for i in torch.nonzero(labelled)[:, 0].tolist()]
    if expected is not None and ids != list(expected):
        raise InputError(
            f"the arms must be evaluated on the same labelled images of {held.split!r} in the same order, but "
            f"{name!r} has {len(ids)} of its own where {len(expected)} are expected; embed that split as it is for each"
        )
    return (predicted == held.labels)[labelled]

"""What the page of a pre-training run shows: plain data, each part optional; neighbours and outliers of features.

Shape letters: N images, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from headfirst.data import ImageSplit, shuffled_by_name
from headfirst.errors import InputError
from headfirst.features import nearest
from headfirst.study.label_efficiency import LabelEfficiency
from headfirst.study.preflight import Preflight
from headfirst.study.thumbnails import thumbnail
from headfirst.types import Features, Neighbour

MOST_COMPARED = 10_000
"""Images that neighbours are sought among: their cosines take seconds, those of ten times as many minutes."""

_SMALL = 48  # pixels of a neighbour's thumbnail, longer side


@dataclass(frozen=True, kw_only=True)
class Neighbourhood:
    """An image and those most like it to the network; `thumbnail` is a `data:image/jpeg;base64,…` address."""

    id: str
    label: str
    thumbnail: str
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """An image that is like no other: `distance`, 1 - cosine, to its fifth neighbour is among the largest."""

    id: str
    label: str
    distance: float
    thumbnail: str


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """An image, what was left of it, and what the network made of that: three `data:image/…` addresses."""

    id: str
    image: str
    masked: str
    reconstruction: str


@dataclass(frozen=True, kw_only=True)
class Depth:
    """Accuracy of a probe on the features at one depth of the network, with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class PretrainReport:
    """A pre-training run. What is empty or None is left out of the page.

    Attributes:
        name: of the data.
        method: rotation, jigsaw, masked, simclr, dino, vicreg.
        seconds: that training took.
        readings: one a checked epoch: `epoch`, and those of `loss`, `rankme`, `feature_std`, `teacher_entropy`, `knn`,
            `probe` that were read (accuracies in [0, 1]).
        events: plain sentences; one that begins with "epoch N: " is marked at that epoch.
        about: what was run: recipe, data, device.
        depths: in the order of the network, the input first.
        versions: of the libraries.
    """

    name: str
    method: str
    seconds: float
    readings: tuple[Mapping[str, float | int | None], ...] = ()
    events: tuple[str, ...] = ()
    preflight: Preflight | None = None
    label_efficiency: LabelEfficiency | None = None
    neighbours: tuple[Neighbourhood, ...] = ()
    outliers: tuple[Outlier, ...] = ()
    reconstructions: tuple[Reconstruction, ...] = ()
    depths: tuple[Depth, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def neighbours_of(
    features: Features, split: ImageSplit, *, count: int = 12, most: int = 5, seed: int = 0
) -> tuple[Neighbourhood, ...]:
    """`count` images drawn by the seed, and for each the `most` others with the largest cosine.

    Sought among at most 10,000 images, drawn likewise. Features that are all zero have no direction and are left out.

    Args:
        features: of the split's images, in their order.
        split: prepared.

    Raises:
        InputError: features of other images; count or most below 1.
    """
    if min(count, most) < 1:
        raise InputError(f"count and most must be at least 1, got {count} and {most}")
    rows = _compared(features, split, seed)
    asked = rows[:count]
    found = _others(features.values, asked, rows, most)
    return tuple(
        Neighbourhood(
            id=split.ids[row],
            label=_label(split, row),
            thumbnail=thumbnail(split, row),
            neighbours=tuple(
                Neighbour(
                    id=split.ids[other],
                    label=_label(split, other),
                    similarity=similarity,
                    thumbnail=thumbnail(split, other, size=_SMALL),
                )
                for other, similarity in others
            ),
        )
        for row, others in zip(asked.tolist(), found, strict=True)
    )


def outliers_of(
    features: Features, split: ImageSplit, *, count: int = 12, k: int = 5, seed: int = 0
) -> tuple[Outlier, ...]:
    """The `count` images whose k-th nearest other is farthest, the farthest first; arguments as in `neighbours_of`."""
    if min(count, k) < 1:
        raise InputError(f"count and k must be at least 1, got {count} and {k}")
    rows = _compared(features, split, seed)
    if len(rows) <= k:
        return ()
    distances = [1 - others[-1][1] for others in _others(features.values, rows, rows, k)]
    order = sorted(range(len(rows)), key=lambda i: (-distances[i], int(rows[i])))[:count]
    return tuple(
        Outlier(
            id=split.ids[row],
            label=_label(split, row),
            distance=distances[i],
            thumbnail=thumbnail(split, row),
        )
        for i in order
        for row in [int(rows[i])]
    )


def _compared(features: Features, split: ImageSplit, seed: int) -> Tensor:
    """Rows with a direction, shuffled by name, at most MOST_COMPARED."""
    if features.ids != split.ids:
        raise InputError(
            f"features and images must be of the same {split.name!r} images in the same order, "
            f"got {len(features)} and {len(split)}; embed that split"
        )
    order = torch.from_numpy(shuffled_by_name(split.ids, seed=seed))
    return order[features.values.any(dim=1)[order]][:MOST_COMPARED]


def _others(values: Tensor, asked: Tensor, rows: Tensor, most: int) -> list[list[tuple[int, float]]]:
    """(row, cosine) of the `most` rows most like each asked one, without itself."""
    if not len(asked):
        return []
    close = nearest(values[asked], values[rows], min(most + 1, len(rows)))
    found = []
    for row, others, similarities in zip(
        asked.tolist(), rows[close.indices].tolist(), close.similarities.tolist(), strict=True
    ):
        pairs = [pair for pair in zip(others, similarities, strict=True) if pair[0] != row]
        found.append(pairs[:most])
    return found


def _label(split: ImageSplit, row: int) -> str:
    label = int(split.labels[row])
    return split.classes[label] if label >= 0 else ""

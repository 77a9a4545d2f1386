"""Images that are only names, and features planted in place of a backbone's: what a claim finds is then known."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from headfirst.data import ImageSet, ImageSplit
from headfirst.types import Features

CLASSES = ("red", "green", "blue")
COUNTS = {"train": 120, "val": 300, "test": 300, "shift-dim": 300}


def plant(
    monkeypatch: pytest.MonkeyPatch, claim: ModuleType, values: Callable[[ImageSplit], Tensor], **counts: int
) -> ImageSet:
    """Make `claim` see `values(split)` (N, D) as the features of a split; returns images whose names are all they are.

    The splits have as many images as `COUNTS` or `counts` says; corruptions have the names of the test images.
    """

    def embed(_: object, split: ImageSplit, **__: object) -> Features:
        return features(values(split), split)

    monkeypatch.setattr(claim, "embed", embed)
    monkeypatch.setattr(claim, "ready", lambda data, *_: data)
    monkeypatch.setattr("headfirst.claims.experiment.corrupt", lambda split, *_, name: renamed(split, name))
    splits = {name: named_images(name, count) for name, count in {**COUNTS, **counts}.items()}
    return ImageSet(name="planted", splits=splits, classes=CLASSES)


def features(values: Tensor, split: ImageSplit) -> Features:
    """Features of a split with these values."""
    return Features(
        values=values.float(),
        labels=torch.as_tensor(split.labels),
        classes=split.classes,
        ids=split.ids,
        split=split.name,
        source="planted",
    )


def noise(split: ImageSplit, dim: int, *, of: str = "") -> Tensor:
    """(N, dim) standard normal draws, one row for each name (and `of`): the same image has the same wherever it is."""
    return torch.stack(
        [
            torch.randn(dim, generator=torch.Generator().manual_seed(zlib.crc32(f"{of}{image}".encode())))
            for image in split.ids
        ]
    )


def renamed(split: ImageSplit, name: str) -> ImageSplit:
    """The same images as another split."""
    return ImageSplit(name=name, ids=split.ids, sources=split.sources, labels=split.labels, classes=split.classes)


def named_images(name: str, count: int) -> ImageSplit:
    """`count` images without content, the classes in turn."""
    return ImageSplit(
        name=name,
        ids=tuple(f"{name}/{i}" for i in range(count)),
        sources=(np.zeros((1, 1, 3), dtype=np.uint8),) * count,
        labels=np.arange(count, dtype=np.int64) % len(CLASSES),
        classes=CLASSES,
    )


def verdicts(rows: tuple, part: str) -> set[str]:
    """Verdicts of the rows whose description has `part` in it."""
    return {row.verdict for row in rows if part in row.what}

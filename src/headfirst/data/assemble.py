"""From named, labelled files to an `ImageSet`: class names, missing splits, and what no set may be.

Folders and manifests both end here, so both are held to the same rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from headfirst.data.imageset import UNLABELLED, ImageSet, ImageSplit
from headfirst.data.splits import ClassTooSmallError, grouped_cut, stratified_cut
from headfirst.errors import DataError, did_you_mean

VAL_SHARE = TEST_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image file before it has a place: `label` is None where there is none."""

    id: str
    path: Path
    label: str | None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Items by the split they were cut into, and the sentence that says how."""

    parts: Mapping[str, Sequence[Item]]
    rule: str


def cut_all(items: Sequence[Item], *, seed: int) -> Cut:
    """60 % train, 20 % val and 20 % test of each class, where no image says its split."""
    shares = {"val": VAL_SHARE, "test": TEST_SHARE}
    rule = (
        f"The images came without splits: of each class {1 - VAL_SHARE - TEST_SHARE:.0%} are train, "
        f"{VAL_SHARE:.0%} val and {TEST_SHARE:.0%} test, {_how(items)} the seed ({seed})."
    )
    return Cut(parts=_cut(items, shares, seed=seed), rule=rule)


def cut_val(train: Sequence[Item], *, seed: int) -> Cut:
    """20 % of each class of train becomes val."""
    rule = f"val is {VAL_SHARE:.0%} of each class of train, {_how(train)} the seed ({seed})."
    return Cut(parts=_cut(train, {"val": VAL_SHARE}, seed=seed), rule=rule)


def assemble(name: str, items: Mapping[str, Sequence[Item]], *, rules: Sequence[str] = ()) -> ImageSet:
    """Make the set.

    Args:
        name: of the set.
        items: by split; `train` is among them.
        rules: the set's rules.

    Raises:
        DataError: an empty split, fewer than two classes, a class that is not in train.
    """
    for split, members in items.items():
        if not members:
            raise DataError(f"split {split!r} of {name} has no images; add some, or take the split away")
    classes = tuple(sorted({str(item.label) for item in items["train"]}))
    _require_known(name, items, classes)
    if len(classes) == 1:
        raise DataError(
            f"{name} has one class, {classes[0]!r}; a classifier needs at least two, "
            "each in its own folder (or under its own label in the manifest)"
        )
    return ImageSet(
        name=name,
        splits={split: image_split(split, items[split], classes) for split in sorted(items, key=_place)},
        classes=classes,
        rules=tuple(rules),
    )


def _cut(items: Sequence[Item], shares: Mapping[str, float], *, seed: int) -> dict[str, list[Item]]:
    """`items` in parts, `train` and those of `shares`; groups stay whole where there are any."""
    classes = sorted({str(item.label) for item in items})
    number = {label: k for k, label in enumerate(classes)}
    ids = [item.id for item in items]
    labels = np.array([number[str(item.label)] for item in items], dtype=np.int64)
    try:
        if any(item.group is not None for item in items):
            # An image without a group is a group of its own; the prefixes keep it from meeting a real one.
            groups = [f"i/{item.id}" if item.group is None else f"g/{item.group}" for item in items]
            parts = grouped_cut(ids, labels, groups, shares, seed=seed)
        else:
            parts = stratified_cut(ids, labels, shares, seed=seed)
    except ClassTooSmallError as error:
        raise error.named(classes) from error
    return {part: [items[i] for i in rows] for part, rows in parts.items()}


def image_split(name: str, items: Sequence[Item], classes: tuple[str, ...]) -> ImageSplit:
    """A split in the order of its ids; `unlabelled` hides whatever labels there may be."""
    items = sorted(items, key=lambda item: item.id)
    number = {label: k for k, label in enumerate(classes)}
    hidden = name == UNLABELLED
    labels = [-1 if hidden or item.label is None else number[item.label] for item in items]
    return ImageSplit(
        name=name,
        ids=tuple(item.id for item in items),
        sources=tuple(item.path for item in items),
        labels=np.array(labels, dtype=np.int64),
        classes=classes,
    )


def is_split(name: str) -> bool:
    """Whether a folder or a manifest cell of this name is a split."""
    return name in ("train", "val", "test", UNLABELLED) or any(
        name.startswith(prefix) and len(name) > len(prefix) for prefix in ("shift-", "val-")
    )


class NoLabelsError(DataError):
    """There is no label at all. Whoever can do without takes `images`: all of them, as `unlabelled`."""

    def __init__(self, where: Path, items: Sequence[Item]) -> None:
        super().__init__(
            f"{where} has {len(items)} images and no labels, so there is nothing to adapt to or to measure. "
            "Label a few: move them into class folders (photos/dog/1.jpg), or list them in a manifest.csv with "
            "the columns path,label; ten a class are a start, and the rest can stay in unlabelled/. Without "
            "labels, `headfirst plan` says which to label first, `headfirst embed` gives their features and "
            "`headfirst predict` applies a saved model."
        )
        unlabelled = [replace(item, label=None) for item in items]
        splits = {UNLABELLED: image_split(UNLABELLED, unlabelled, ())}
        self.images = ImageSet(name=where.resolve().name, splits=splits, classes=())


def _require_known(name: str, items: Mapping[str, Sequence[Item]], classes: Sequence[str]) -> None:
    for split, members in items.items():
        unknown = sorted({str(item.label) for item in members if item.label not in classes})
        if unknown and split not in ("train", UNLABELLED):
            example = next(item.id for item in members if item.label == unknown[0])
            raise DataError(
                f"class {unknown[0]!r} is in split {split!r} of {name} (e.g. {example!r}) but not in train"
                f"{did_you_mean(unknown[0], classes)}; add training images of it, or take it out of {split}"
            )


def _how(items: Sequence[Item]) -> str:
    grouped = any(item.group is not None for item in items)
    return "as nearly as whole groups allow, drawn by" if grouped else "drawn by"


def _place(split: str) -> tuple[int, str]:
    kinds = ("train", "val", "val-", "test", "shift-", UNLABELLED)
    kind = split if split in kinds else split.split("-")[0] + "-"
    return kinds.index(kind), split

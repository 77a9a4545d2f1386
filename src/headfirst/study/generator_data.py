"""What a generator learns from and is held against, the same for training and for judging it.

What enters: a set of images. What leaves: the split to learn from, as the generator sees it; any split at the
generator's size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from headfirst.data import ImageSet, ImageSplit, audit, prepare_split, unlabelled_pool
from headfirst.data.imageset import UNLABELLED
from headfirst.generate import pictures
from headfirst.generate.pictures import square
from headfirst.types import Progress, Quarantined, silent


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """What is learned from.

    Attributes:
        split: prepared, S × S pixels.
        size: S.
        resized: how images came to this size, a sentence; empty where they had it.
        left_out: ids of images that are also in test, val or a shift.
        quarantined: files that could not be read.
    """

    split: ImageSplit
    size: int
    resized: str
    left_out: tuple[str, ...]
    quarantined: tuple[Quarantined, ...]


def training_pool(
    images: ImageSet, *, size: int | None = None, with_classes: bool = True, progress: Progress = silent
) -> Pool:
    """`train` with its labels, where all have one; else `train` and `unlabelled` without any.

    Images alike to one of another split (`audit`) are left out: a generator that made them again could not be told
    from one that knows the distribution.

    Args:
        size: S; None as `headfirst.generate.pictures` chooses it.
        with_classes: whether labels are looked at.

    Raises:
        DataError: there is nothing to learn from, or nothing that can be read.
    """
    labelled = with_classes and "train" in images and len(images["train"]) and (images["train"].labels >= 0).all()
    ready = pictures(images["train"] if labelled else unlabelled_pool(images), size=size, progress=progress)
    others = {name: split for name, split in images.splits.items() if name not in ("train", UNLABELLED)}
    left, gone = ready.split, ()
    if others:
        asked = {name: prepare_split(split, square(ready.size), progress=progress)[0] for name, split in others.items()}
        together = replace(images, splits={ready.split.name: ready.split, **asked})
        left = audit(together, progress=progress)[ready.split.name]
        gone = tuple(sorted(set(ready.split.ids) - set(left.ids)))
    return Pool(split=left, size=ready.size, resized=ready.resized, left_out=gone, quarantined=ready.quarantined)


def at_size(split: ImageSplit, size: int, *, progress: Progress = silent) -> ImageSplit:
    """The images as a generator of S × S pixels sees them, as a split of decoded images."""
    ready, _ = prepare_split(replace(split, hashes=None, pixels=None), square(size), progress=progress)
    assert ready.pixels is not None
    sources = tuple(np.asarray(ready.pixels.array[row]) for row in ready.pixels.rows)
    return replace(ready, sources=sources, hashes=None, pixels=None)

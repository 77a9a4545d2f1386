"""Every image of a place as one unlabelled split, whatever its folders mean: what an index is made of."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from headfirst.data.assemble import Item, image_split
from headfirst.data.folders import because
from headfirst.data.imageset import UNLABELLED, ImageSet
from headfirst.data.pixels import hash_all, usable_cores
from headfirst.data.scan import scan
from headfirst.errors import DataError
from headfirst.types import Progress, Quarantined, silent


def every_image(where: str | Path) -> ImageSet:
    """All images under a folder, of a manifest, or of the embedded digits, as the split `unlabelled`.

    Args:
        where: the word `digits`, a manifest file, or a folder; a folder's images need neither classes nor splits, and
            their ids are paths under it.

    Raises:
        DataError: nothing is there, or no image.
    """
    path = Path(where)
    if where != "digits" and path.is_dir():
        found = scan(path)
        if not found.files:
            raise DataError(f"{path} holds no images{because(found)}; give a folder with images in it, at any depth")
        items = [Item(id=id_, path=file, label=None) for id_, file in found.files.items()]
        split = image_split(UNLABELLED, items, ())
        return ImageSet(
            name=found.root.name, splits={UNLABELLED: split}, classes=(), quarantined=tuple(found.quarantined)
        )
    images = ImageSet.open(where)
    splits = images.splits.values()
    split = replace(
        next(iter(splits)),
        name=UNLABELLED,
        ids=tuple(id_ for split in splits for id_ in split.ids),
        sources=tuple(source for split in splits for source in split.sources),
        labels=np.full(sum(map(len, splits)), -1, dtype=np.int64),
        classes=(),
    )
    return replace(images, splits={UNLABELLED: split}, classes=(), rules=())


def with_hashes(images: ImageSet, *, progress: Progress = silent) -> ImageSet:
    """`every_image`'s set with the content hash of each image; files that cannot be read are set aside.

    Raises:
        DataError: none can be read.
    """
    split = images[UNLABELLED]
    with ThreadPoolExecutor(usable_cores()) as pool:
        hashes, reasons = hash_all(split, pool, progress)
    kept = [i for i, digest in enumerate(hashes) if digest is not None]
    if not kept:
        id_, reason = next(iter(reasons.items()))
        raise DataError(f"none of the {len(split)} images can be read; the first is {id_!r}: {reason}")
    readable = replace(split.take(kept), hashes=tuple(str(hashes[i]) for i in kept))
    aside = tuple(Quarantined(id=id_, reason=reason) for id_, reason in sorted(reasons.items()))
    return replace(images, splits={UNLABELLED: readable}, quarantined=(*images.quarantined, *aside))

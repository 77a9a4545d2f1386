"""What may be learned from without labels: `train` and `unlabelled`, as one split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from headfirst.data.imageset import UNLABELLED, ImageSet, ImageSplit
from headfirst.errors import DataError


def unlabelled_pool(images: ImageSet) -> ImageSplit:
    """All images of `train` and `unlabelled`, their labels taken off; no other split is touched.

    Args:
        images: as opened; what was prepared is prepared anew.

    Raises:
        DataError: it has neither split.
    """
    parts = [images[name] for name in ("train", UNLABELLED) if name in images]
    if not parts:
        raise DataError(
            f"{images.name} has neither train nor unlabelled images, and nothing else may be learned from; it has "
            f"{', '.join(images.splits)}"
        )
    return replace(
        parts[0],
        name=UNLABELLED,
        ids=tuple(id_ for part in parts for id_ in part.ids),
        sources=tuple(source for part in parts for source in part.sources),
        labels=np.full(sum(map(len, parts)), -1, dtype=np.int64),
        hashes=None,
        pixels=None,
    )

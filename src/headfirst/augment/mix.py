"""Real and generated images in one training set, so many generated for each real one, class by class.

What enters: both, as features or as images, and a ratio. What leaves: the same type again.

Shape letters: N real and M generated images.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int64

from headfirst.data import ImageSplit
from headfirst.errors import InputError
from headfirst.types import Features, Samples


def as_split(samples: Samples, *, name: str = "synthetic") -> ImageSplit:
    """Generated images as a split, each under the name of what makes it again: class, generator, seed, index."""
    labels = samples.labels.numpy().astype(np.int64)
    classes = [samples.classes[label] if label >= 0 else "unlabelled" for label in labels]
    return ImageSplit(
        name=name,
        ids=tuple(
            f"{name}/{class_name}/{samples.source[:8]}-{samples.seed}-{index}"
            for class_name, index in zip(classes, samples.indices.tolist(), strict=True)
        ),
        sources=tuple(np.ascontiguousarray(image) for image in samples.pixels.permute(0, 2, 3, 1).numpy()),
        labels=labels,
        classes=samples.classes,
    )


def rows_to_add(
    real: Int64[np.ndarray, " n"], generated: Int64[np.ndarray, " m"], ratio: float
) -> Int64[np.ndarray, " _"]:
    """Rows of `[real; generated]` that come on top of the real ones, class by class.

    A class of n real images gets ⌊ratio · n + 1/2⌋ more: its generated images in their order, over again where there
    are fewer, and its real ones over again where there is none. So the classes' shares stay what they were: a class
    whose images were thrown out must not look rarer for it.

    Args:
        real, generated: labels.
        ratio: at least 0.

    Raises:
        InputError: a ratio that cannot be.

    >>> rows_to_add(np.array([0, 0, 1]), np.array([0, 0, 0, 0]), 1.0).tolist()
    [3, 4, 2]
    """
    if not 0 <= ratio < math.inf:
        raise InputError(
            f"ratio must be a finite number of generated images for each real one, at least 0, got {ratio}"
        )
    found = [np.zeros(0, dtype=np.int64)]
    for label in np.unique(real):
        ours = np.flatnonzero(real == label)
        theirs = np.flatnonzero(generated == label) + len(real)
        found.append(np.resize(theirs if len(theirs) else ours, int(ratio * len(ours) + 0.5)))
    return np.concatenate(found)


def mix(real: Features, generated: Features, ratio: float) -> Features:
    """Real features, and `ratio` generated ones for each; see `rows_to_add`.

    Raises:
        InputError: other classes or another backbone.
    """
    _same(real.classes, generated.classes)
    if real.source != generated.source:
        raise InputError("real and generated images need features of one backbone; embed both with the same")
    added = rows_to_add(real.labels.numpy(), generated.labels.numpy(), ratio)
    rows = torch.from_numpy(np.concatenate([np.arange(len(real)), added]))
    ids = (*real.ids, *generated.ids)
    return replace(
        real,
        values=torch.cat([real.values, generated.values])[rows],
        labels=torch.cat([real.labels, generated.labels])[rows],
        ids=_numbered([ids[row] for row in rows.tolist()]),
    )


def mix_images(real: ImageSplit, generated: ImageSplit, ratio: float) -> ImageSplit:
    """The same of images; the result is not prepared.

    Raises:
        InputError: other classes.
    """
    _same(real.classes, generated.classes)
    rows = np.concatenate([np.arange(len(real)), rows_to_add(real.labels, generated.labels, ratio)])
    ids, sources = (*real.ids, *generated.ids), (*real.sources, *generated.sources)
    return replace(
        real,
        ids=_numbered([ids[row] for row in rows]),
        sources=tuple(sources[row] for row in rows),
        labels=np.concatenate([real.labels, generated.labels])[rows],
        hashes=None,
        pixels=None,
    )


def _same(real: tuple[str, ...], generated: tuple[str, ...]) -> None:
    if real != generated:
        raise InputError(
            f"real and generated images need the same classes, got {', '.join(real)} and "
            f"{', '.join(generated) or 'none'}; train the generator on the labelled images"
        )


def _numbered(ids: Sequence[str]) -> tuple[str, ...]:
    """The same names, unique: the second of a name gets #2."""
    seen: Counter[str] = Counter()
    found = []
    for id_ in ids:
        seen[id_] += 1
        found.append(id_ if seen[id_] == 1 else f"{id_}#{seen[id_]}")
    return tuple(found)

"""Before a pre-training: what can be told from the images in a minute about whether it can work.

What enters: prepared images without labels. What leaves: a `Preflight` of measured rates with their intervals, and
plain advice (`preflight_advice`). At most 2,000 images are looked at, drawn by a seed and their names.

Shape letters: N images looked at, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from headfirst.data import ImageSplit, shuffled_by_name
from headfirst.data.audit import FULL_COSINE, THUMBNAIL_COSINE, full_cosine, nearest, thumbnails
from headfirst.errors import InputError
from headfirst.metrics import Interval, binomial_interval, bootstrap_interval
from headfirst.study.preflight_advice import advice
from headfirst.study.tile_check import GRID, pairs_found
from headfirst.study.turn_check import FOLDS, border_features, content_features, told_turns
from headfirst.types import Progress, silent

MOST_LOOKED_AT = 2000
"""Images looked at: enough for about ± 2 points of any share, few enough for a minute of one core at 224 pixels."""

TRAINING_GAP = 11 / 75
"""Share of a cell that the jigsaw leaves out: tiles of 64 pixels in cells of 75 (Noroozi & Favaro, ECCV 2016)."""

GREY_LEVELS, GREY_PIXELS = 12, 0.01
"""An image is grey where the channels of all but 1 % of its pixels are within 12 levels: JPEG spoils a little."""

EXTREME_ASPECT = 2.0
"""Longer to shorter side above which a square crop loses more than half of the image."""

_BATCH = 64
_LOOKED_AT = 0x4C4F4F4B  # stream of the draw


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What was measured. Every `Interval` is at 95 %; None where it could not be measured.

    Attributes:
        num_images, num_looked: all, and those that the rates below are of (`identical` is of all).
        height, width: pixels of an image.
        mirror: whether a mirrored image means the same.
        identical: share of the images that are byte for byte copies of an earlier one.
        near_duplicates: share of those looked at that have a (near-)copy among them; the more images there are beyond
            those looked at, the more it is an underestimate.
        turn_told: accuracy of telling a quarter turn from simple features of the content; chance is 0.25.
        turn_from_border: the same from the outermost pixels alone.
        tiles_touching, tiles_apart: share of neighbouring jigsaw tiles that the best edge match finds, without a gap
            and with one of `gap` pixels; chance is 1/8.
        grey: share of images without colour.
        extreme_aspect: share of images whose file is more than twice as long as wide, or the reverse.
        advice: plain sentences.
    """

    num_images: int
    num_looked: int
    height: int
    width: int
    mirror: bool
    identical: Interval
    near_duplicates: Interval
    turn_told: Interval | None
    turn_from_border: Interval | None
    tiles_touching: Interval | None
    tiles_apart: Interval | None
    gap: int
    grey: Interval
    extreme_aspect: Interval | None
    advice: tuple[str, ...] = ()


def preflight(
    images: ImageSplit, *, mirror: bool, gap: float = TRAINING_GAP, seed: int = 0, progress: Progress = silent
) -> Preflight:
    """Look at some images and say what each pretext will meet.

    Args:
        images: prepared; labels are not read.
        mirror: whether a mirrored image means the same (`ImageSet.mirror`).
        gap: share of a jigsaw cell's side left out between tiles, in [0, 1).
        seed: of the sample, the folds and the resampling.

    Raises:
        InputError: not prepared, no images, a gap outside [0, 1).
    """
    if images.hashes is None or images.pixels is None:
        raise InputError(f"split {images.name!r} has no pixels yet; call headfirst.data.prepare first")
    if not len(images):
        raise InputError("there are no images to look at; give a split that holds some")
    if not 0 <= gap < 1:
        raise InputError(f"gap must be a share of a tile's cell in [0, 1), got {gap}")
    looked = images.take(shuffled_by_name(images.ids, seed=seed, stream=_LOOKED_AT)[:MOST_LOOKED_AT])
    height, width = looked.batch([0]).shape[2:]
    pixels = round(gap * (min(height, width) // GRID))
    twins = _twins(looked, progress)
    # A copy on the other side of a fold would give its twin away, and copies are no further evidence.
    distinct = looked.take([i for i, first in enumerate(twins) if first == i])
    seen = _look(distinct, pixels, progress)
    measured = Preflight(
        num_images=len(images),
        num_looked=len(looked),
        height=height,
        width=width,
        mirror=mirror,
        identical=binomial_interval(len(images) - len(set(images.hashes)), len(images)),
        near_duplicates=binomial_interval(int((np.bincount(twins)[twins] > 1).sum()), len(looked)),
        turn_told=_told(seen.content, seed),
        turn_from_border=_told(seen.border, seed),
        tiles_touching=_mean(seen.touching, seed),
        tiles_apart=_mean(seen.apart, seed),
        gap=pixels,
        grey=binomial_interval(int(seen.grey.sum()), len(distinct)),
        extreme_aspect=_aspects(looked),
    )
    return replace(measured, advice=advice(measured))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """What one pass over the pixels leaves, batch by batch; None where the images are too small for it."""

    content: Tensor
    border: Tensor
    touching: Tensor | None
    apart: Tensor | None
    grey: Tensor


def _look(images: ImageSplit, gap: int, progress: Progress) -> _Seen:
    content, border, touching, apart, grey = [], [], [], [], []
    enough = min(images.batch([0]).shape[2:]) // GRID - gap >= 2
    for rows in torch.arange(len(images)).split(_BATCH):
        batch = images.batch(rows)
        content.append(content_features(batch))
        border.append(border_features(batch))
        if enough:
            touching.append(pairs_found(batch, 0))
            apart.append(pairs_found(batch, gap))
        coloured = batch.amax(dim=1).int() - batch.amin(dim=1).int() > GREY_LEVELS
        grey.append(coloured.double().mean(dim=(1, 2)) <= GREY_PIXELS)
        progress("looking at images", int(rows[-1]) + 1, len(images))
    return _Seen(
        content=torch.cat(content),
        border=torch.cat(border),
        touching=torch.cat(touching) if touching else None,
        apart=torch.cat(apart) if apart else None,
        grey=torch.cat(grey),
    )


def _twins(images: ImageSplit, progress: Progress) -> np.ndarray:
    """(N,) the first image of the group of (near-)copies that each image belongs to, itself where it has none."""
    group = np.arange(len(images))

    def first(i: int) -> int:
        while group[i] != i:
            i = int(group[i])
        return i

    def join(i: int, j: int) -> None:
        a, b = sorted((first(i), first(j)))
        group[b] = a

    seen: dict[str, int] = {}
    for i, digest in enumerate(images.hashes or ()):
        join(i, seen.setdefault(digest, i))
    small = torch.cat([thumbnails(images.batch(rows)) for rows in torch.arange(len(images)).split(_BATCH)])
    cosines, others = nearest(small, small)
    pairs = sorted({(min(i, j), max(i, j)) for i, j in _alike(cosines, others)})
    for done, (i, j) in enumerate(pairs, start=1):
        if first(i) != first(j):
            a, b = images.batch([i, j]).numpy()
            if full_cosine(a, b) >= FULL_COSINE:
                join(i, j)
        progress("comparing images", done, len(pairs))
    return np.array([first(i) for i in range(len(images))], dtype=np.int64)


def _alike(cosines: Tensor, others: Tensor) -> list[tuple[int, int]]:
    where, column = torch.nonzero(cosines >= THUMBNAIL_COSINE, as_tuple=True)
    pairs = zip(where.tolist(), others[where, column].tolist(), strict=True)
    return [(i, j) for i, j in pairs if i != j]


def _told(features: Tensor, seed: int) -> Interval | None:
    return told_turns(features, seed=seed) if len(features) >= 2 * FOLDS else None


def _mean(shares: Tensor | None, seed: int) -> Interval | None:
    return None if shares is None else bootstrap_interval(shares[None], seed=seed, bounds=(0.0, 1.0))


def _aspects(images: ImageSplit) -> Interval | None:
    """Of the sources whose size can be read; None where none can."""
    found = [ratio for source in images.sources if (ratio := _aspect(source)) is not None]
    return binomial_interval(sum(ratio > EXTREME_ASPECT for ratio in found), len(found)) if found else None


def _aspect(source: Path | np.ndarray) -> float | None:
    if isinstance(source, Path):
        try:
            with Image.open(source) as picture:  # reads the header alone
                sides = picture.size
        except (OSError, ValueError, Image.DecompressionBombError):
            return None
    else:
        sides = source.shape[:2]
    return max(sides) / min(sides)

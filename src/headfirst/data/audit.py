"""Leak audit: images that are on both sides of a measurement, found and removed from the training side.

Sides: train and unlabelled are learnt from; val and val-<name> choose; test and shift-<name> are reported. An
image alike in two sides leaves the earlier one. Alike is

- identical: the same file, or the same pixels at the size used; or
- near: the cosine of the 16×16 grey thumbnails (mean removed) is at least 0.99 *and* that of the full images
  at the size used (RGB, mean removed) at least 0.97.

Measured on photographs (PACS, 224 px), smallest cosines of thumbnails and in full: JPEG re-compression at
quality 30 keeps 0.999 and 0.980, halving the size 0.9998 and 0.979; thumbnails of different photographs stay
below 0.92. Mirrored and cropped copies are not found.

Shape letters: N images of the earlier side, M of the later, T thumbnail values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from headfirst.data.hashing import hash_array
from headfirst.data.imageset import UNLABELLED, ImageSet, ImageSplit
from headfirst.errors import DataError, InputError
from headfirst.types import Duplicate, Progress, silent

THUMBNAIL_COSINE = 0.99
FULL_COSINE = 0.97

_THUMBNAIL = 16
_BLOCK = 1024  # thumbnails compared at a time: memory is flat in the number of images
_CANDIDATES = 8  # most similar thumbnails of each image that are compared in full


def audit(images: ImageSet, *, progress: Progress = silent) -> ImageSet:
    """Find identical and near-duplicate images across the sides and remove them from the earlier side.

    Args:
        images: prepared.
        progress: told which split is being compared.

    Returns:
        The set without them, with `duplicates` (one for each image removed) and a rule added.

    Raises:
        InputError: the set is not prepared.
        DataError: nothing is left of a split, or of a class in train.
    """
    unprepared = [name for name, split in images.splits.items() if split.pixels is None]
    if unprepared:
        raise InputError(f"split {unprepared[0]!r} is not prepared; call headfirst.data.prepare before the audit")
    splits = {name: _look(split) for name, split in images.splits.items()}
    duplicates: list[Duplicate] = []
    # Choosing against reported first: what stays there is what the learning side is compared with.
    for name in sorted(splits, key=lambda name: -_side(name)):
        later = [other for other in splits.values() if _side(other.split.name) > _side(name)]
        progress(f"comparing {name} with the later sides", 0, 1)
        found = _duplicates(splits[name], later)
        if found:
            splits[name] = _without(splits[name], found)
            _require_something_left(images[name], splits[name].split, found)
            duplicates += found.values()
        progress(f"comparing {name} with the later sides", 1, 1)
    return replace(
        images,
        splits={name: looked.split for name, looked in splits.items()},
        duplicates=(*images.duplicates, *sorted(duplicates, key=lambda d: d.removed)),
        rules=(
            *images.rules,
            "Images alike in two sides (identical, or with cosines of at least "
            f"{THUMBNAIL_COSINE} between 16×16 thumbnails and {FULL_COSINE} in full) were removed "
            f"from the training side: {len(duplicates)}.",
        ),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Looked:
    """A split, its thumbnails (zero where an image is one flat colour), and the flat images' pixel hashes."""

    split: ImageSplit
    thumbnails: Float32[Tensor, "n t"]
    flat: dict[int, str]


def _side(name: str) -> int:
    if name in ("train", UNLABELLED):
        return 0
    return 1 if name == "val" or name.startswith("val-") else 2


def _look(split: ImageSplit) -> _Looked:
    blocks = [thumbnails(split.batch(range(s, min(s + 64, len(split))))) for s in range(0, len(split), 64)]
    vectors = torch.cat(blocks)
    flat = torch.nonzero(vectors.norm(dim=1) == 0).flatten().tolist()
    return _Looked(split=split, thumbnails=vectors, flat={i: hash_array(_image(split, i)) for i in flat})


def thumbnails(images: Tensor) -> Float32[Tensor, "n t"]:
    """(N, 256) grey 16×16 averages of (N, 3, H, W) images, mean removed, unit norm; zero for flat images."""
    grey = images.to(torch.float32).mean(dim=1, keepdim=True)
    small = adaptive_avg_pool2d(grey, _THUMBNAIL).flatten(1)
    centred = small - small.mean(dim=1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    # Below a tenth of a grey level only rounding is left, and noise would be compared with noise.
    return torch.where(norm > 0.1 * _THUMBNAIL, centred / norm.clamp_min(1e-6), torch.zeros_like(centred))


def full_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine between two images of one size, all channels together, the mean of each image removed."""
    x, y = (image.astype(np.float64).ravel() for image in (a, b))
    x, y = x - x.mean(), y - y.mean()
    norm = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / norm) if norm > 0 else float(np.array_equal(a, b))


def _duplicates(earlier: _Looked, later: Sequence[_Looked]) -> dict[int, Duplicate]:
    """Of each row of `earlier` that is alike to something in `later`, what it is alike to."""
    if not later:
        return {}
    split = earlier.split
    twins: dict[str, str] = {}
    for other in reversed(later):
        twins |= dict(zip(other.split.hashes or (), other.split.ids, strict=True))
        twins |= {digest: other.split.ids[j] for j, digest in other.flat.items()}
    found: dict[int, Duplicate] = {}
    for i, digest in enumerate(split.hashes or ()):
        twin = twins.get(digest) or twins.get(earlier.flat.get(i, ""))
        if twin is not None:
            found[i] = Duplicate(removed=split.ids[i], kept=twin, kind="identical", similarity=1.0)
    where = [(other.split, j) for other in later for j in range(len(other.split))]
    values, indices = nearest(earlier.thumbnails, torch.cat([other.thumbnails for other in later]))
    for i in torch.nonzero(values[:, 0] >= THUMBNAIL_COSINE).flatten().tolist():
        if i not in found:
            near = indices[i][values[i] >= THUMBNAIL_COSINE].tolist()
            match = _first_alike(split, i, [where[j] for j in near])
            if match is not None:
                found[i] = match
    return found


def nearest(queries: Float32[Tensor, "n t"], keys: Float32[Tensor, "m t"]) -> tuple[Float32[Tensor, "n k"], Tensor]:
    """The cosines and indices of each query's 8 most similar keys, best first, block by block."""
    values, indices = [], []
    for rows in queries.split(_BLOCK):
        best = torch.full((len(rows), 0), -2.0)
        best_index = torch.zeros((len(rows), 0), dtype=torch.int64)
        for start in range(0, len(keys), _BLOCK):
            cosines = rows @ keys[start : start + _BLOCK].T
            here = torch.arange(start, start + cosines.shape[1]).expand(len(rows), -1)
            both, both_index = torch.cat([best, cosines], dim=1), torch.cat([best_index, here], dim=1)
            best, place = both.topk(min(_CANDIDATES, both.shape[1]), dim=1)
            best_index = both_index.gather(1, place)
        values.append(best)
        indices.append(best_index)
    return torch.cat(values), torch.cat(indices)


def _first_alike(split: ImageSplit, i: int, candidates: Sequence[tuple[ImageSplit, int]]) -> Duplicate | None:
    image = _image(split, i)
    for other, j in candidates:
        candidate = _image(other, j)
        if np.array_equal(image, candidate):
            return Duplicate(removed=split.ids[i], kept=other.ids[j], kind="identical", similarity=1.0)
        cosine = full_cosine(image, candidate)
        if cosine >= FULL_COSINE:
            return Duplicate(removed=split.ids[i], kept=other.ids[j], kind="near", similarity=cosine)
    return None


def _image(split: ImageSplit, i: int) -> np.ndarray:
    assert split.pixels is not None  # audit refused unprepared splits
    return np.array(split.pixels.array[split.pixels.rows[i]])


def _without(looked: _Looked, found: dict[int, Duplicate]) -> _Looked:
    kept = [i for i in range(len(looked.split)) if i not in found]
    flat = {new: looked.flat[old] for new, old in enumerate(kept) if old in looked.flat}
    return _Looked(split=looked.split.take(kept), thumbnails=looked.thumbnails[kept], flat=flat)


def _require_something_left(before: ImageSplit, after: ImageSplit, found: dict[int, Duplicate]) -> None:
    example = next(iter(found.values()))
    leak = f"e.g. {example.removed!r} is {example.kept!r}; make the splits of different images"
    if not len(after):
        raise DataError(f"every image of split {before.name!r} is also in a split it is measured on: {leak}")
    if before.name == "train":
        lost = [name for name, count in after.class_counts().items() if not count]
        if lost:
            raise DataError(f"every training image of class {lost[0]!r} is also in a split it is measured on: {leak}")

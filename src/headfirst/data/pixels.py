"""Decode every image once, at the size used, into a memory-mapped cache addressed by content.

The cache file's name is a hash of the images' contents, the geometry and the format; neither names, nor
places, nor times enter. Next to it, `.unreadable` lists the images that could not be decoded and why.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from headfirst.data.decode import decode_image, read_bytes
from headfirst.data.hashing import hash_array, hash_bytes
from headfirst.data.imageset import UNLABELLED, ImageSet, ImageSplit, Pixels
from headfirst.data.preprocess import geometry_key, preprocess
from headfirst.data.rows import cache_dir, fill_rows
from headfirst.errors import DataError
from headfirst.types import Preprocessing, Progress, Quarantined, silent

_FORMAT = 1  # raise it when decoding or preprocessing gives other pixels
_CHUNK = 64  # images decoded and made safe at a time

Source = Path | np.ndarray


def prepare(
    images: ImageSet,
    preprocessing: Preprocessing,
    *,
    cache: Path | None = None,
    progress: Progress = silent,
    threads: int | None = None,
) -> ImageSet:
    """All splits decoded, hashed and at the size used; what cannot be read is set aside.

    Args:
        images: from `ImageSet.open` and the like.
        preprocessing: the backbone's.
        cache: folder of the pixel cache (`cache_dir()` if None).
        progress: told of hashing and decoding.
        threads: decoding threads (one for each usable core if None).

    Returns:
        The set without the unreadable images, with `quarantined` filled.

    Raises:
        DataError: quarantine left a split without images, or a class without training images.
    """
    splits, quarantined = {}, list(images.quarantined)
    for name, split in images.splits.items():
        splits[name], unreadable = prepare_split(split, preprocessing, cache=cache, progress=progress, threads=threads)
        quarantined.extend(unreadable)
    if "train" in splits:
        _require_every_class(splits["train"], quarantined)
    return replace(images, splits=splits, quarantined=tuple(quarantined))


def prepare_split(
    split: ImageSplit,
    preprocessing: Preprocessing,
    *,
    cache: Path | None = None,
    progress: Progress = silent,
    threads: int | None = None,
) -> tuple[ImageSplit, tuple[Quarantined, ...]]:
    """One split with `hashes` and `pixels`, and what had to be set aside; see `prepare`.

    Raises:
        DataError: no image of the split can be read.
    """
    if not len(split):
        raise DataError(f"split {split.name!r} has no images")
    with ThreadPoolExecutor(threads or usable_cores()) as pool:
        hashes, reasons = hash_all(split, pool, progress)
        if len(reasons) == len(split):
            raise _nothing_left(split.name, reasons)
        by_hash = {h: s for h, s in zip(hashes, split.sources, strict=True) if h is not None}
        cached = _decode_all(
            dict(sorted(by_hash.items())), preprocessing, cache or cache_dir(), pool, progress, split.name
        )
    for id_, digest in zip(split.ids, hashes, strict=True):
        if digest is not None and digest in cached.unreadable:
            reasons[id_] = cached.unreadable[digest]
    kept = [i for i, id_ in enumerate(split.ids) if id_ not in reasons]
    if not kept:
        raise _nothing_left(split.name, reasons)
    sound = tuple(str(hashes[i]) for i in kept)
    row_of = {digest: row for row, digest in enumerate(sorted(by_hash))}
    rows = np.array([row_of[digest] for digest in sound], dtype=np.int64)
    pixels = Pixels(array=cached.array, rows=rows, geometry=geometry_key(preprocessing))
    readable = replace(replace(split, hashes=None, pixels=None).take(kept), hashes=sound, pixels=pixels)
    return readable, tuple(Quarantined(id=id_, reason=reason) for id_, reason in sorted(reasons.items()))


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class _Cached:
    array: np.ndarray
    unreadable: Mapping[str, str]


def hash_all(
    split: ImageSplit, pool: ThreadPoolExecutor, progress: Progress
) -> tuple[list[str | None], dict[str, str]]:
    """Content hash of each image (None where the file cannot even be read) and the reasons, by id."""
    hashes: list[str | None] = []
    reasons: dict[str, str] = {}
    stage = f"hashing {split.name}"
    for start in range(0, len(split), 256):
        progress(stage, start, len(split))
        for id_, (digest, reason) in zip(
            split.ids[start : start + 256], pool.map(_hash, split.sources[start : start + 256]), strict=True
        ):
            hashes.append(digest)
            if reason is not None:
                reasons[id_] = reason
    progress(stage, len(split), len(split))
    return hashes, reasons


def _hash(source: Source) -> tuple[str | None, str | None]:
    if isinstance(source, np.ndarray):
        return hash_array(source), None
    try:
        return hash_bytes(read_bytes(source)), None
    except DataError as error:
        return None, str(error)


def _decode_all(
    by_hash: Mapping[str, Source],
    preprocessing: Preprocessing,
    cache: Path,
    pool: ThreadPoolExecutor,
    progress: Progress,
    name: str,
) -> _Cached:
    """Row i is the image with the i-th of the sorted hashes; unreadable ones are rows of zeros."""
    hashes, sources = list(by_hash), list(by_hash.values())
    path = cache / "pixels" / f"{_key(hashes, geometry_key(preprocessing))}.npy"
    ledger = path.with_suffix(".unreadable")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not ledger.exists():
        path.unlink()  # without its ledger nobody knows which rows are images
    append_reasons(ledger, [])
    height, width = preprocessing.size

    def compute(start: int, stop: int) -> np.ndarray:
        rows = np.zeros((stop - start, height, width, 3), dtype=np.uint8)
        jobs = pool.map(lambda i: _decode(sources[i], hashes[i], preprocessing, rows[i - start]), range(start, stop))
        unreadable = [(hashes[start + i], why) for i, why in enumerate(jobs) if why is not None]
        append_reasons(ledger, unreadable)  # before fill_rows records the chunk, so none can be forgotten
        return rows

    array = fill_rows(
        path,
        (len(hashes), height, width, 3),
        np.uint8,
        compute,
        chunk=_CHUNK,
        progress=progress,
        stage=f"decoding {name}",
    )
    return _Cached(array=array, unreadable=read_reasons(ledger))


def _key(hashes: Iterable[str], geometry: str) -> str:
    digest = hashlib.sha256(f"pixels {_FORMAT} {geometry}".encode())
    for image_hash in hashes:
        digest.update(image_hash.encode())
    return digest.hexdigest()[:40]


class _ChangedError(DataError):
    """The file is not the one that was hashed; this ends the run, where other refusals set the file aside."""


def _decode(source: Source, expected: str, preprocessing: Preprocessing, row: np.ndarray) -> str | None:
    """Fill `row` with the image's pixels, or say why not."""
    image = pixels_of(source, expected)
    if isinstance(image, str):
        return image
    try:
        row[:] = preprocess(image, preprocessing)
    except DataError as error:
        return str(error)
    return None


def pixels_of(source: Source, expected: str) -> UInt8[np.ndarray, "h w 3"] | str:
    """The decoded image, or why it cannot be.

    Args:
        expected: sha256 of the content.

    Raises:
        DataError: the file is no longer the one that was hashed.
    """
    try:
        return source if isinstance(source, np.ndarray) else decode_image(_same_bytes(source, expected))
    except _ChangedError:
        raise
    except DataError as error:
        return str(error)


def _same_bytes(path: Path, expected: str) -> bytes:
    data = read_bytes(path)
    if hash_bytes(data) != expected:
        raise _ChangedError(f"{path} changed while it was being read; run again when it is still")
    return data


def append_reasons(ledger: Path, entries: Iterable[tuple[str, str]]) -> None:
    """Add (content hash, why it cannot be read) to a file, safely before anything counts on it."""
    # Each entry begins a line of its own: one torn by a kill cannot swallow the next.
    lines = "".join("\n" + json.dumps(entry) for entry in entries)
    with ledger.open("a", encoding="utf-8") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def read_reasons(ledger: Path) -> dict[str, str]:
    """What `append_reasons` wrote, by content hash."""
    reasons = {}
    for line in ledger.read_text(encoding="utf-8").splitlines():
        try:
            digest, reason = json.loads(line)
        except ValueError:
            continue  # torn by a kill; its chunk was computed and entered again
        reasons[digest] = reason
    return reasons


def _nothing_left(name: str, reasons: Mapping[str, str]) -> DataError:
    id_, reason = next(iter(reasons.items()))
    return DataError(f"none of the {len(reasons)} images of split {name!r} can be read; the first is {id_!r}: {reason}")


def _require_every_class(train: ImageSplit, quarantined: list[Quarantined]) -> None:
    empty = [name for name, count in train.class_counts().items() if not count and name != UNLABELLED]
    if empty:
        aside = "; ".join(f"{q.id!r} was set aside: {q.reason}" for q in quarantined[:3])
        raise DataError(f"class {empty[0]!r} has no training image left ({aside}); add readable images of it")

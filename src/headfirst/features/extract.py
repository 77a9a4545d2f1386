"""Images to features, once: a content-addressed store that survives a kill.

Shape letters: N images, D features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from headfirst.data import ImageSplit, cache_dir, fill_rows, normalise, prepare_split
from headfirst.data.preprocess import geometry_key
from headfirst.errors import BackboneError, DataError, InputError
from headfirst.features.threads import free_threads, torch_threads
from headfirst.nn import PretrainedBackbone
from headfirst.types import Features, Progress, silent

_FORMAT = 1  # raise it when the same key would mean other numbers
_ROWS_SAFE_AT_A_TIME = 128


def embed(
    backbone: PretrainedBackbone,
    split: ImageSplit,
    *,
    cache: Path | None = None,
    batch_size: int = 32,
    device: str = "cpu",
    progress: Progress = silent,
) -> Features:
    """Features of every image of `split`, from the store if it has them.

    The key is what decides the numbers: image contents, weights, preprocessing, resolution, type of number,
    batch size and kind of device. Names, labels and places do not enter. Killed at any moment, the same call
    goes on where it was and gives the same bytes: batches always begin at the same images.

    Args:
        backbone: runs in eval mode without gradients and comes back as it was, buffers and device included.
        split: prepared (`headfirst.data.prepare`) or not; an unprepared one is prepared first.
        cache: folder of the store (`cache_dir()` if None).
        batch_size: images a forward pass.
        device: where the forward passes run, "cpu" or "cuda".
        progress: told of decoding and embedding.

    Returns:
        (N, D) float32 features as the backbone gives them, not normalised; memory-mapped, copied on write.

    Raises:
        InputError: `batch_size` below 1, or pixels that were prepared for another backbone.
        DataError: an unprepared split with images that cannot be read.
        BackboneError: the features are not finite.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, received {batch_size}")
    cache = cache or cache_dir()
    split = prepared(split, backbone, cache, progress)
    fingerprint = backbone.fingerprint
    kind = torch.device(device).type
    path = cache / "features" / f"{_key(split, backbone, fingerprint, batch_size, kind)}.npy"
    shape = (len(split), backbone.feature_dim)
    if not path.exists():
        with evaluating(backbone, device), torch.inference_mode():
            _extract(backbone, split, path, shape, batch_size, device, progress)
    return Features(
        values=torch.from_numpy(np.load(path, mmap_mode="c")),
        labels=torch.from_numpy(split.labels.astype(np.int64)),
        classes=split.classes,
        ids=split.ids,
        split=split.name,
        source=fingerprint,
    )


def prepared(split: ImageSplit, backbone: PretrainedBackbone, cache: Path, progress: Progress) -> ImageSplit:
    """The split with pixels of the backbone's geometry, decoded now where it has none; see `embed`."""
    if split.pixels is not None:
        if split.pixels.geometry != geometry_key(backbone.preprocessing):
            raise InputError(
                f"the pixels of split {split.name!r} have another geometry than {backbone.name} needs; "
                "prepare the images with backbone.preprocessing"
            )
        return split
    ready, unreadable = prepare_split(split, backbone.preprocessing, cache=cache, progress=progress)
    if unreadable:
        raise DataError(
            f"{len(unreadable)} images of split {split.name!r} cannot be read, the first is "
            f"{unreadable[0].id!r}: {unreadable[0].reason}; headfirst.data.prepare sets them aside and lists "
            "them, embed what it returns"
        )
    return ready


def _key(split: ImageSplit, backbone: PretrainedBackbone, fingerprint: str, batch_size: int, device: str) -> str:
    if split.hashes is None or split.pixels is None:
        raise InputError(f"split {split.name!r} has no content hashes; make it with headfirst.data.prepare")
    fields = {
        "format": _FORMAT,
        "backbone": fingerprint,
        "geometry": split.pixels.geometry,
        "resolution": backbone.preprocessing.size,
        "dtype": "float32",
        "batch_size": batch_size,
        "device": device,
        "images": split.hashes,
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:40]


def _extract(
    backbone: PretrainedBackbone,
    split: ImageSplit,
    path: Path,
    shape: tuple[int, int],
    batch_size: int,
    device: str,
    progress: Progress,
) -> None:
    record = path.with_suffix(".threads")

    def compute(start: int, stop: int) -> np.ndarray:
        rows = np.empty((stop - start, shape[1]), dtype=np.float32)
        with torch_threads(thread_count(record, start)):
            for begin in range(start, stop, batch_size):
                batch = range(begin, min(begin + batch_size, stop))
                images = normalise(split.batch(batch).to(device), backbone.preprocessing)
                rows[begin - start : batch.stop - start] = backbone(images).cpu().numpy()
        if not np.isfinite(rows).all():
            raise BackboneError(f"{backbone.name} gives features that are not finite; its weights are bad")
        return rows

    # Chunks are whole batches, so that a resumed run cuts its batches where the first one did.
    chunk = batch_size * max(1, _ROWS_SAFE_AT_A_TIME // batch_size)
    fill_rows(path, shape, np.float32, compute, chunk=chunk, progress=progress, stage=f"embedding {split.name}")
    record.unlink(missing_ok=True)


def thread_count(record: Path, start: int) -> int:
    """The free cores when the array was begun: another number of threads may round differently."""
    if start == 0:
        record.write_text(str(free_threads()), encoding="utf-8")
    try:
        return int(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return free_threads()


@contextmanager
def evaluating(backbone: nn.Module, device: str) -> Iterator[None]:
    """Every module in eval mode on `device`; afterwards in its own mode, where it was."""
    modes = {module: module.training for module in backbone.modules()}
    place = next(backbone.parameters()).device
    backbone.eval().to(device)
    try:
        yield
    finally:
        backbone.to(place)
        for module, training in modes.items():
            module.training = training

"""Features of any number of images straight from their files: no pixel is kept on disk, and a kill loses one chunk.

`embed` keeps decoded pixels, because a run trains on them again and again; an index of a million photographs has no
use for 150 GB of them.

Shape letters: N images, D features, H W pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from headfirst.data import cache_dir, fill_rows, normalise, preprocess, usable_cores
from headfirst.data.pixels import Source, append_reasons, pixels_of, read_reasons
from headfirst.errors import BackboneError, DataError, InputError
from headfirst.features.extract import evaluating, thread_count
from headfirst.features.threads import torch_threads
from headfirst.nn import PretrainedBackbone
from headfirst.types import Progress, silent

_FORMAT = 1
_CHUNK = 512  # images made safe at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Streamed:
    """Features by content, and what has none.

    Attributes:
        values: (N, D) float32, memory-mapped; rows of unreadable images are zero.
        unreadable: why, by content hash.
    """

    values: Float32[np.ndarray, "n d"]
    unreadable: Mapping[str, str]


def stream(
    backbone: PretrainedBackbone,
    by_hash: Mapping[str, Source],
    *,
    cache: Path | None = None,
    batch_size: int = 32,
    device: str = "cpu",
    progress: Progress = silent,
) -> Streamed:
    """Features of the images in `by_hash`, in its order; see `embed` for what decides the numbers.

    Args:
        by_hash: where each image is, by the sha256 of its content.
        cache: folder that the features are kept in (`cache_dir()` if None).

    Raises:
        InputError: `batch_size` below 1.
        DataError: a file changed since it was hashed.
        BackboneError: the features are not finite.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, received {batch_size}")
    hashes, sources = list(by_hash), list(by_hash.values())
    path = (cache or cache_dir()) / "features" / f"{_key(hashes, backbone, batch_size, device)}.npy"
    ledger, record = path.with_suffix(".unreadable"), path.with_suffix(".threads")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not ledger.exists():
        path.unlink()  # without its ledger nobody knows which rows are images
    append_reasons(ledger, [])

    def compute(start: int, stop: int) -> np.ndarray:
        rows = np.zeros((stop - start, backbone.feature_dim), dtype=np.float32)
        reasons: dict[int, str] = {}
        with torch_threads(thread_count(record, start)), torch.inference_mode():
            decoded = pool.map(lambda i: _pixels(sources[i], hashes[i], backbone), range(start, stop))
            for places, batch in _batches(decoded, reasons, batch_size):
                images = normalise(batch.to(device), backbone.preprocessing)
                rows[places] = backbone(images).cpu().numpy()
        if not np.isfinite(rows).all():
            raise BackboneError(f"{backbone.name} gives features that are not finite; its weights are bad")
        append_reasons(ledger, [(hashes[start + i], why) for i, why in reasons.items()])
        return rows

    shape = (len(hashes), backbone.feature_dim)
    with ThreadPoolExecutor(usable_cores()) as pool, evaluating(backbone, device):
        values = fill_rows(path, shape, np.float32, compute, chunk=_CHUNK, progress=progress, stage="embedding images")
    record.unlink(missing_ok=True)
    return Streamed(values=values, unreadable=read_reasons(ledger))


def _key(hashes: Sequence[str], backbone: PretrainedBackbone, batch_size: int, device: str) -> str:
    kind = torch.device(device).type
    digest = hashlib.sha256(json.dumps(["stream", _FORMAT, backbone.fingerprint, batch_size, kind]).encode())
    for image_hash in hashes:
        digest.update(image_hash.encode())
    return digest.hexdigest()[:40]


def _pixels(source: Source, expected: str, backbone: PretrainedBackbone) -> np.ndarray | str:
    """(H, W, 3) uint8 as the backbone sees it, or why not."""
    pixels = pixels_of(source, expected)
    if isinstance(pixels, str):
        return pixels
    try:
        return preprocess(pixels, backbone.preprocessing)
    except DataError as error:
        return str(error)


def _batches(
    decoded: Iterable[np.ndarray | str], reasons: dict[int, str], batch_size: int
) -> Iterator[tuple[list[int], Tensor]]:
    """(places in the chunk, (B, 3, H, W) uint8) of the readable images; the others go to `reasons`."""
    places: list[int] = []
    images: list[np.ndarray] = []
    for place, found in enumerate(decoded):
        if isinstance(found, str):
            reasons[place] = found
            continue
        places.append(place)
        images.append(found)
        if len(images) == batch_size:
            yield places, torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
            places, images = [], []
    if images:
        yield places, torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

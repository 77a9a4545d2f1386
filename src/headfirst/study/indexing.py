"""A place full of images → an index of them on disk; what an earlier index of the same backbone knows is not computed
again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headfirst.artefact import ImageIndex, load_index, save_index
from headfirst.artefact.image_index import DIGITS, Recall, index_folder
from headfirst.data import every_image, with_hashes
from headfirst.data.imageset import UNLABELLED, ImageSplit
from headfirst.data.pixels import Source
from headfirst.errors import ArtefactError, DataError
from headfirst.evaluation import versions
from headfirst.features import Graph, Streamed, measured_recall, stream
from headfirst.features.approximate import PAYS_FROM
from headfirst.nn import PretrainedBackbone
from headfirst.types import Progress, Quarantined, silent

_RECALL_AT, _RECALL_QUERIES = 10, 256


def index_images(
    where: str | Path,
    backbone: PretrainedBackbone,
    out: str | Path,
    *,
    approximate: bool | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> ImageIndex:
    """Index every image of a folder, a manifest or the embedded digits (`headfirst.data.every_image`).

    Stopped, the same call goes on where it was. Where `out` holds an index of the same backbone, images it knows by
    their content keep their features and only the others are computed; the folder is then replaced in one step.

    Args:
        out: a new or empty folder, or an earlier index.
        approximate: whether to add a graph for approximate search; None: from a million images on, if usearch is there.

    Raises:
        InputError: `out` holds something else; usearch is missing where `approximate` asks for it.
        DataError: no image, or none that can be read.
    """
    out = index_folder(out)
    images = with_hashes(every_image(where), progress=progress)
    split = images[UNLABELLED]
    assert split.hashes is not None
    old = _earlier(out, backbone)
    known = {} if old is None else {digest: row for row, digest in enumerate(old.hashes)}
    new = {digest: s for digest, s in zip(split.hashes, split.sources, strict=True) if digest not in known}
    streamed = stream(backbone, new, device=device, progress=progress) if new else None
    lacking = {} if streamed is None else _lacking(new, streamed)
    kept = split.take([i for i, digest in enumerate(split.hashes) if digest not in lacking])
    aside = [
        Quarantined(id=id_, reason=lacking[h]) for id_, h in zip(split.ids, split.hashes, strict=True) if h in lacking
    ]
    if not len(kept):
        first = aside[0]
        raise DataError(f"none of the {len(split)} images can be indexed; the first is {first.id!r}: {first.reason}")
    assert kept.hashes is not None
    wanted = approximate if approximate is not None else len(kept) >= PAYS_FROM and find_spec("usearch") is not None
    root = _root(where)
    save_index(
        out,
        name=images.name,
        backbone=backbone,
        root=root,
        ids=kept.ids,
        paths=_paths(kept, root),
        hashes=kept.hashes,
        rows=_rows(kept.hashes, known, old, list(new), streamed, backbone.feature_dim),
        unreadable=[*images.quarantined, *aside],
        graph=partial(_graph, progress=progress) if wanted else None,
        versions=versions(),
    )
    return load_index(out)


def _rows(
    hashes: Sequence[str],
    known: Mapping[str, int],
    old: ImageIndex | None,
    new: Sequence[str],
    streamed: Streamed | None,
    length: int,
) -> Callable[[int, int], np.ndarray]:
    """Features of the images begin … stop-1: from the earlier index, or else newly computed."""
    place = {digest: row for row, digest in enumerate(new)}
    where = np.array([known.get(digest, -1 - place.get(digest, 0)) for digest in hashes])  # below zero: among the new

    def features(begin: int, stop: int) -> np.ndarray:
        rows = where[begin:stop]
        block = np.empty((len(rows), length), dtype=np.float32)
        if old is not None:
            block[rows >= 0] = old.features.values[torch.from_numpy(rows[rows >= 0])].numpy()
        if streamed is not None:
            block[rows < 0] = streamed.values[-1 - rows[rows < 0]]
        return block

    return features


def _graph(values: Tensor, *, progress: Progress) -> tuple[Graph, Recall]:
    """The approximate index, and what it finds of what the exact search does."""
    made = Graph.build(values, progress=progress)
    found = measured_recall(made, values, k=_RECALL_AT, num_queries=_RECALL_QUERIES)
    k, num_queries = min(_RECALL_AT, len(values) - 1), min(_RECALL_QUERIES, len(values))
    return made, Recall(value=found.value, low=found.low, high=found.high, k=k, num_queries=num_queries)


def _earlier(out: Path, backbone: PretrainedBackbone) -> ImageIndex | None:
    """The index in `out`, if its features are this backbone's and it is whole."""
    if not (out / "index.json").is_file():
        return None
    try:
        found = load_index(out)
    except ArtefactError:  # damaged: everything is computed anew
        return None
    return found if found.features.source == backbone.fingerprint else None


def _lacking(new: dict[str, Source], streamed: Streamed) -> dict[str, str]:
    """Why an image has no features to search by, by content hash."""
    zero = ~streamed.values.any(axis=1)
    reasons = dict.fromkeys(
        np.array(list(new))[zero].tolist(), "its features are all zero, which nothing is similar to"
    )
    return {**reasons, **streamed.unreadable}


def _root(where: str | Path) -> str:
    if where == DIGITS:
        return DIGITS
    path = Path(where).resolve()
    return str(path if path.is_dir() else path.parent)


def _paths(split: ImageSplit, root: str) -> list[str | None]:
    """Where each image lies, under the root where it does; None for what is no file."""
    paths = [None if isinstance(source, np.ndarray) else Path(os.path.abspath(source)) for source in split.sources]
    return [
        None if path is None else (path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path))
        for path in paths
    ]

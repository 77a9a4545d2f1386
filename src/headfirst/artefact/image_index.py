"""An index of images on disk: their features, who they are and where they lie, and the proof that it is still itself.

index/
├── index.json       format, backbone and hash, where the images lie, files set aside, recall, versions, file hashes
├── features.npy     (N, D) float32 as the backbone gave them, read through a memory map
├── images.jsonl     one line an image: id, sha256 of its content, path where it differs from the id
└── graph.usearch    only where there is an approximate index
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from headfirst.artefact.metadata import not_understood
from headfirst.artefact.saved_model import check_file, replace_directory
from headfirst.artefact.seal import check_seal, file_sha256, sealed
from headfirst.data import every_image
from headfirst.data.hashing import hash_array
from headfirst.data.pixels import pixels_of
from headfirst.errors import ArtefactError, DataError, InputError
from headfirst.features import Graph
from headfirst.nn import PretrainedBackbone
from headfirst.types import Features, Quarantined

FORMAT_VERSION = 1
DIGITS = "digits"
"""The root of images that are no files: the embedded digits."""
_BLOCK = 2**14  # rows copied at a time


class Recall(BaseModel):
    """Share of the k exact neighbours that the graph finds: a mean over `num_queries` images, its 95 % interval."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float
    high: float
    k: int
    num_queries: int


class IndexRecord(BaseModel):
    """The entries of `index.json`.

    Attributes:
        backbone: name, revision and sha256 of what made the features.
        root: absolute path of the folder that image paths are under; `digits` for the embedded ones.
        files: sha256 of the other files.
        sha256: of all other entries.
    """

    model_config = ConfigDict(extra="forbid")

    format_version: Literal[1]
    name: str
    backbone: dict[Literal["name", "revision", "sha256"], str | None]
    root: str
    num_images: int
    feature_dim: int
    unreadable: list[dict[Literal["id", "reason"], str]]
    recall: Recall | None
    versions: dict[str, str]
    files: dict[str, str]
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageIndex:
    """Images that can be searched.

    Attributes:
        directory: where it lies.
        features: (N, D), memory-mapped; `source` is the backbone's fingerprint.
        paths: of each image, under `root` or absolute; None: decoded, of the embedded digits.
        hashes: sha256 of each image's content.
        root: where the images lie now.
        graph: the approximate index, if there is one.
    """

    directory: Path
    record: IndexRecord
    features: Features
    paths: tuple[str | None, ...]
    hashes: tuple[str, ...]
    root: str
    graph: Graph | None

    def __len__(self) -> int:
        return len(self.features)

    def path(self, row: int) -> Path | None:
        """The image's file; None where it is none."""
        path = self.paths[row]
        return None if path is None else Path(self.root) / path

    def pixels(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """The image as it was indexed.

        Raises:
            DataError: it is gone, or is another one by now.
        """
        id_, path = self.features.ids[row], self.path(row)
        if path is None:
            array = _digits().get(id_)
            if array is None or hash_array(array) != self.hashes[row]:
                raise DataError(f"{id_} is not among the embedded digits of this version")
            return array
        if not path.is_file():
            raise DataError(f"{path} is not there any more")
        try:
            pixels = pixels_of(path, self.hashes[row])
        except DataError as error:
            raise DataError(f"{path} is another image than the one that was indexed") from error
        if isinstance(pixels, str):
            raise DataError(f"{path}: {pixels}")
        return pixels


def save_index(
    directory: str | Path,
    *,
    name: str,
    backbone: PretrainedBackbone,
    root: str,
    ids: Sequence[str],
    paths: Sequence[str | None],
    hashes: Sequence[str],
    rows: Callable[[int, int], np.ndarray],
    unreadable: Sequence[Quarantined] = (),
    graph: Callable[[Tensor], tuple[Graph, Recall]] | None = None,
    versions: Mapping[str, str] | None = None,
) -> Path:
    """Write an index to `directory`, which appears whole or not at all.

    Args:
        directory: new, empty, or an earlier index (replaced).
        rows: `rows(begin, stop)` gives the features of those images, (n, D) float32.
        graph: makes the approximate index of the (N, D) features, and measures it.

    Raises:
        InputError: `directory` holds something else, or `root` cannot be written down.
    """
    directory = index_folder(directory)
    if any("\ud800" <= character <= "\udfff" for character in root):
        raise InputError(f"the folder's path {root!r} holds bytes that are no UTF-8; rename it")
    staging = directory.with_name(f".{directory.name}.tmp-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        values = np.lib.format.open_memmap(
            staging / "features.npy", mode="w+", dtype=np.float32, shape=(len(ids), backbone.feature_dim)
        )
        for begin in range(0, len(ids), _BLOCK):
            values[begin : begin + _BLOCK] = rows(begin, min(begin + _BLOCK, len(ids)))
        values.flush()
        with (staging / "images.jsonl").open("w", encoding="ascii") as file:
            for id_, path, digest in zip(ids, paths, hashes, strict=True):
                elsewhere = {} if path == id_ else {"path": path}
                file.write(json.dumps({"id": id_, "sha256": digest, **elsewhere}) + "\n")
        recall = None
        if graph is not None:
            made, recall = graph(torch.from_numpy(values))
            made.save(staging / "graph.usearch")
        del values
        record = IndexRecord(
            format_version=FORMAT_VERSION,
            name=name,
            backbone={
                "name": _lasting_name(backbone.name),
                "revision": backbone.revision,
                "sha256": backbone.fingerprint,
            },
            root=root,
            num_images=len(ids),
            feature_dim=backbone.feature_dim,
            unreadable=[{"id": q.id, "reason": q.reason} for q in unreadable],
            recall=recall,
            versions=dict(versions or {}),
            files={path.name: file_sha256(path) for path in sorted(staging.iterdir())},
        )
        entries = json.loads(record.model_dump_json(exclude={"sha256"}))
        (staging / "index.json").write_text(sealed(entries), encoding="utf-8")
        replace_directory(staging, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return directory


def index_folder(directory: str | Path) -> Path:
    """`directory`, if an index can be written there.

    Raises:
        InputError: it holds something else, or is a file.
    """
    directory = Path(directory)
    if directory.exists() and (
        not directory.is_dir() or (any(directory.iterdir()) and not (directory / "index.json").is_file())
    ):
        raise InputError(f"{directory} holds something that is no index; give a new or an empty folder")
    return directory


def load_index(directory: str | Path, *, root: str | Path | None = None) -> ImageIndex:
    """The index in `directory`, after its files' hashes were checked.

    Args:
        root: where the images lie now, if they were moved.

    Raises:
        InputError: there is no index.
        ArtefactError: a file is missing or was changed, or is not understood.
    """
    directory = Path(directory)
    record = _record(directory)
    for name, expected in record.files.items():
        check_file(directory / name, expected)
    try:
        array = np.load(directory / "features.npy", mmap_mode="c", allow_pickle=False)
        lines = [json.loads(line) for line in (directory / "images.jsonl").read_text(encoding="ascii").splitlines()]
        ids = tuple(str(line["id"]) for line in lines)
        paths = tuple(line.get("path", line["id"]) for line in lines)
        hashes = tuple(str(line["sha256"]) for line in lines)
        if array.dtype != np.float32 or array.shape != (record.num_images, record.feature_dim):
            raise ValueError(f"features of shape {array.shape}, {array.dtype}")
        if len(ids) != record.num_images:
            raise ValueError(f"{len(ids)} images")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(f"{directory} does not fit together ({error}); make the index anew") from error
    features = Features(
        values=torch.from_numpy(array),
        labels=torch.full((len(ids),), -1),
        classes=(),
        ids=ids,
        split="index",
        source=str(record.backbone["sha256"]),
    )
    graph = Graph.load(directory / "graph.usearch") if "graph.usearch" in record.files else None
    return ImageIndex(
        directory=directory,
        record=record,
        features=features,
        paths=paths,
        hashes=hashes,
        root=record.root if root is None else str(root),
        graph=graph,
    )


def _lasting_name(name: str) -> str:
    """A local folder's name as it will still be found from elsewhere."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _record(directory: Path) -> IndexRecord:
    path = directory / "index.json"
    if not path.is_file():
        raise InputError(
            f"{directory} is no index of images (it has no index.json); make one with "
            "`headfirst index IMAGES --backbone B --out DIR`"
        )
    data = path.read_bytes()
    try:
        entries: Any = json.loads(data)
        version = entries.get("format_version") if isinstance(entries, dict) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise ArtefactError(f"{path} is of format {version}, made by a later version; this one reads up to 1")
        record = IndexRecord.model_validate_json(data)
    except ValidationError as error:
        raise not_understood(path, error) from error
    except ValueError as error:
        raise ArtefactError(f"{path} is not JSON ({error}); it is damaged: make the index anew") from error
    check_seal(entries, path)
    if not {"features.npy", "images.jsonl"} <= record.files.keys() <= {"features.npy", "images.jsonl", "graph.usearch"}:
        raise ArtefactError(f"{path} names files that are not an index's: {', '.join(sorted(record.files))}")
    return record


@cache
def _digits() -> dict[str, np.ndarray]:
    split = every_image(DIGITS)["unlabelled"]
    return {id_: source for id_, source in zip(split.ids, split.sources, strict=True) if isinstance(source, np.ndarray)}

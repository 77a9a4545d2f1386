"""A query and an index of images → the images most like it, with what a reader needs to judge them.

Shape letters: N images of the index, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.artefact import ImageIndex
from headfirst.data import normalise, preprocess, read_image
from headfirst.data.hashing import hash_file
from headfirst.errors import BackboneError, DataError, InputError
from headfirst.evaluation import versions
from headfirst.features import nearest
from headfirst.nn import load_backbone, load_dual_encoder
from headfirst.randomness import keyed_permutation
from headfirst.study.thumbnails import inline_jpeg

SHOWN = 12
_SIZE = 192  # pixels of a thumbnail's longer side
_SAMPLE = 1000  # images that the median is taken from
_STREAM = 0x73_6561_7263_68


@dataclass(frozen=True, kw_only=True)
class Hit:
    """An image that was found.

    Attributes:
        path: its file; None for the embedded digits.
        similarity: cosine with the query, in [-1, 1].
        same: whether it is the query image itself, byte for byte.
        thumbnail: a `data:image/jpeg;base64,…` address, or empty where there is a `problem`.
        problem: why it cannot be shown, such as a file that is gone.
    """

    rank: int
    id: str
    path: str | None
    similarity: float
    same: bool
    thumbnail: str
    problem: str | None


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search found.

    Attributes:
        query: the words, or the image's path.
        thumbnail: of the query image.
        median: similarity that half the images of the index stay below (of a sample where there are many).
        exact: whether every image was compared with the query.
        recall: of the approximate search that found them, as the index recorded it; empty where it was exact.
    """

    query: str
    kind: Literal["text", "image"]
    thumbnail: str | None
    hits: tuple[Hit, ...]
    index: str
    name: str
    num_images: int
    backbone: str
    median: float
    exact: bool
    recall: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def search_text(
    index: ImageIndex, text: str, *, k: int | None = None, exact: bool = False, backbone: str | None = None
) -> Search:
    """The images that words describe best.

    Args:
        k: how many, 1 … N (None: 12, or all where there are fewer).
        exact: leave an approximate index aside.
        backbone: where the dual encoder is now; None: where the index says.

    Raises:
        InputError: no words, more than the text tower reads (says which would be cut), another backbone than the
            index's, `k` out of range.
        BackboneError: the backbone has no text tower, or cannot be loaded.
    """
    if not text.strip():
        raise InputError('the query is empty; say in words what to look for, such as "a red bicycle", or give an image')
    name, revision = _reference(index, backbone)
    try:
        encoder = load_dual_encoder(name, revision=revision)
    except BackboneError as error:
        raise BackboneError(
            f"{index.directory} cannot be searched by words: {error}; search it by an image (--image FILE), or index "
            "the images with an image-text backbone"
        ) from error
    _require_same(index, name, encoder.image.fingerprint)
    found = encoder.text.embed([text])
    return _search(index, found, k, exact, query=text, kind="text", name=name)


def search_image(
    index: ImageIndex, path: str | Path, *, k: int | None = None, exact: bool = False, backbone: str | None = None
) -> Search:
    """The images most like an image, which need not be one of them.

    Args:
        k, exact, backbone: as in `search_text`.

    Raises:
        DataError: the file is no image.
        InputError: another backbone than the index's, `k` out of range.
    """
    path = Path(path)
    pixels = read_image(path)
    name, revision = _reference(index, backbone)
    tower = load_backbone(name, revision=revision)
    _require_same(index, name, tower.fingerprint)
    image = torch.tensor(preprocess(pixels, tower.preprocessing)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        found = tower(normalise(image, tower.preprocessing))
    thumbnail, digest = inline_jpeg(pixels, size=_SIZE), hash_file(path)
    return _search(index, found, k, exact, query=str(path), kind="image", name=name, thumbnail=thumbnail, digest=digest)


def _reference(index: ImageIndex, backbone: str | None) -> tuple[str, str | None]:
    """What to load: the backbone's name and the hub's commit."""
    if backbone is not None:
        if Path(backbone).exists():
            return backbone, None
        name, _, revision = backbone.partition("@")
        return name, revision or None
    return str(index.record.backbone["name"]), index.record.backbone["revision"]


def _require_same(index: ImageIndex, name: str, fingerprint: str) -> None:
    if fingerprint != index.features.source:
        made_with = index.record.backbone["name"]
        raise InputError(
            f"{index.directory} was made with {made_with} (sha256 {index.features.source[:12]}…), but {name} is "
            f"another backbone or another version of it (sha256 {fingerprint[:12]}…), and their features cannot be "
            "compared; search with the one it was made with (--backbone), or make the index anew"
        )


def _search(
    index: ImageIndex,
    features: Float[Tensor, "1 d"],
    k: int | None,
    exact: bool,
    *,
    kind: Literal["text", "image"],
    name: str,
    thumbnail: str | None = None,
    digest: str | None = None,
    **about: str,
) -> Search:
    k = min(SHOWN, len(index)) if k is None else k
    exact = exact or index.graph is None
    found = (
        nearest(features, index.features, k)
        if exact or index.graph is None
        else index.graph.nearest(features, index.features, k)
    )
    recall = index.record.recall
    return Search(
        **about,
        kind=kind,
        thumbnail=thumbnail,
        hits=tuple(
            _hit(index, rank, row, similarity, digest)
            for rank, (row, similarity) in enumerate(
                zip(found.indices[0].tolist(), found.similarities[0].tolist(), strict=True), start=1
            )
        ),
        index=str(index.directory),
        name=index.record.name,
        num_images=len(index),
        backbone=name,
        median=_median(index, features),
        exact=exact,
        recall={} if exact or recall is None else recall.model_dump(),
        versions=versions(),
    )


def _hit(index: ImageIndex, rank: int, row: int, similarity: float, digest: str | None) -> Hit:
    path, thumbnail, problem = index.path(row), "", None
    try:
        thumbnail = inline_jpeg(index.pixels(row), size=_SIZE)
    except DataError as error:
        problem = str(error)
    return Hit(
        rank=rank,
        id=index.features.ids[row],
        path=None if path is None else str(path),
        similarity=similarity,
        same=index.hashes[row] == digest,
        thumbnail=thumbnail,
        problem=problem,
    )


def _median(index: ImageIndex, features: Float[Tensor, "1 d"]) -> float:
    sample = keyed_permutation(len(index), 0, _STREAM)[:_SAMPLE]
    return nearest(features, index.features.values[sample], len(sample)).similarities.median().item()

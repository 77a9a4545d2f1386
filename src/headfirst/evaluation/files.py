"""Predictions on disk: one safetensors file for what one method with one seed said of several splits."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from headfirst.errors import InputError
from headfirst.types import Predictions

FORMAT_VERSION = 1


def save_predictions(
    predictions: Sequence[Predictions], path: Path, *, record: Mapping[str, Any] | None = None
) -> None:
    """Write atomically; `record` is any JSON that belongs to them."""
    tensors, described = {}, []
    for i, p in enumerate(predictions):
        # Clones: safetensors refuses two names for one memory, and the splits share their labels.
        tensors |= {f"{i}.values": p.values.clone(), f"{i}.labels": p.labels.clone()}
        described.append(
            {name: getattr(p, name) for name in ("kind", "classes", "ids", "split", "method", "seed", "chosen_on")}
        )
    about = {"format_version": FORMAT_VERSION, "predictions": described, "record": dict(record or {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(save(tensors, metadata={"headfirst": json.dumps(about)}))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def load_predictions(path: Path) -> tuple[list[Predictions], dict[str, Any]]:
    """The predictions and their record.

    Raises:
        InputError: the file is not one that `save_predictions` wrote.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["headfirst"])
            if about["format_version"] != FORMAT_VERSION:
                raise InputError(f"{path} has format {about['format_version']}, this version reads {FORMAT_VERSION}")
            found = [
                Predictions(
                    values=file.get_tensor(f"{i}.values"),
                    labels=file.get_tensor(f"{i}.labels"),
                    **{**described, "classes": tuple(described["classes"]), "ids": tuple(described["ids"])},
                )
                for i, described in enumerate(about["predictions"])
            ]
    except (SafetensorError, KeyError, TypeError, OSError) as error:
        raise InputError(f"{path} does not hold predictions ({error}); run again with --fresh") from error
    return found, about["record"]

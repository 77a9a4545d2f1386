"""The JSON file beside an exported graph: what to do before it and after it, and how well it agreed with PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from headfirst.artefact.metadata import not_understood
from headfirst.artefact.seal import check_seal, sealed
from headfirst.errors import ArtefactError


class Sidecar(BaseModel):
    """The entries of `<graph>.json`.

    Attributes:
        files: sha256 of the graph's files, the one to open first.
        input: `pixels`, uint8 RGB; resized and cropped as `preprocessing` says. Its mean and std are in the graph.
        output: `logits`, float32; divide by `temperature` (where it is not null) before a softmax.
        model: sha256 of the saved model's `headfirst.json`.
        mismatch: largest difference from PyTorch's golden outputs, relative to the largest; at most `tolerance`.
        agreement: int8: share of the `calibration_images` with the same class as in PyTorch.
    """

    model_config = ConfigDict(extra="forbid")

    format_version: Literal[1] = 1
    format: Literal["onnx", "openvino"]
    precision: Literal["float32", "int8"]
    files: dict[str, str]
    input: dict[str, Any]
    output: dict[str, Any]
    preprocessing: dict[str, Any]
    classes: tuple[str, ...]
    temperature: float | None
    model: str
    mismatch: float
    tolerance: float
    agreement: float | None
    calibration_images: int | None
    versions: dict[str, str]
    sha256: str | None = None

    @property
    def graph(self) -> str:
        """Name of the file to open."""
        return next(iter(self.files))


def write_sidecar(sidecar: Sidecar, path: Path) -> None:
    """Write it with its hash."""
    path.write_text(sealed(json.loads(sidecar.model_dump_json(exclude={"sha256"}))), encoding="utf-8")


def read_sidecar(path: Path) -> Sidecar:
    """Read it, after its hash was checked.

    Raises:
        ArtefactError: it is not understood, or was changed.
    """
    data = path.read_bytes()
    try:
        sidecar = Sidecar.model_validate_json(data)
    except ValidationError as error:
        raise not_understood(path, error) from error
    check_seal(json.loads(data), path)
    if not sidecar.files or any(Path(name).name != name for name in sidecar.files):
        raise ArtefactError(f"{path} names files elsewhere; export the model again")
    return sidecar


def sidecar_path(graph: Path) -> Path:
    """`model.onnx` → `model.onnx.json`."""
    return graph.with_name(f"{graph.name}.json")

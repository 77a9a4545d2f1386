"""`headfirst.json`: what a saved model says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from headfirst.artefact.seal import check_seal, sealed
from headfirst.errors import ArtefactError, InputError

FORMAT_VERSION = 2
"""2 added `sha256` (of the other entries), `temperature` and `calibration`; 1 is still read."""


class Metadata(BaseModel):
    """The entries of `headfirst.json`.

    Attributes:
        temperature: what the logits are divided by before the softmax; None: uncalibrated.
        calibration: the split the temperature was fitted on, and what a forecast needs; its logits are in a file.
        files: sha256 of every file of the folder but `headfirst.json` and `README.md`.
        sha256: of all other entries; None in format 1, which had none.
    """

    model_config = ConfigDict(extra="forbid")

    format_version: Literal[1, 2]
    method: str
    head: dict[str, Any]
    backbone: dict[str, Any]
    preprocessing: dict[str, Any]
    classes: tuple[str, ...]
    recipe: dict[str, Any]
    record: dict[str, Any]
    seed: int
    chosen_on: str
    data: dict[str, Any]
    metrics: list[dict[str, Any]]
    versions: dict[str, str]
    temperature: float | None = None
    calibration: dict[str, Any] | None = None
    files: dict[str, str]
    sha256: str | None = None


def write_metadata(metadata: Metadata, directory: Path) -> dict[str, Any]:
    """Write `headfirst.json` with its hash; returns its entries."""
    entries = json.loads(metadata.model_dump_json(exclude={"sha256"}))
    (directory / "headfirst.json").write_text(sealed(entries), encoding="utf-8")
    return entries


def checked_metadata(directory: Path) -> Metadata:
    """`headfirst.json`, after its hash was checked.

    Raises:
        InputError: there is no Headfirst model.
        ArtefactError: the file is not understood, or was changed.
    """
    path = directory / "headfirst.json"
    if not path.is_file():
        why = "it has no headfirst.json" if directory.is_dir() else "it is a file"
        wrong = f"{directory} is no Headfirst model ({why})" if directory.exists() else f"{directory} does not exist"
        raise InputError(f"{wrong}; give the model/ folder that `headfirst run` or `headfirst adapt` wrote")
    data = path.read_bytes()
    try:
        metadata = Metadata.model_validate_json(data)
    except ValidationError as error:
        raise _newer(path, data) or not_understood(path, error) from error
    if metadata.format_version > 1:
        check_seal(json.loads(data), path)
    outside = [name for name in metadata.files if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise ArtefactError(f"{path} names a file outside its folder ({outside[0]}); do not use this model")
    return metadata


def _newer(path: Path, data: bytes) -> ArtefactError | None:
    """The refusal of a file that says it is of a later format; None where it does not say so."""
    try:
        version = json.loads(data)["format_version"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(version, int) or version <= FORMAT_VERSION:
        return None
    return ArtefactError(
        f"{path} is of format {version}, and this Headfirst reads up to {FORMAT_VERSION}: it was saved by a newer one; "
        "upgrade"
    )


def read_metadata(directory: str | Path) -> dict[str, Any]:
    """`headfirst.json` as it stands, unchecked."""
    return json.loads((Path(directory) / "headfirst.json").read_text(encoding="utf-8"))


def not_understood(path: Path, error: ValidationError) -> ArtefactError:
    """The first thing that is wrong with a file, in one sentence."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the file"
    return ArtefactError(f"{path} is not understood: {where}: {first['msg']}")

"""A model on disk: everything needed to use it, and the proof that it is still itself.

model/
├── headfirst.json        what it is: backbone and hash, preprocessing, classes, recipe, data hash, metrics, versions
├── README.md             the model card
├── backbone/             config.json, model.safetensors, preprocessor_config.json (the transformers layout)
├── head.safetensors      the head
└── golden.safetensors    outputs expected for the golden inputs; checked on load
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from headfirst.adapt import NeighbourHead, TunedModel
from headfirst.artefact.card import model_card
from headfirst.artefact.golden import golden_mismatch, golden_outputs
from headfirst.errors import ArtefactError, HeadfirstError, InputError
from headfirst.nn import ImageClassifier, linear_head, load_backbone
from headfirst.types import Row

FORMAT_VERSION = 1
TOLERANCE = 1e-3
"""Golden outputs may differ by this much of their largest value: other processors round differently."""


class Metadata(BaseModel):
    """`headfirst.json`."""

    model_config = ConfigDict(extra="forbid")

    format_version: Literal[1]
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
    files: dict[str, str]


def save_model(
    model: TunedModel,
    directory: str | Path,
    *,
    data: Mapping[str, Any] | None = None,
    metrics: Sequence[Row] = (),
    versions: Mapping[str, str] | None = None,
) -> Path:
    """Write `model` to `directory`, which appears whole or not at all.

    Args:
        directory: new, empty, or an earlier Headfirst model (replaced).
        data: name and hash of the training data.
        metrics: rows that were measured on this model, for the record and the card.

    Raises:
        InputError: `directory` holds something else.
    """
    directory = Path(directory)
    if directory.exists() and any(directory.iterdir()) and not (directory / "headfirst.json").is_file():
        raise InputError(f"{directory} holds files that are no Headfirst model; give a new or an empty folder")
    staging = directory.with_name(f".{directory.name}.tmp-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        classifier = model.classifier.eval()
        classifier.backbone.save(staging / "backbone")
        _save_tensors(classifier.head.state_dict(), staging / "head.safetensors")
        _save_tensors({"outputs": golden_outputs(classifier)}, staging / "golden.safetensors")
        metadata = Metadata(
            format_version=FORMAT_VERSION,
            method=model.method,
            head=_describe_head(classifier.head),
            backbone={
                "name": classifier.backbone.name,
                "revision": classifier.backbone.revision,
                "sha256": classifier.backbone.fingerprint,
                "feature_dim": classifier.backbone.feature_dim,
            },
            preprocessing=asdict(classifier.backbone.preprocessing),
            classes=classifier.classes,
            recipe=dict(model.recipe),
            record=dict(model.record),
            seed=model.seed,
            chosen_on=model.chosen_on,
            data=dict(data or {}),
            metrics=[asdict(row) for row in metrics],
            versions=dict(versions or {}),
            files={
                path.relative_to(staging).as_posix(): _sha256(path)
                for path in sorted(staging.rglob("*"))
                if path.is_file()
            },
        )
        (staging / "headfirst.json").write_text(metadata.model_dump_json(indent=1) + "\n")
        (staging / "README.md").write_text(model_card(metadata.model_dump(mode="json")))
        _replace_directory(staging, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return directory


def load_model(directory: str | Path) -> TunedModel:
    """The model in `directory`, after its files' hashes and its golden outputs were checked.

    Raises:
        InputError: there is no Headfirst model.
        ArtefactError: a file is missing or was changed, the metadata is not understood, or the outputs differ.
    """
    directory = Path(directory)
    path = directory / "headfirst.json"
    if not path.is_file():
        raise InputError(
            f"{directory} is no Headfirst model (it has no headfirst.json); give the model/ folder that "
            "`headfirst run` or `headfirst adapt` wrote"
        )
    try:
        metadata = Metadata.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ArtefactError(f"{path} is not understood: {where}: {first['msg']}") from error
    for name, expected in metadata.files.items():
        file = directory / name
        if not file.is_file():
            raise ArtefactError(f"{file} is missing; copy the whole model folder again")
        if _sha256(file) != expected:
            raise ArtefactError(
                f"{file} is not the file that was saved (its sha256 differs); copy the model folder again or retrain"
            )
    try:
        backbone = load_backbone(directory / "backbone")
        head = _load_head(metadata, load_file(directory / "head.safetensors"))
        expected_outputs = load_file(directory / "golden.safetensors")["outputs"]
        classifier = ImageClassifier(backbone, head, metadata.classes).eval()
    except (HeadfirstError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise ArtefactError(f"{directory} does not fit together: {error}") from error
    backbone.name, backbone.revision = metadata.backbone["name"], metadata.backbone["revision"]
    outputs = golden_outputs(classifier)
    mismatch = golden_mismatch(expected_outputs, outputs) if outputs.shape == expected_outputs.shape else float("inf")
    if not mismatch <= TOLERANCE:
        raise ArtefactError(
            f"{directory} no longer gives its golden outputs (relative difference {mismatch:.2g}, at most "
            f"{TOLERANCE:g} is rounding): the software around it computes something else; compare the versions in "
            "headfirst.json"
        )
    return TunedModel(
        classifier=classifier,
        method=metadata.method,
        recipe=metadata.recipe,
        seed=metadata.seed,
        chosen_on=metadata.chosen_on,
        record=metadata.record,
    )


def read_metadata(directory: str | Path) -> dict[str, Any]:
    """`headfirst.json` as it stands, unchecked."""
    return json.loads((Path(directory) / "headfirst.json").read_text())


def _describe_head(head: nn.Module) -> dict[str, Any]:
    if isinstance(head, NeighbourHead):
        return {
            "kind": "neighbours",
            "k": head.k,
            "temperature": head.temperature,
            "classes": head.out_features,
        }
    return {"kind": "linear"}


def _load_head(metadata: Metadata, tensors: dict[str, Tensor]) -> nn.Module:
    kind = metadata.head.get("kind")
    if kind == "linear":
        return linear_head(tensors["weight"], tensors["bias"])
    if kind == "neighbours":
        return NeighbourHead(
            tensors["directions"],
            tensors["labels"],
            num_classes=metadata.head["classes"],
            k=metadata.head["k"],
            temperature=metadata.head["temperature"],
        )
    raise ArtefactError(f"headfirst.json names a head of kind {kind!r}; this version knows 'linear' and 'neighbours'")


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    shutil.copymode(path.parent / "backbone" / "config.json", path)  # safetensors writes 0600


def _replace_directory(staging: Path, directory: Path) -> None:
    """Put `staging` where `directory` was."""
    for path in staging.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if directory.exists():
        old = directory.with_name(f".{directory.name}.old-{os.getpid()}")
        directory.rename(old)
        staging.rename(directory)
        shutil.rmtree(old)
    else:
        directory.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(directory)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

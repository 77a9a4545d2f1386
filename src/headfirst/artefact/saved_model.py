"""A model on disk: everything needed to use it, and the proof that it is still itself.

model/
├── headfirst.json        what it is: backbone and hash, preprocessing, classes, recipe, data hash, metrics, versions
├── README.md             the model card
├── backbone/             config.json, model.safetensors, preprocessor_config.json (the transformers layout)
├── head.safetensors      the head
├── golden.safetensors    outputs expected for the golden inputs; checked on load
├── calibration.safetensors   logits and labels of the validation images; only where there is a temperature
└── exports/              what `headfirst export` wrote, if it did
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from headfirst.adapt import Calibration, NeighbourHead, QuadraticHead, TunedModel
from headfirst.artefact.card import model_card
from headfirst.artefact.fetch import located
from headfirst.artefact.golden import golden_mismatch, golden_outputs
from headfirst.artefact.metadata import FORMAT_VERSION, Metadata, checked_metadata, write_metadata
from headfirst.artefact.seal import file_sha256
from headfirst.errors import ArtefactError, HeadfirstError, InputError
from headfirst.nn import ImageClassifier, UnitLinear, linear_head, load_backbone
from headfirst.types import Row

TOLERANCE = 1e-3
"""Golden outputs may differ by this much of their largest value: other processors round differently."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A model that passed its checks.

    Attributes:
        directory: where it lies.
        mismatch: largest difference of its golden outputs, relative to the largest of them.
    """

    model: TunedModel
    metadata: Metadata
    directory: Path
    mismatch: float


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
        calibration = model.calibration
        if calibration is not None:
            tensors = {"logits": calibration.logits, "labels": calibration.labels}
            _save_tensors(tensors, staging / "calibration.safetensors")
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
            temperature=None if calibration is None else calibration.temperature,
            calibration=None
            if calibration is None
            else {"chosen_on": calibration.chosen_on, "forecast": dict(calibration.forecast)},
            files={
                path.relative_to(staging).as_posix(): file_sha256(path)
                for path in sorted(staging.rglob("*"))
                if path.is_file()
            },
        )
        card = model_card(write_metadata(metadata, staging))
        (staging / "README.md").write_text(card, encoding="utf-8")
        replace_directory(staging, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return directory


def load_model(model: str | Path, *, revision: str | None = None) -> TunedModel:
    """The saved model, after its files' hashes and its golden outputs were checked.

    Args:
        model: its folder, or the id (`owner/name`) of one on the Hugging Face hub, fetched once.
        revision: branch, tag or commit of a hub id.

    Raises:
        InputError: there is no Headfirst model, or it cannot be fetched.
        ArtefactError: a file is missing or was changed, the metadata is not understood, or the outputs differ.
    """
    return load_checked(located(model, revision)).model


def load_checked(directory: Path) -> Checked:
    """The model in `directory` with what its checks found; see `load_model`."""
    metadata = checked_metadata(directory)
    for name, expected in metadata.files.items():
        check_file(directory / name, expected)
    try:
        backbone = load_backbone(directory / "backbone")
        head = _load_head(metadata, load_file(directory / "head.safetensors"))
        expected_outputs = load_file(directory / "golden.safetensors")["outputs"]
        classifier = ImageClassifier(backbone, head, metadata.classes).eval()
        backbone.name, backbone.revision = metadata.backbone["name"], metadata.backbone["revision"]
        model = TunedModel(
            classifier=classifier,
            method=metadata.method,
            recipe=metadata.recipe,
            seed=metadata.seed,
            chosen_on=metadata.chosen_on,
            record=metadata.record,
            calibration=_load_calibration(metadata, directory),
        )
    except (HeadfirstError, SafetensorError, OSError, KeyError, TypeError, RuntimeError) as error:
        raise ArtefactError(f"{directory} does not fit together: {error}") from error
    outputs = golden_outputs(classifier)
    mismatch = golden_mismatch(expected_outputs, outputs) if outputs.shape == expected_outputs.shape else float("inf")
    if not mismatch <= TOLERANCE:
        raise ArtefactError(
            f"{directory} no longer gives its golden outputs (relative difference {mismatch:.2g}, at most "
            f"{TOLERANCE:g} is rounding): the software around it computes something else; compare the versions in "
            "headfirst.json"
        )
    return Checked(model=model, metadata=metadata, directory=directory, mismatch=mismatch)


def check_file(path: Path, expected: str) -> None:
    """Refuse a file that is missing, or is not the one with this sha256."""
    if not path.is_file():
        raise ArtefactError(f"{path} is missing; copy the whole folder again")
    if file_sha256(path) != expected:
        raise ArtefactError(
            f"{path} is not the file that was saved (its sha256 differs); copy the folder again or make it anew"
        )


def _describe_head(head: nn.Module) -> dict[str, Any]:
    if isinstance(head, NeighbourHead):
        return {
            "kind": "neighbours",
            "k": head.k,
            "temperature": head.temperature,
            "classes": head.out_features,
        }
    if isinstance(head, QuadraticHead):
        return {"kind": "quadratic"}
    return {"kind": "unit-linear" if isinstance(head, UnitLinear) else "linear"}


def _load_head(metadata: Metadata, tensors: dict[str, Tensor]) -> nn.Module:
    kind = metadata.head.get("kind")
    if kind in ("linear", "unit-linear"):
        return linear_head(tensors["weight"], tensors["bias"], unit_norm=kind == "unit-linear")
    if kind == "neighbours":
        return NeighbourHead(
            tensors["directions"],
            tensors["labels"],
            num_classes=metadata.head["classes"],
            k=metadata.head["k"],
            temperature=metadata.head["temperature"],
        )
    if kind == "quadratic":
        return QuadraticHead(**tensors)
    raise ArtefactError(
        f"headfirst.json names a head of kind {kind!r}; this version knows linear, unit-linear, neighbours, quadratic"
    )


def _load_calibration(metadata: Metadata, directory: Path) -> Calibration | None:
    if metadata.temperature is None or metadata.calibration is None:
        return None
    return Calibration(
        temperature=metadata.temperature,
        **load_file(directory / "calibration.safetensors"),
        **metadata.calibration,
    )


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    shutil.copymode(path.parent / "backbone" / "config.json", path)  # safetensors writes 0600


def replace_directory(staging: Path, directory: Path) -> None:
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

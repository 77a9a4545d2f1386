"""`load_backbone`: a hub id, a local directory or `builtin/…` → `PretrainedBackbone`, safetensors only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headfirst.errors import BackboneError, did_you_mean
from headfirst.nn.allocator import keep_freed_memory
from headfirst.nn.backbone import PretrainedBackbone
from headfirst.nn.families import FAMILIES, Family
from headfirst.nn.preprocessing import parse_processor, read_processor
from headfirst.nn.quiet import quiet_transformers
from headfirst.nn.sources import locate


def load_backbone(id_or_dir: str | Path, *, revision: str | None = None) -> PretrainedBackbone:
    """A pretrained backbone, float32, on the CPU, in eval mode.

    Also tells glibc's malloc, for the whole process, to keep freed memory (`headfirst.nn.allocator`): forward passes on
    a CPU are then up to 1.7 times faster.

    Args:
        id_or_dir: a hub id ("facebook/dinov2-small"), a local directory, or "builtin/glyph".
        revision: branch, tag or commit of a hub id.

    Returns:
        The backbone, with the preprocessing its checkpoint states.

    Raises:
        BackboneError: it cannot be found, reached, or read; its family or its image processor is not
            supported; or weights that the features depend on are missing (none is ever drawn at random).
    """
    keep_freed_memory()
    name = str(id_or_dir)
    source = locate(id_or_dir, revision)
    model_type = _model_type(source.directory, name)
    processor = read_processor(source.directory, name)
    preprocessing = parse_processor(processor, name)
    model = _load_model(source.directory, FAMILIES[model_type], name)
    return PretrainedBackbone(
        model, name=name, revision=source.revision, processor=processor, preprocessing=preprocessing
    )


def _model_type(directory: Path, name: str) -> str:
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BackboneError(f"{name}: config.json is not JSON ({error}); fetch the checkpoint again") from error
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type not in FAMILIES:
        raise BackboneError(
            f"{name}: model_type {model_type!r} is not supported{did_you_mean(str(model_type), FAMILIES)} "
            f"(there are {', '.join(FAMILIES)})"
        )
    return model_type


def _load_model(directory: Path, family: Family, name: str) -> nn.Module:
    import transformers

    model_class: Any = getattr(transformers, family.model_class)
    if family.model_class == "CLIPVisionModelWithProjection" and not _has_projection(directory):
        model_class = transformers.CLIPVisionModel
    try:
        with quiet_transformers():
            model, report = model_class.from_pretrained(
                directory,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **family.options,
            )
    except Exception as error:  # OSError, ValueError, RuntimeError, SafetensorError and more
        raise BackboneError(
            f"{name} could not be read ({type(error).__name__}: {_one_line(error)}); fetch it again"
        ) from error
    _refuse_missing(report, name)
    return model


def _refuse_missing(report: dict[str, Any], name: str) -> None:
    # The mask token serves masked pre-training only; no feature depends on it.
    missing = sorted(key for key in report["missing_keys"] if not key.endswith("mask_token"))
    mismatched = sorted(str(key) for key in report["mismatched_keys"])
    if missing or mismatched:
        listed = ", ".join([*missing, *mismatched][:5])
        raise BackboneError(
            f"{name}: {len(missing) + len(mismatched)} weights are missing or of another shape ({listed}), "
            "and no weight is ever drawn at random; the file is not the checkpoint that config.json describes"
        )


def _has_projection(directory: Path) -> bool:
    """Whether the checkpoint is of an image-text model; a bare CLIPVisionModel has no projection."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return config["model_type"] == "clip" or "CLIPVisionModel" not in (config.get("architectures") or [])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]

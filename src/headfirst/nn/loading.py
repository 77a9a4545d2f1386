"""`load_backbone`: a hub id, a local directory or `builtin/…` → `PretrainedBackbone`, safetensors only."""

from __future__ import annotations

import copy
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
from headfirst.nn.sources import image_tower, locate
from headfirst.nn.storage import read_projection


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
    directory = image_tower(source.directory)
    family = FAMILIES[model_type(directory, name)]
    if family.vision_config is None:
        return read_backbone(image_class(directory, family), directory, name, source.revision, **family.options)
    assert family.joint is not None
    return image_alone(read_backbone(family.joint, directory, name, source.revision))


def image_class(directory: Path, family: Family) -> str:
    """The transformers class of the images' side; a bare CLIP vision tower has no projection."""
    bare = family.model_class == "CLIPVisionModelWithProjection" and not _has_projection(directory)
    return "CLIPVisionModel" if bare else family.model_class


def image_config(joint: Any) -> Any:
    """The image tower's config of a joint model's, as the class of the tower alone reads it; a copy."""
    import transformers

    family = FAMILIES[joint.model_type]
    config = copy.deepcopy(joint.vision_config)
    if family.vision_config is None:
        return config
    stated = {k: v for k, v in config.to_dict().items() if k not in ("model_type", "projection_dim")}
    return getattr(transformers, family.vision_config)(**stated, projection_dim=joint.projection_dim)


def image_alone(joint: PretrainedBackbone) -> PretrainedBackbone:
    """An independent copy of the image tower of a joint model, without the text tower around it."""
    import transformers

    with torch.random.fork_rng(devices=[]):  # weights are drawn, and replaced at once
        model = getattr(transformers, FAMILIES[joint.model_type].model_class)(image_config(joint.config))
    alone = PretrainedBackbone(
        model,
        name=joint.name,
        revision=joint.revision,
        processor=joint.processor,
        preprocessing=joint.preprocessing,
    )
    alone.stages.load_state_dict(joint.stages.state_dict())
    return alone


def read_backbone(
    model_class: str, directory: Path, name: str, revision: str | None, **options: Any
) -> PretrainedBackbone:
    """The model of a folder, or the image tower of one that has others, with the preprocessing stated there."""
    processor = read_processor(directory, name)
    preprocessing = parse_processor(processor, name)
    return PretrainedBackbone(
        read_model(model_class, directory, name, **options),
        name=name,
        revision=revision,
        processor=processor,
        preprocessing=preprocessing,
        projection=read_projection(directory, name),
    )


def model_type(directory: Path, name: str) -> str:
    """The family that config.json names, if it is one of `FAMILIES`."""
    found = read_config(directory, name).get("model_type")
    if found not in FAMILIES:
        raise BackboneError(
            f"{name}: model_type {found!r} is not supported{did_you_mean(str(found), FAMILIES)} "
            f"(there are {', '.join(FAMILIES)})"
        )
    return found


def read_config(directory: Path, name: str) -> dict[str, Any]:
    """config.json."""
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BackboneError(f"{name}: config.json is not JSON ({error}); fetch the checkpoint again") from error
    if not isinstance(config, dict):
        raise BackboneError(f"{name}: config.json holds no table; fetch the checkpoint again")
    return config


def read_model(
    model_class: str, directory: Path, name: str, *, optional: tuple[str, ...] = (), **options: Any
) -> nn.Module:
    """A transformers model, float32, from safetensors alone; nothing is run, fetched, or drawn at random.

    Args:
        model_class: its name in transformers.
        optional: beginnings of the names of weights that may be missing, since nothing depends on them.
        options: what its constructor is told besides the config.
    """
    import transformers

    try:
        with quiet_transformers():
            model, report = getattr(transformers, model_class).from_pretrained(
                directory,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # OSError, ValueError, RuntimeError, SafetensorError and more
        raise BackboneError(
            f"{name} could not be read ({type(error).__name__}: {_one_line(error)}); fetch it again"
        ) from error
    _refuse_missing(report, name, optional)
    return model


def _refuse_missing(report: dict[str, Any], name: str, optional: tuple[str, ...]) -> None:
    # The mask token serves masked pre-training only; no feature depends on it.
    missing = sorted(
        key for key in report["missing_keys"] if not key.endswith("mask_token") and not key.startswith(optional)
    )
    mismatched = sorted(str(key) for key in report["mismatched_keys"])
    if missing or mismatched:
        listed = ", ".join([*missing, *mismatched][:5])
        raise BackboneError(
            f"{name}: {len(missing) + len(mismatched)} weights are missing or of another shape ({listed}), "
            "and no weight is ever drawn at random; the file is not the checkpoint that config.json describes"
        )


def _has_projection(directory: Path) -> bool:
    """Whether the checkpoint is of an image-text model; a bare CLIPVisionModel has no projection."""
    config = read_config(directory, str(directory))
    return config["model_type"] == "clip" or "CLIPVisionModel" not in (config.get("architectures") or [])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]

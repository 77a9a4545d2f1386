"""Folders as `diffusers` lays them out, read and written without it.

    model_index.json    unet/config.json    unet/diffusion_pytorch_model.safetensors    scheduler/scheduler_config.json

What enters: such a folder of a UNet2DModel. What leaves: a `Generator`, whose network is a denoiser; and back.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from headfirst.errors import ArtefactError, InputError
from headfirst.generate.diffusion.diffusers_network import DiffusersNetwork, require_declared
from headfirst.generate.generator import NETWORKS, Generator
from headfirst.nn.storage import staged

INDEX, UNET, SCHEDULER = "model_index.json", "unet/config.json", "scheduler/scheduler_config.json"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float64: "float64"}


def load_diffusers(directory: str | Path) -> Generator:
    """The model in a folder, as a generator of kind "diffusers".

    Its classes, where there are any, are named by their numbers. It is asked three questions before it is returned.

    Raises:
        InputError: no such folder, another pipeline, network or scheduler than is read here, weights in pickle files
            alone, or a network that is not what its configuration declares.
        ArtefactError: files that cannot be read, or weights that do not fit the configuration.
    """
    directory = Path(directory)
    pipeline, unet, scheduler = (_json(directory / name) for name in (INDEX, UNET, SCHEDULER))
    _check_pipeline(pipeline, directory)
    if unet.get("_class_name") != "UNet2DModel":
        raise InputError(f"{directory / UNET} must be of a UNet2DModel, got {unet.get('_class_name')!r}")
    weights = _weights(directory)
    dtypes = {value.dtype for value in weights.values()}
    if len(dtypes) != 1 or next(iter(dtypes)) not in _DTYPES:
        raise ArtefactError(f"{directory / WEIGHTS} must hold weights of one floating type, got {dtypes}")
    try:
        network = DiffusersNetwork(unet=unet, scheduler=scheduler, pipeline=pipeline, dtype=_DTYPES[dtypes.pop()])
    except InputError as error:
        raise InputError(f"{directory}: {error}") from error
    try:
        network.unet.load_state_dict({_new_name(name): value for name, value in weights.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtefactError(f"{directory / WEIGHTS} does not fit {UNET} ({reason}); copy the folder again") from error
    network.eval().requires_grad_(False)
    try:
        require_declared(network)
    except InputError as error:
        raise InputError(f"{directory}: {error}") from error
    return Generator(
        kind="diffusers",
        network=network,
        classes=tuple(str(k) for k in range(network.num_classes)),
        shares=tuple(1 / network.num_classes for _ in range(network.num_classes)),
        trained_on="",
        recipe=f"read from a folder of diffusers, {pipeline['_class_name']} with {scheduler['_class_name']}",
        record={"weights_sha256": hashlib.sha256((directory / WEIGHTS).read_bytes()).hexdigest()},
    )


def save_diffusers(generator: Generator, directory: str | Path) -> Path:
    """Write a generator of kind "diffusers" as diffusers would; returns the folder, which is made.

    Weights are those that were read, bit for bit and in their type, under today's names; the configurations are kept.

    Raises:
        InputError: a generator of another kind, or a folder that holds something else.
    """
    directory, network = Path(directory), generator.network
    if not isinstance(network, DiffusersNetwork):
        raise InputError(f"a {generator.kind} has no place in diffusers' layout; only what `load_diffusers` read has")
    if directory.is_file() or (directory.is_dir() and any(directory.iterdir()) and not (directory / INDEX).is_file()):
        raise InputError(f"{directory} holds files that are no diffusers model; give a new or an empty folder")
    dtype = getattr(torch, network.config["dtype"])
    weights = {name: value.to(dtype).contiguous() for name, value in network.unet.state_dict().items()}
    with staged(directory) as staging:
        for file, about in ((INDEX, "pipeline"), (UNET, "unet"), (SCHEDULER, "scheduler")):
            (staging / file).parent.mkdir(exist_ok=True)
            (staging / file).write_text(json.dumps(network.config[about], indent=2) + "\n", encoding="utf-8")
        save_file(weights, staging / WEIGHTS, metadata={"format": "pt"})
    return directory


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path} is missing; a folder of diffusers has {INDEX}, {UNET}, {WEIGHTS} and {SCHEDULER}")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ArtefactError(f"{path} cannot be read ({error}); copy the folder again") from error
    if not isinstance(about, dict):
        raise ArtefactError(f"{path} must hold one JSON object, got a {type(about).__name__}")
    return about


def _check_pipeline(pipeline: Mapping[str, Any], directory: Path) -> None:
    parts = {name: part for name, part in pipeline.items() if not name.startswith("_") and part and part != [None] * 2}
    others = sorted(set(parts) - {"unet", "scheduler"})
    if others or "unet" not in parts or "_class_name" not in pipeline:
        had = ", ".join(sorted(parts)) or "nothing"
        raise InputError(
            f"{directory / INDEX} must name a unet and a scheduler alone, got {had}; models of latents and of text are "
            "not read here"
        )
    if parts["unet"][-1] != "UNet2DModel":
        raise InputError(f"{directory / INDEX} must name a UNet2DModel, got {parts['unet'][-1]!r}")


def _weights(directory: Path) -> dict[str, Tensor]:
    file = directory / WEIGHTS
    if not file.is_file():
        there = sorted(path.name for path in file.parent.glob("diffusion_pytorch_model*"))
        pickles = [name for name in there if name.endswith(".bin")]
        raise InputError(
            f"{file} is missing, there is {', '.join(there) or 'nothing'}; "
            + (
                "a .bin file is a pickle, which can run code and is not read: convert it to safetensors"
                if pickles
                else "weights in several files, or of a variant, are not read: save them as one"
            )
        )
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"{file} cannot be read ({error}); copy the folder again") from error


def _new_name(name: str) -> str:
    """Of attention, whose layers had other names before 2023."""
    return re.sub(r"(attentions\.\d+\.)(query|key|value|proj_attn)(?=\.)", lambda m: m[1] + _OLD_NAMES[m[2]], name)


NETWORKS["diffusers"] = DiffusersNetwork

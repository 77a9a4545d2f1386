"""Checkpoints on disk: files that appear whole or not at all, and the one weight that transformers does not write."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from headfirst.errors import BackboneError

_PROJECTION = "projection.safetensors"


@contextmanager
def staged(directory: Path) -> Iterator[Path]:
    """A folder to write into; its files then move to `directory`, which is made, each by fsync and rename.

    safetensors' mode 0600 becomes what the umask grants.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".tmp-") as temporary:
        staging = Path(temporary) / "files"
        staging.mkdir()
        yield staging
        (granted := Path(temporary) / "mode").touch()
        for path in sorted(p for p in staging.rglob("*") if p.is_file()):
            shutil.copymode(granted, path)
            with path.open("rb") as file:
                os.fsync(file.fileno())
            final = directory / path.relative_to(staging)
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, final)


def weights_sha256(module: nn.Module, about: str) -> str:
    """sha256 (hex) of a text and of every weight and persistent buffer of a module, by name."""
    digest = hashlib.sha256(about.encode())
    for key, value in sorted(module.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{key} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def write_projection(projection: nn.Linear | None, directory: Path) -> None:
    """Writes `projection.safetensors`, where there is a projection."""
    if projection is not None:
        weight = projection.weight.detach().cpu().contiguous()
        (directory / _PROJECTION).write_bytes(save({"weight": weight}))


def read_projection(directory: Path, name: str) -> nn.Linear | None:
    """The projection that `write_projection` wrote there; None where there is none."""
    if not (directory / _PROJECTION).is_file():
        return None
    try:
        weight = load_file(directory / _PROJECTION)["weight"].float()
    except (SafetensorError, OSError, KeyError) as error:
        raise BackboneError(f"{name}: {_PROJECTION} cannot be read ({error}); copy the folder again") from error
    return projection_of(weight)


def projection_of(weight: Float[Tensor, "k d"]) -> nn.Linear:
    """A linear map without bias that holds a copy of `weight`; nothing is drawn from the global generator."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        linear.weight.copy_(weight)
    return linear

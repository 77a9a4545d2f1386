"""Tensors and a position on disk, so that a process killed at any instant loses nothing that was saved.

`step-N.tmp/` → tensors as safetensors → fsync → manifest with their sha256 → fsync → rename to `step-N/` → fsync of
the parent. Reading takes the newest checkpoint whose bytes match its manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor


@dataclass(frozen=True)
class Checkpoint:
    """`step`, the tensors by name, and what JSON can hold (`position`)."""

    step: int
    tensors: dict[str, Tensor]
    position: dict[str, Any]


def save_checkpoint(
    directory: Path, step: int, tensors: Mapping[str, Tensor], position: Mapping[str, Any], *, keep: int = 2
) -> Path:
    """Write one checkpoint atomically; delete all but the newest `keep`, and what a kill left unfinished."""
    directory.mkdir(parents=True, exist_ok=True)
    final = directory / f"step-{step:09d}"
    temporary = directory / f"step-{step:09d}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    weights = temporary / "tensors.safetensors"
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, weights)
    weights.chmod(0o666 & ~_umask())  # safetensors writes 0600
    _fsync(weights)
    manifest = temporary / "manifest.json"
    manifest.write_text(json.dumps({"sha256": _sha256(weights), "step": step, "position": dict(position)}))
    _fsync(manifest)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    _fsync(directory)
    for old in [*_steps(directory)[:-keep], *directory.glob("step-*.tmp")]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_checkpoint(directory: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None where there is none."""
    for candidate in reversed(_steps(directory)):
        try:
            manifest = json.loads((candidate / "manifest.json").read_text())
            weights = candidate / "tensors.safetensors"
            if _sha256(weights) == manifest["sha256"]:
                return Checkpoint(manifest["step"], load_file(weights), manifest["position"])
        except (OSError, ValueError, KeyError):
            continue  # cut short or damaged: an older one serves
    return None


def _steps(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted(p for p in directory.iterdir() if p.name.startswith("step-") and p.suffix != ".tmp")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

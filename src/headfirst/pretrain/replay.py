"""Proof that a pre-training is what its recipe says: its last steps again, and every bit compared."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from headfirst.data import ImageSplit
from headfirst.errors import InputError
from headfirst.nn import PretrainedBackbone
from headfirst.pretrain.health import Attempts
from headfirst.pretrain.pretraining import Pretraining
from headfirst.pretrain.training import train_backbone
from headfirst.train import append_line, load_checkpoint, read_lines
from headfirst.types import Progress, silent


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Steps `first` + 1 … `last` done again; `differing` names the tensors that came out otherwise (none should)."""

    first: int
    last: int
    differing: tuple[str, ...]


def replay(
    start: PretrainedBackbone,
    images: ImageSplit,
    recipe: Pretraining,
    directory: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> Replay:
    """Train once more from the last checkpoint but one of a finished run, in a copy of its folder.

    Args:
        start, images, recipe, seed, device: as they were given to `train_backbone`.
        directory: the folder of that run, which is only read.

    Raises:
        InputError: nothing was trained there.
    """
    folder = Attempts(directory).folder
    final = load_checkpoint(folder)
    if final is None:
        raise InputError(f"{directory} holds no checkpoint of a pre-training; train with this directory first")
    with TemporaryDirectory(prefix="headfirst-") as temporary:
        copy = Path(temporary) / "run"
        shutil.copytree(directory, copy)
        again = Attempts(copy).folder
        shutil.rmtree(again / f"step-{final.step:09d}")
        earlier = load_checkpoint(again)
        first = 0 if earlier is None else earlier.step
        _forget_readings(again / "readings.jsonl", 0 if earlier is None else len(earlier.position["losses"]))
        train_backbone(start, images, recipe, seed=seed, directory=copy, device=device, progress=progress)
        repeated = load_checkpoint(again)
    assert repeated is not None
    differing = [name for name, tensor in final.tensors.items() if not torch.equal(tensor, repeated.tensors[name])]
    return Replay(first=first, last=final.step, differing=tuple(differing))


def _forget_readings(path: Path, until: int) -> None:
    """Readings after the epoch from which the run goes on."""
    kept = [line for line in read_lines(path) if line["epoch"] <= until]
    path.unlink()
    for line in kept:
        append_line(path, line)

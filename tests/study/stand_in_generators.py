"""Generators whose fault is planted, with the interface of the real ones; for the coloured images of `tiny`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from headfirst.data import ImageSplit
from headfirst.generate import Generator
from headfirst.generate.pictures import pictures


class StandIn(nn.Module):
    """Keeps its training images and makes, by `fault`: copies, new images, new ones of the next class, or noise."""

    noise_dim = 3 * 16 * 16 + 1

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, fault: str) -> None:
        super().__init__()
        self.register_buffer("images", images)
        self.register_buffer("labels", labels)
        self.fault = fault

    @property
    def config(self) -> dict[str, Any]:
        return {"fault": self.fault}

    def forward(self, noise: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        share = torch.special.ndtr(noise)
        if self.fault == "noise":
            return share[:, 1:].reshape(-1, 3, 16, 16).round()
        if self.fault == "copies":
            rows = [torch.nonzero(self.labels == label)[:, 0] for label in labels]
            return torch.stack([self.images[r[int(u * len(r))]] for r, u in zip(rows, share[:, 0], strict=True)])
        new = (share[:, 1:] * 120).floor().reshape(-1, 3, 16, 16)
        new[torch.arange(len(new)), (labels + (self.fault == "wrong")) % 3] += 100
        return new / 255


@dataclass(frozen=True, kw_only=True)
class StandInRecipe:
    """Remembers what it was given."""

    fault: str
    given: list[tuple[int, tuple[str, ...]]] = field(default_factory=list, repr=False)
    stop_at: int = field(default=0, repr=False)

    def fit(self, images: ImageSplit, *, seed: int = 0, directory: Path | None = None, device: str = "cpu",
            force: bool = False, progress: Any = None) -> Generator:  # fmt: skip
        assert force
        assert directory is not None
        self.given.append((seed, images.ids))
        if len(self.given) == self.stop_at:
            raise KeyboardInterrupt
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "checkpoint").write_text("as if")
        shown = pictures(images, size=16)
        network = StandIn(shown.batch(), torch.from_numpy(shown.labels), self.fault)
        return Generator(kind="stand-in", network=network, classes=shown.classes, shares=shown.shares,
                         trained_on=shown.split.fingerprint, recipe=repr(self))  # fmt: skip


def pixels_of(split: ImageSplit) -> list[bytes]:
    return [np.asarray(source).tobytes() for source in split.sources]

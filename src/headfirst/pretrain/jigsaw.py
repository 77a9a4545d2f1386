"""Jigsaw: in which order were the tiles of this image put? Whoever can tell knows which parts belong where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.data import View, Views
from headfirst.errors import InputError
from headfirst.nn import PretrainedBackbone, features_at, permutation_set
from headfirst.nn.seeds import seeded
from headfirst.pretrain.pretext import mlp, whole_patches
from headfirst.randomness import Draw
from headfirst.types import Preprocessing

_ORDER, _PLACE = 100, 101  # streams of a sample's draw


@dataclass(frozen=True, kw_only=True)
class Jigsaw:
    """Tiles with random gaps between them, each normalised by itself, shown one by one to the same network.

    Attributes:
        grid: tiles a side: 2 or 3.
        min_distance: in how many places any two of the orders differ (`headfirst.nn.permutation_set`): 8 leaves 72
            orders of 9 tiles, 7 leaves 504; 3 leaves 12 orders of 4 tiles. One place less than there are tiles if None.
        tile: share of its cell that a tile takes; where in the cell it lies is random, so that no edge runs on.

    Source: Noroozi & Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV 2016,
    sections 3.2 and 4.1 (their tiles are 64 of 75 pixels). Deviation: orders from groups, not chosen greedily.
    """

    grid: int = 3
    min_distance: int | None = None
    tile: float = 0.85

    method: ClassVar[str] = "jigsaw"
    compares: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.grid not in (2, 3):
            raise InputError(f"grid must be 2 or 3 tiles a side, got {self.grid}")
        if not 2 <= self.distance <= self.grid**2:
            raise InputError(f"min_distance must lie in 2 to {self.grid**2}, got {self.min_distance}")
        if not 0.5 <= self.tile <= 1:
            raise InputError(f"tile is a share of its cell in [0.5, 1], got {self.tile}")

    @property
    def distance(self) -> int:
        """`min_distance`, or its default."""
        return self.grid**2 - 1 if self.min_distance is None else self.min_distance

    def learner(self, backbone: PretrainedBackbone, *, seed: int, num_steps: int) -> Puzzle:
        """See `Pretext`."""
        orders = torch.from_numpy(permutation_set(self.grid**2, self.distance))
        with seeded(seed, 1):
            head = mlp(self.grid**2 * backbone.feature_dim, 512, len(orders))
        return Puzzle(backbone, head, orders, self)

    def views(self, *, mirror: bool) -> View:
        """See `Pretext`."""
        return Views.gentle(mirror=mirror)

    def preprocessing(self, backbone: PretrainedBackbone) -> Preprocessing:
        """See `Pretext`."""
        return backbone.preprocessing

    def mended(self, attempt: int) -> None:
        """Only a smaller learning rate helps."""


class Puzzle(nn.Module):
    """The backbone on every tile, and a head on all their features together; rows are logits of the orders."""

    orders: Tensor

    def __init__(
        self, backbone: PretrainedBackbone, head: nn.Module, orders: Int64[Tensor, "m t"], task: Jigsaw
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.task = task
        self.register_buffer("orders", orders, persistent=False)
        height, width = (side // task.grid for side in backbone.preprocessing.size)
        self.cell = (height, width)
        self.side = tuple(whole_patches(backbone, side * task.tile) for side in self.cell)
        if any(side > cell for side, cell in zip(self.side, self.cell, strict=True)):
            raise InputError(
                f"{backbone.name} sees {height * task.grid}x{width * task.grid} pixels in patches of {self.side[0]}: a "
                "tile would be less than a patch; use larger images, or grid=2"
            )

    def encode(self, images: UInt8[Tensor, "b 3 h w"], draw: Draw, views: View) -> Float[Tensor, "b m"]:
        """Logits of the orders in which the tiles were put."""
        whole = views(images, draw, 0, size=self.backbone.preprocessing.size)
        tiles = standardised(self.cut(whole, draw)).to(next(self.backbone.parameters()).dtype)
        order = self.orders[self.answers(draw).to(self.orders.device)]
        mixed = tiles[torch.arange(len(tiles), device=tiles.device)[:, None], order]
        return self.head(features_at(self.backbone, mixed.flatten(0, 1)).unflatten(0, order.shape).flatten(1))

    def cut(self, images: Float[Tensor, "b 3 h w"], draw: Draw) -> Float[Tensor, "b t 3 s r"]:
        """The tiles, row by row, each somewhere in its cell."""
        grid, numbers = self.task.grid, np.arange(self.task.grid**2)
        corners = []
        for axis, cell in enumerate((numbers // grid, numbers % grid)):
            room = self.cell[axis] - self.side[axis] + 1
            free = np.floor(draw.uniforms(len(numbers), _PLACE, axis) * room).astype(np.int64)
            starts = torch.from_numpy(cell * self.cell[axis] + free)
            corners.append(starts[:, :, None] + torch.arange(self.side[axis]))  # (b, t, s)
        rows, columns = (each.to(images.device) for each in corners)
        sample = torch.arange(len(images), device=images.device)[:, None, None, None]
        cut = images.permute(0, 2, 3, 1)[sample, rows[:, :, :, None], columns[:, :, None, :]]
        return cut.permute(0, 1, 4, 2, 3)

    def answers(self, draw: Draw) -> Int64[Tensor, " b"]:
        """The number of each sample's order."""
        return torch.from_numpy(np.floor(draw.uniform(_ORDER) * len(self.orders)).astype(np.int64))

    def loss(self, rows: Float[Tensor, "n m"], draw: Draw, workers: dist.ProcessGroup | None) -> Tensor:
        """Cross-entropy, the mean over the images."""
        return F.cross_entropy(rows, self.answers(draw).to(rows.device))

    def stepped(self) -> None:
        """Nothing follows a step."""

    def taught(self) -> PretrainedBackbone:
        """The backbone without the head."""
        return self.backbone


def standardised(tiles: Float[Tensor, "b t 3 s r"]) -> Float[Tensor, "b t 3 s r"]:
    """Every channel of every tile with mean 0 and deviation 1, so that its brightness does not tell its place."""
    centred = tiles - tiles.mean(dim=(3, 4), keepdim=True)
    return centred / (centred.square().mean(dim=(3, 4), keepdim=True) + 1.0).sqrt()  # 1 grey level: a flat tile stays 0

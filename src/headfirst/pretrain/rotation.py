"""Rotation: by how many quarter turns was this image turned? Whoever can tell has seen what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.distributed as dist
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.data import View, Views
from headfirst.errors import InputError
from headfirst.nn import PretrainedBackbone, random_head
from headfirst.pretrain.pretext import as_input, rows_of_views
from headfirst.randomness import Draw
from headfirst.types import Preprocessing


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """Each image in all four turns, so that every batch is balanced; a linear head names the turn.

    Source: Gidaris, Singh & Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018,
    equations 2 and 3.
    """

    method: ClassVar[str] = "rotation"
    compares: ClassVar[bool] = False

    def learner(self, backbone: PretrainedBackbone, *, seed: int, num_steps: int) -> Turned:
        """See `Pretext`."""
        height, width = backbone.preprocessing.size
        if height != width:
            raise InputError(f"only square images can be turned, and {backbone.name} takes {height}x{width}")
        return Turned(backbone, random_head(backbone.feature_dim, 4, seed=seed))

    def views(self, *, mirror: bool) -> View:
        """See `Pretext`."""
        return Views.gentle(mirror=mirror)

    def preprocessing(self, backbone: PretrainedBackbone) -> Preprocessing:
        """See `Pretext`."""
        return backbone.preprocessing

    def mended(self, attempt: int) -> None:
        """Only a smaller learning rate helps."""


class Turned(nn.Module):
    """Backbone and linear head; rows are the logits of the four turns of an image."""

    def __init__(self, backbone: PretrainedBackbone, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def encode(self, images: UInt8[Tensor, "b 3 h w"], draw: Draw, views: View) -> Float[Tensor, "b 4 4"]:
        """[i, k] are the logits of image i after k quarter turns."""
        upright = as_input(views(images, draw, 0, size=self.backbone.preprocessing.size), self.backbone)
        turned = torch.cat([upright.rot90(k, (2, 3)) for k in range(4)])
        return rows_of_views(self.head(self.backbone(turned)), 4)

    def loss(self, rows: Float[Tensor, "n 4 4"], draw: Draw, workers: dist.ProcessGroup | None) -> Tensor:
        """Cross-entropy, the mean over the turns and the images."""
        return F.cross_entropy(rows.flatten(0, 1), torch.arange(4, device=rows.device).repeat(len(rows)))

    def stepped(self) -> None:
        """Nothing follows a step."""

    def taught(self) -> PretrainedBackbone:
        """The backbone without the head."""
        return self.backbone

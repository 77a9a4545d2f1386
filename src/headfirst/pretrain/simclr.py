"""SimCLR: two views of an image are more alike than views of two images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.distributed as dist
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from headfirst.data import View, Views
from headfirst.errors import InputError
from headfirst.nn import PretrainedBackbone, nt_xent_loss
from headfirst.nn.seeds import seeded
from headfirst.pretrain.pretext import as_input, mlp, rows_of_views
from headfirst.randomness import Draw
from headfirst.types import Preprocessing


@dataclass(frozen=True, kw_only=True)
class SimCLR:
    """NT-Xent on a projection of the features; the projection is thrown away.

    Attributes:
        temperature: of the loss.
        projection: dimensions of the space the views are compared in.

    Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020. Deviations:
    the projection has layer norm instead of batch norm, so that a sample's rows do not depend on its batch; AdamW for
    LARS.
    """

    temperature: float = 0.2
    projection: int = 128

    method: ClassVar[str] = "simclr"
    compares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf") or self.projection < 1:
            raise InputError(
                f"temperature must be positive and projection at least 1, got {self.temperature} and {self.projection}"
            )

    def learner(self, backbone: PretrainedBackbone, *, seed: int, num_steps: int) -> TwoViews:
        """See `Pretext`."""
        with seeded(seed, 1):
            projector = mlp(backbone.feature_dim, max(backbone.feature_dim, 256), self.projection)
        return TwoViews(
            backbone, projector, lambda a, b, workers: nt_xent_loss(a, b, self.temperature, workers=workers)
        )

    def views(self, *, mirror: bool) -> View:
        """See `Pretext`."""
        return Views.photographs(mirror=mirror)

    def preprocessing(self, backbone: PretrainedBackbone) -> Preprocessing:
        """See `Pretext`."""
        return backbone.preprocessing

    def mended(self, attempt: int) -> None:
        """Only a smaller learning rate helps."""


PairLoss = Callable[[Tensor, Tensor, dist.ProcessGroup | None], Tensor]


class TwoViews(nn.Module):
    """Two views of each image through one network, stacked in one forward; the loss compares their projections."""

    def __init__(self, backbone: PretrainedBackbone, projector: nn.Module, compare: PairLoss) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.compare = compare

    def encode(self, images: UInt8[Tensor, "b 3 h w"], draw: Draw, views: View) -> Float[Tensor, "b 2 d"]:
        """Projections of two views."""
        size = self.backbone.preprocessing.size
        both = torch.cat([views(images, draw, view, size=size) for view in (0, 1)])
        return rows_of_views(self.projector(self.backbone(as_input(both, self.backbone))), 2)

    def loss(self, rows: Float[Tensor, "n 2 d"], draw: Draw, workers: dist.ProcessGroup | None) -> Tensor:
        """The comparison of the first views with the second."""
        return self.compare(rows[:, 0], rows[:, 1], workers)

    def stepped(self) -> None:
        """Nothing follows a step."""

    def taught(self) -> PretrainedBackbone:
        """The backbone without the projection."""
        return self.backbone

"""VICReg: two views agree, while every dimension is kept busy by a penalty; no image is compared with another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from headfirst.data import View, Views
from headfirst.errors import InputError
from headfirst.nn import PretrainedBackbone, vicreg_loss
from headfirst.nn.seeds import seeded
from headfirst.pretrain.pretext import mlp
from headfirst.pretrain.simclr import TwoViews
from headfirst.types import Preprocessing


@dataclass(frozen=True, kw_only=True)
class VICReg:
    """Invariance, variance and covariance of an expansion of the features; the expander is thrown away.

    Attributes:
        invariance, variance, covariance: weights of the loss's three terms.
        expansion: dimensions of the space they are measured in.

    Source: Bardes, Ponce & LeCun, "VICReg", ICLR 2022. Deviations: layer norm for batch norm in the expander, which is
    small; AdamW for LARS.
    """

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    expansion: int = 512

    method: ClassVar[str] = "vicreg"
    compares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if min(self.invariance, self.variance, self.covariance) < 0 or self.expansion < 1:
            raise InputError(f"weights must be at least 0 and expansion at least 1, got {self}")

    def learner(self, backbone: PretrainedBackbone, *, seed: int, num_steps: int) -> TwoViews:
        """See `Pretext`."""
        with seeded(seed, 1):
            expander = mlp(backbone.feature_dim, self.expansion, self.expansion)
        weights = {"invariance": self.invariance, "variance": self.variance, "covariance": self.covariance}
        return TwoViews(backbone, expander, lambda a, b, workers: vicreg_loss(a, b, **weights, workers=workers))

    def views(self, *, mirror: bool) -> View:
        """See `Pretext`."""
        return Views.photographs(mirror=mirror)

    def preprocessing(self, backbone: PretrainedBackbone) -> Preprocessing:
        """See `Pretext`."""
        return backbone.preprocessing

    def mended(self, attempt: int) -> tuple[VICReg, str]:
        """More weight on the term that forbids the collapse."""
        weight = max(25.0, 2 * self.variance)
        return replace(self, variance=weight), f"the weight of the variance term raised to {weight:g}"

"""The two-layer linear network f(x) = V B x, where claim 5 is exact (Kumar et al., ICLR 2022, section 3).

Gradients of B are (…)xᵀ, so that gradient descent never moves B on the orthogonal complement of the training inputs.

Shape letters: N images, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.data import shuffled_by_name
from headfirst.features import torch_threads
from headfirst.nn import random_head
from headfirst.train import Batch, Optimisation, train
from headfirst.types import Features

STEPS = 100
OPTIMISERS: Mapping[str, tuple[Callable[[list[dict[str, Any]]], torch.optim.Optimizer], float]] = {
    "gradient descent": (torch.optim.SGD, 0.5),
    "AdamW": (torch.optim.AdamW, 0.01),
}
"""Name → optimiser and learning rate."""


class TwoLayerLinear(nn.Module):
    """f(x) = V B x in float64; B begins as the identity, so that the features Bx begin as the inputs."""

    def __init__(self, num_features: int, num_classes: int, *, seed: int) -> None:
        super().__init__()
        self.B = nn.Parameter(torch.eye(num_features, dtype=torch.float64))
        self.V = nn.Parameter(random_head(num_features, num_classes, seed=seed).weight.detach().double())

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        return x @ self.B.T @ self.V.T


@dataclass(frozen=True, kw_only=True)
class LinearMovement:
    """‖change of Bz‖ / ‖z‖: the largest over inputs z orthogonal to the training inputs, the mean in their span."""

    orthogonal: float
    inside: float


def linear_movement(home: Features, shifted: Float[Tensor, "n d"], optimiser: str, *, seed: int) -> LinearMovement:
    """Train on some of `home`, full batches of cross-entropy; then ask for the two parts of each row of `shifted`.

    At most D/2 home images are trained on, so that a complement is left.

    Args:
        optimiser: one of `OPTIMISERS`.
    """
    dim = shifted.shape[1]
    few = home.take(shuffled_by_name(home.ids, seed=seed)[: max(1, dim // 2)].tolist())
    scale = few.values.double().square().sum(dim=1).mean().sqrt()
    x, z = few.values.double() / scale, shifted.double() / scale
    model = TwoLayerLinear(dim, len(home.classes), seed=seed)

    def loss(batch: Batch) -> Tensor:
        return F.cross_entropy(model(x[batch.indices]), few.labels[batch.indices])

    make, rate = OPTIMISERS[optimiser]
    recipe = Optimisation(epochs=STEPS, batch_size=len(x), warmup=0.0, clip_norm=None)
    groups = [{"params": [model.B, model.V], "lr": rate}]
    with torch_threads(1):  # matrices this small take longer on two, much longer where one is shared
        train(model, loss, groups, recipe, num_samples=len(x), seed=seed, optimiser=make)

    moved = (model.B - torch.eye(dim, dtype=torch.float64)).detach()
    basis = torch.linalg.qr(x.T).Q
    inside = z @ basis @ basis.T
    outside = z - inside
    return LinearMovement(
        orthogonal=((outside @ moved.T).norm(dim=1) / outside.norm(dim=1)).max().item(),
        inside=((inside @ moved.T).norm(dim=1) / inside.norm(dim=1)).mean().item(),
    )

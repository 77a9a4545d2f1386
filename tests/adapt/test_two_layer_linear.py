"""The theory that the project is named after, where it is exact: f(x) = vᵀBx with pretrained B (Kumar et al., 2022).

Training inputs span a subspace S. Gradients of B are (…)xᵀ, so B never moves on the orthogonal complement of S: a
shifted input there keeps its old features while the head moves to fit the new ones. A head that already fits has no
gradient to send, so head first leaves good features good.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from headfirst.train import Batch, Optimisation, train

D, K, M, N = 20, 3, 8, 40  # input, feature and span dimensions, samples


class Linear2(nn.Module):
    def __init__(self, B: Tensor, v: Tensor) -> None:
        super().__init__()
        self.B, self.v = nn.Parameter(B.clone()), nn.Parameter(v.clone())

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.B.T @ self.v


@pytest.fixture(scope="module")
def world() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(normal(D, D)).Q
    inside, outside = basis[:, :M], basis[:, M:]
    # A shifted input lies half inside the span, half outside.
    x, z = normal(N, M) @ inside.T, normal(N, D) @ basis.T
    B = torch.linalg.qr(normal(D, K)).Q.T  # the pretrained features are the right ones
    v = normal(K)
    return {"x": x, "y": x @ B.T @ v, "z": z, "w": z @ B.T @ v, "B": B, "outside": outside.T, "v0": normal(K)}


def fine_tune(model: Linear2, world: dict[str, Tensor]) -> float:
    """Plain gradient descent through the library's loop; returns the last training loss."""

    def loss(batch: Batch) -> Tensor:
        return ((model(world["x"][batch.indices]) - world["y"][batch.indices]) ** 2).mean()

    recipe = Optimisation(epochs=1500, batch_size=N, warmup=0.0, clip_norm=None)
    record = train(model, loss, [{"params": [model.B, model.v], "lr": 0.1}], recipe, num_samples=N, seed=0,
                   optimiser=torch.optim.SGD)  # fmt: skip
    return record.losses[-1]


def shifted_loss(model: Linear2, world: dict[str, Tensor]) -> float:
    return ((model(world["z"]) - world["w"]) ** 2).mean().item()


def test_features_orthogonal_to_the_training_span_do_not_move(world: dict[str, Tensor]):
    model = Linear2(world["B"], world["v0"])
    assert fine_tune(model, world) < 1e-12
    moved = (model.B - world["B"]).detach()
    assert (world["outside"] @ moved.T).abs().max() < 1e-10
    assert (world["x"] @ moved.T).abs().max() > 0.1  # while those of the training inputs do


def test_head_first_reaches_zero_shifted_loss_where_fine_tuning_does_not(world: dict[str, Tensor]):
    distorted = Linear2(world["B"], world["v0"])
    assert fine_tune(distorted, world) < 1e-12  # perfect at home
    probe = torch.linalg.lstsq(world["x"] @ world["B"].T, world["y"]).solution
    head_first = Linear2(world["B"], probe)
    assert fine_tune(head_first, world) < 1e-20
    assert shifted_loss(head_first, world) < 1e-20
    assert shifted_loss(distorted, world) > 0.1


def test_adam_keeps_coordinates_that_never_appear(world: dict[str, Tensor]):
    """Adam scales each coordinate by itself: the complement is safe where it is made of whole coordinates."""
    model = Linear2(world["B"], world["v0"])
    x = world["x"].clone()
    x[:, M:] = 0.0

    def loss(batch: Batch) -> Tensor:
        return (model(x[batch.indices]) ** 2).mean()

    groups = [{"params": [model.B, model.v], "lr": 0.01, "weight_decay": 0.0}]
    train(model, loss, groups, Optimisation(epochs=20, batch_size=8), num_samples=N, seed=0)
    assert torch.equal(model.B[:, M:], world["B"][:, M:])
    assert not torch.equal(model.B[:, :M], world["B"][:, :M])

"""Distributions that are known, and generators of points that learn them.

Each has mean 0 and covariance I, as standard normal noise has: no shift, scaling or rotation of the noise is of use.
Perceptrons that learn them descend one distance and are judged by another.

Shape letters: N points, D coordinates (1 or 2), A directions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from headfirst.claims.point_diffusion import Draw, PointDiffusion
from headfirst.generate import PointGenerator
from headfirst.train import Batch, Optimisation, train

SPREAD = 0.15
"""Standard deviation about a mode, or about the ring."""
_DIRECTIONS, _TINY = 32, 1e-12
_RADIUS = math.sqrt(1 - SPREAD**2)  # of the modes' places, so that each coordinate has variance 1

_EPOCH = 10  # steps: nothing hangs on it, but the loop orders the samples of an epoch


def two_modes(num: int, generator: torch.Generator) -> Float[Tensor, "n 1"]:
    """Equally likely, to the left and the right of 0."""
    side = 2.0 * torch.randint(2, (num, 1), generator=generator) - 1
    return _RADIUS * side + SPREAD * torch.randn(num, 1, generator=generator)


def ring(num: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """A circle about 0."""
    return _around(2 * math.pi * torch.rand(num, generator=generator), generator)


def eight_modes(num: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """Equally likely, at equal distances on a circle about 0."""
    return _around(math.pi / 4 * torch.randint(8, (num,), generator=generator), generator)


def gaussian(num: int, dim: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Standard normal noise."""
    return torch.randn(num, dim, generator=generator)


def uniform(num: int, dim: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Uniform noise of mean 0 and variance 1."""
    return math.sqrt(12) * (torch.rand(num, dim, generator=generator) - 0.5)


def skewed(num: int, dim: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Exponential noise, shifted to mean 0; of variance 1."""
    return torch.empty(num, dim).exponential_(generator=generator) - 1


TARGETS: Mapping[str, Draw] = {"two modes in 1-D": two_modes, "ring in 2-D": ring, "eight modes in 2-D": eight_modes}
NOISES: Mapping[str, Callable[[int, int, torch.Generator], Tensor]] = {
    "Gaussian": gaussian, "uniform": uniform, "skewed": skewed
}  # fmt: skip


def energy_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| without the bias of few points, differentiable: 0 where both are distributed
    alike (below 0 at times), above 0 otherwise.

    Source: Székely & Rizzo, Journal of Statistical Planning and Inference 2013; as a loss Dziugaite, Roy & Ghahramani,
    UAI 2015.
    """
    between = (a[:, None] - b).square().sum(dim=2).add(_TINY).sqrt()  # √ has no slope at 0
    return 2 * between.mean() - torch.pdist(a).mean() - torch.pdist(b).mean()


def wasserstein(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> float:
    """Sliced Wasserstein-1 distance of two equally large samples: mean |sorted a·u - sorted b·u| over 32 directions u
    that are equally far apart; in one dimension the Wasserstein-1 distance itself."""
    u = _directions(a.shape[1])
    return ((a.double() @ u).sort(dim=0).values - (b.double() @ u).sort(dim=0).values).abs().mean().item()


@dataclass(frozen=True, kw_only=True)
class EnergyDescent:
    """How a perceptron learns to make a target's points of noise of as many dimensions: down the energy distance.

    Attributes:
        noise: one of `NOISES`.
    """

    noise: str = "Gaussian"
    steps: int = 1500
    batch_size: int = 128
    hidden: int = 64
    layers: int = 5
    lr: float = 5e-3

    def fit(self, draw: Draw, *, seed: int) -> Callable[[Tensor], Tensor]:
        """Noise (N, D) to points."""
        generator = torch.Generator().manual_seed(seed)
        dim = draw(1, generator).shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = PointGenerator(dim=dim, noise_dim=dim, hidden=self.hidden, layers=self.layers)

        def loss(_: Batch) -> Tensor:
            z = NOISES[self.noise](self.batch_size, dim, generator)
            return energy_distance(network(z), draw(self.batch_size, generator))

        optimisation = Optimisation(
            epochs=self.steps // _EPOCH, batch_size=self.batch_size, clip_norm=None, ema_decay=0.99
        )
        groups = [{"params": list(network.parameters()), "lr": self.lr}]
        train(network, loss, groups, optimisation, num_samples=_EPOCH * self.batch_size, seed=seed,
              optimiser=torch.optim.Adam)  # fmt: skip
        return network.eval().requires_grad_(False)


def points(
    name: str, recipe: EnergyDescent | PointDiffusion, seed: int, *, num: int, work: Path
) -> dict[str, Float[Tensor, "n d"]]:
    """What is compared, `num` points each; from `work` where it was made before.

    Returns:
        "target" and "fresh sample": of the target. "noise": standard normal. Each of `NOISES`: what the trained
        generator makes of it; "Gaussian" of "noise" row by row.
    """
    key = hashlib.sha256(repr((name, recipe, num, SPREAD)).encode()).hexdigest()[:16]
    path = work / f"points-{seed}-{key}.safetensors"
    if not path.is_file():
        target, generator = TARGETS[name], torch.Generator().manual_seed(2**20 + seed)
        drawn = {"target": target(num, generator), "fresh sample": target(num, generator)}
        dim = drawn["target"].shape[1]
        drawn["noise"] = gaussian(num, dim, generator)
        others = {kind: draw(num, dim, generator) for kind, draw in NOISES.items()}
        make = recipe.fit(target, seed=seed)
        made = {kind: make(z) for kind, z in {**others, "Gaussian": drawn["noise"]}.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        save_file({**drawn, **made}, part)
        part.replace(path)  # whole, or not there
    return load_file(path)


def _around(angle: Float[Tensor, " n"], generator: torch.Generator) -> Float[Tensor, "n 2"]:
    places = math.sqrt(2) * _RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)
    return places + SPREAD * torch.randn(len(angle), 2, generator=generator)


def _directions(dim: int) -> Float[Tensor, "d a"]:
    if dim == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    angle = math.pi * torch.arange(_DIRECTIONS, dtype=torch.float64) / _DIRECTIONS
    return torch.stack([angle.cos(), angle.sin()])

"""Distributions that are known, and generators of points that learn them.

Each has mean 0 and covariance I, as standard normal noise has: no shift, scaling or rotation of the noise is of use.

Shape letters: N and M points, D coordinates (1 or 2).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from headfirst.generate import Game, PointDiscriminator, PointGenerator, Round, Rules, play
from headfirst.train import Batch, Optimisation

Draw = Callable[[int, torch.Generator], Tensor]

SPREAD = 0.15
"""Standard deviation about a mode, or about the ring."""
_RADIUS = math.sqrt(1 - SPREAD**2)  # of the modes' places, so that each coordinate has variance 1
_EPOCH = 20  # turns: nothing hangs on it, but the loop orders the samples of an epoch

RULES, HIDDEN, LAYERS, BATCH = Rules(r1=0.1, r2=0.1, ema_decay=0.99), 64, 2, 128


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


def energy_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, without the bias of few points: a square, 0 where the distributions are the
    same (below 0 at times), above 0 otherwise.

    Source: Székely & Rizzo, Journal of Statistical Planning and Inference 2013; a U-statistic of it.
    """
    x, y = a.double(), b.double()
    return 2 * torch.cdist(x, y).mean().item() - torch.pdist(x).mean().item() - torch.pdist(y).mean().item()


def fitted(target: Draw, noise: str, seed: int, turns: int) -> PointGenerator:
    """A perceptron that was trained, against another, to turn noise of as many dimensions into the target."""
    generator = torch.Generator().manual_seed(seed)
    dim = target(1, generator).shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        players = (
            PointGenerator(dim=dim, noise_dim=dim, hidden=HIDDEN, layers=LAYERS),
            PointDiscriminator(dim=dim, hidden=HIDDEN, layers=LAYERS),
        )
    game = Game(*players)

    def rounds(_: Batch) -> Round:
        return Round(real=target(BATCH, generator), noise=NOISES[noise](BATCH, dim, generator))

    optimisation = Optimisation(epochs=turns // _EPOCH, batch_size=BATCH, warmup=0.0, clip_norm=None)
    play(game, rounds, RULES, optimisation, num_samples=_EPOCH * BATCH, seed=seed)
    return game.average.eval()


def points(name: str, noise: str, seed: int, *, turns: int, num: int, work: Path) -> dict[str, Float[Tensor, "n d"]]:
    """What is compared, `num` points each; from `work` where it was made before.

    Returns:
        "target" and "fresh sample": of the target. "noise": standard normal. Each of `NOISES`: what a generator that
        was trained on noise of the kind `noise` makes of it; "Gaussian" of "noise" row by row.
    """
    key = hashlib.sha256(repr((name, noise, turns, num, SPREAD, RULES, HIDDEN, LAYERS, BATCH)).encode()).hexdigest()[
        :16
    ]
    path = work / f"points-{seed}-{key}.safetensors"
    if not path.is_file():
        target, generator = TARGETS[name], torch.Generator().manual_seed(2**20 + seed)
        drawn = {"target": target(num, generator), "fresh sample": target(num, generator)}
        dim = drawn["target"].shape[1]
        drawn["noise"] = gaussian(num, dim, generator)
        others = {kind: draw(num, dim, generator) for kind, draw in NOISES.items()}
        network = fitted(target, noise, seed, turns)
        with torch.inference_mode():
            made = {kind: network(z) for kind, z in {**others, "Gaussian": drawn["noise"]}.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        save_file({**drawn, **made}, part)
        part.replace(path)  # whole, or not there
    return load_file(path)


def _around(angle: Float[Tensor, " n"], generator: torch.Generator) -> Float[Tensor, "n 2"]:
    places = math.sqrt(2) * _RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)
    return places + SPREAD * torch.randn(len(angle), 2, generator=generator)

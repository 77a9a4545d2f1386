"""A diffusion model of points, small enough to be trained in seconds.

Shape letters: N points, D coordinates, W frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.generate.diffusion import EDMWeighting, LogNormalLevels, Sampling, preconditioning
from headfirst.train import Batch, Optimisation, train

Draw = Callable[[int, torch.Generator], Tensor]
"""So many points of a distribution, (N, D)."""

_EPOCH = 10  # steps: nothing hangs on it, but the loop orders the samples of an epoch


class PointDenoiser(nn.Module):
    """D(x; σ) of points of variance 1, preconditioned: a perceptron of them, of their sines and cosines at random
    frequencies, and of the level.

    Args:
        waves: W, each at random from a normal distribution whose deviation rises geometrically from 0.5 to `fastest`
            radians.
    """

    frequencies: Tensor

    def __init__(self, *, dim: int, hidden: int, waves: int, fastest: float) -> None:
        super().__init__()
        deviation = torch.logspace(math.log10(0.5), math.log10(fastest), waves)[:, None]
        self.register_buffer("frequencies", deviation * torch.randn(waves, dim))
        widths = (dim + 2 * waves + 3, hidden, hidden, hidden, dim)
        self.layers = nn.ModuleList(nn.Linear(*ends) for ends in pairwise(widths))

    def forward(self, x: Float[Tensor, "n d"], sigma: Tensor) -> Float[Tensor, "n d"]:
        """`sigma` is one level, or (N,)."""
        c_skip, c_out, c_in, c = (each.float().expand(len(x))[:, None] for each in preconditioning(sigma, 1.0))
        y = c_in * x
        angles = y @ self.frequencies.T
        h = torch.cat([y, angles.sin(), angles.cos(), c, (3 * c).sin(), (3 * c).cos()], dim=1)
        for i, layer in enumerate(self.layers):
            h = layer(F.silu(h) if i else h)
        return c_skip * x + c_out * h


@dataclass(frozen=True, kw_only=True)
class PointDiffusion:
    """How points are learned: in `steps` of `batch_size` fresh ones.

    Attributes:
        scale: the points' standard deviation.
        hidden, waves, fastest: of `PointDenoiser`.
        levels: of noise, of the standard deviation, as training sees them; sigma_min, sigma_max: as points are drawn.
        ema_decay: of the weights.
    """

    scale: float = 1.0
    steps: int = 3000
    batch_size: int = 512
    hidden: int = 96
    waves: int = 32
    fastest: float = 12.0
    lr: float = 3e-3
    levels: LogNormalLevels = field(default_factory=lambda: LogNormalLevels(mean=-0.8, std=1.5))
    ema_decay: float = 0.995
    sampling: Sampling = field(default_factory=lambda: Sampling(method="dpm_pp_2m", num_steps=30))
    sigma_min: float = 0.005
    sigma_max: float = 40.0

    def fit(self, draw: Draw, *, seed: int) -> Callable[[Tensor], Tensor]:
        """Noise (N, D) to points."""
        generator = torch.Generator().manual_seed(seed)
        dim = draw(1, generator).shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = PointDenoiser(dim=dim, hidden=self.hidden, waves=self.waves, fastest=self.fastest)
        weighting = EDMWeighting()

        def loss(_: Batch) -> Tensor:
            x0 = draw(self.batch_size, generator) / self.scale
            u = torch.rand(len(x0), generator=generator, dtype=torch.float64)
            sigma = self.levels.quantile(u.clamp(1e-6, 1 - 1e-6)).float()
            noisy = x0 + sigma[:, None] * torch.randn(x0.shape, generator=generator)
            return (weighting(sigma, 1.0) * (network(noisy, sigma) - x0).square().mean(dim=1)).mean()

        optimisation = Optimisation(
            epochs=max(1, self.steps // _EPOCH), batch_size=self.batch_size, ema_decay=self.ema_decay
        )
        groups = [{"params": list(network.parameters()), "lr": self.lr}]
        train(network, loss, groups, optimisation, num_samples=_EPOCH * self.batch_size, seed=seed,
              optimiser=torch.optim.Adam)  # fmt: skip
        network.eval().requires_grad_(False)

        def make(noise: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
            sigmas = self.sampling.sigmas(self.sigma_min, self.sigma_max)
            with torch.inference_mode():
                return (self.scale * self.sampling.run(network, sigmas[0].float() * noise, sigmas)).clone()

        return make

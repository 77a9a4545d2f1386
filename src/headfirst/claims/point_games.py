"""Discriminators and generators of points on a line, trained: claim 13's networks.

Shape letters: S seeds, N points, T steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.claims.densities import GAUSSIAN, GRID, Mixture, generated, integral, jsd, log_density_of
from headfirst.generate import discriminator_loss, non_saturating_loss, saturating_loss
from headfirst.nn import random_head

LOSSES: dict[str, Callable[[Tensor], Tensor]] = {"saturating": saturating_loss, "non-saturating": non_saturating_loss}

NUM_NODES, FEW_NODES = 20_000, 1000
"""Quantiles that stand for a density: for what is measured, and for gradients in a loop."""
FAR = 5.0
"""Fakes that are found out: the real density, moved by so many of its standard deviations."""

WIDTH, BATCH, RATE = 32, 256, 5e-3
STEPS, QUICK_STEPS = 2000, 800
"""Of a discriminator alone, to convergence."""
WARMUP, ROUNDS, QUICK_ROUNDS, PER_ROUND = 200, 300, 200, 5
"""Of the game: steps of the discriminator before it begins, steps of the generator, discriminator's steps for each."""
GENERATOR_RATE = 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class Taught:
    """A trained discriminator against the best one.

    Attributes:
        logits: on `GRID`.
        deviation: mean |l - log p/q|, under ½p + ½q.
        excess: its cross-entropy less log 4 - 2 JSD(p, q), in nats; above 0 but for quadrature.
    """

    logits: Tensor
    deviation: float
    excess: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Played:
    """A game of two networks. `path` (T, 2) is θ by round; `before` and `after` are mean |D - ½| under ½p + ½q."""

    path: Tensor
    before: float
    after: float

    @property
    def end(self) -> float:
        """|(μ, log s)|, mean of the last tenth of the rounds; 0 is q = p."""
        return self.path[-max(1, len(self.path) // 10) :].mean(dim=0).norm().item()


class Discriminators(nn.Module):
    """A network of two hidden layers for each seed: points (S, N) to logits (S, N), high for real ones.

    All are computed at once: one alone, this small, takes as long as five.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for i, (inputs, outputs) in enumerate(((1, WIDTH), (WIDTH, WIDTH), (WIDTH, 1))):
            layers = [random_head(inputs, outputs, seed=3 * seed + i) for seed in seeds]
            self.weights.append(nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers])))
            self.biases.append(nn.Parameter(torch.stack([layer.bias.detach()[None] for layer in layers])))

    def forward(self, x: Float[Tensor, "s n"]) -> Float[Tensor, "s n"]:
        h = x.float()[..., None]
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, F.silu(h) if i else h, weight)
        return h[..., 0]


def taught_to_tell(p: Mixture, q: Mixture, *, seeds: Sequence[int], steps: int) -> Discriminators:
    """Discriminators of p and q, trained on fresh draws of both."""
    networks, generator = Discriminators(seeds), torch.Generator().manual_seed(seeds[0])
    optimiser = torch.optim.Adam(networks.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    shape = (len(seeds), BATCH)
    for _ in range(steps):
        _discriminate(networks, optimiser, p.sample(shape, generator), q.sample(shape, generator))
        schedule.step()
    return networks


def _discriminate(networks: nn.Module, optimiser: torch.optim.Optimizer, real: Tensor, fake: Tensor) -> None:
    optimiser.zero_grad()
    (len(real) * discriminator_loss(networks(real), networks(fake))).backward()  # the sum over seeds
    optimiser.step()


def against_best(p: Mixture, q: Mixture, *, seeds: Sequence[int], steps: int) -> list[Taught]:
    """Train discriminators and hold each against log p/q and log 4 - 2 JSD."""
    networks, every = taught_to_tell(p, q, seeds=seeds, steps=steps), (len(seeds), -1)
    log_p, log_q = p.log_density(GRID), q.log_density(GRID)
    with torch.no_grad():
        logits = networks(GRID.expand(every)).double()
        real, fake = (networks(each.nodes(NUM_NODES).expand(every)).double() for each in (p, q))
    best = math.log(4) - 2 * jsd(log_p, log_q).item()
    weight = (log_p.exp() + log_q.exp()) / 2
    return [
        Taught(
            logits=logits[i],
            deviation=integral(weight * (logits[i] - (log_p - log_q)).abs()).item(),
            excess=discriminator_loss(real[i], fake[i]).item() - best,
        )
        for i in range(len(seeds))
    ]


def start_of(seed: int) -> Tensor:
    """(2,) a generator's first θ: |μ| ≤ 1, |log s| ≤ ½."""
    uniform = torch.rand(2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2 * uniform - 1) * torch.tensor([1.0, 0.5])


def game(name: str, *, seeds: Sequence[int], rounds: int) -> list[Played]:
    """Generators and trained discriminators in turn, real points from the Gaussian; all rates fall to zero."""
    networks, generator = Discriminators(seeds), torch.Generator().manual_seed(seeds[0])
    theta = torch.stack([start_of(seed).float() for seed in seeds], dim=1)[..., None].requires_grad_()  # (2, S, 1)
    optimisers = (
        torch.optim.Adam(networks.parameters(), lr=RATE, betas=(0.5, 0.99)),
        torch.optim.Adam([theta], lr=GENERATOR_RATE, betas=(0.5, 0.99)),
    )
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(each, rounds) for each in optimisers]
    shape = (len(seeds), BATCH)

    def off_half() -> list[float]:
        said = networks(GRID.expand(len(seeds), -1)).detach().double().sigmoid()
        log_q = [log_density_of(GAUSSIAN, each, GRID) for each in theta.detach().double()[..., 0].T]
        real = GAUSSIAN.log_density(GRID).exp()
        return [integral((real + q.exp()) / 2 * (d - 0.5).abs()).item() for q, d in zip(log_q, said, strict=True)]

    def discriminate(steps: int) -> None:
        for _ in range(steps):
            fake = generated(theta.detach(), GAUSSIAN.sample(shape, generator))
            _discriminate(networks, optimisers[0], GAUSSIAN.sample(shape, generator), fake)

    discriminate(WARMUP)
    before, path = off_half(), [theta.detach().clone()]
    for _ in range(rounds):
        discriminate(PER_ROUND)
        loss = len(seeds) * LOSSES[name](networks(generated(theta, GAUSSIAN.sample(shape, generator))))
        (theta.grad,) = torch.autograd.grad(loss, theta)
        optimisers[1].step()
        for schedule in schedules:
            schedule.step()
        path.append(theta.detach().clone())
    paths = torch.stack(path)[..., 0]
    return [
        Played(path=paths[:, :, i], before=a, after=b) for i, (a, b) in enumerate(zip(before, off_half(), strict=True))
    ]


def sizes_when_found_out(*, seeds: Sequence[int], steps: int) -> dict[str, list[float]]:
    """|∂ loss / ∂θ| of each loss and seed at a trained discriminator of a Gaussian and the same one `FAR` away."""
    far = Mixture(weights=(1.0,), means=(FAR,), sds=(1.0,))
    networks = taught_to_tell(GAUSSIAN, far, seeds=seeds, steps=steps)
    z = GAUSSIAN.nodes(FEW_NODES).expand(len(seeds), -1)
    theta = torch.tensor([FAR, 0.0], dtype=torch.float64)[:, None, None].repeat(1, len(seeds), 1).requires_grad_()
    return {
        name: (len(seeds) * torch.autograd.grad(loss(networks(generated(theta, z))), theta)[0])
        .norm(dim=0)[:, 0]
        .tolist()
        for name, loss in LOSSES.items()
    }

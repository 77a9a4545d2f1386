"""A grid of 25 Gaussians, on which it can be counted what a generator leaves out.

The centres lie at {-4, -2, 0, 2, 4}², each with standard deviation σ = 0.05 in both directions and 1/25 of the points.

Shape letters: N points.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headfirst.errors import InputError
from headfirst.generate.adversarial_game import NON_SATURATING, Game, Round, Rules, play
from headfirst.generate.collapse import GameReading, collapse_events, game_reading, read_variety
from headfirst.metrics import class_weight_distance, modes_covered
from headfirst.nn.gan_network import PointDiscriminator, PointGenerator
from headfirst.nn.seeds import seeded
from headfirst.randomness import keyed_normal, keyed_uniform
from headfirst.train import Batch, Optimisation
from headfirst.types import Progress, silent

MODES = 25
SIGMA, SPACING = 0.05, 2.0
SPREAD = math.sqrt(8.0)
"""Of all points in each direction: the standard deviation of -4, -2, 0, 2, 4."""
CLOSE = 3.0
"""A point belongs to a mode within so many standard deviations of its centre: 98.9 % of a perfect sampler's do."""
PROBES = 2500
"""Points that are judged: 100 a mode are expected."""
WATCHED = 250
"""Real points that the alarm compares with; of the generated ones it takes twice as many."""
FEWEST = 10
"""Points that make a mode covered, a tenth of its share: points spread evenly over the square put three near each."""

_MODE, _PLACE, _NOISE, _WEIGHTS, _PROBE = 41, 42, 43, 44, 45  # streams of the keyed generator


@dataclass(frozen=True, kw_only=True)
class GridReading:
    """How well points cover the grid; beside each what a perfect sampler gives.

    Attributes:
        modes: with at least `FEWEST` points, of 25.
        share: of the points that lie within 3σ of a centre; 0.989.
        class_weight_distance: total variation between the modes' shares and 1/25 each, points of no mode counted in
            full; 0.045 with 2,500 points.
        spread_ratio: root mean squared distance from the centre within 3σ, over a perfect sampler's; 1. None where no
            point lies there.
    """

    modes: int
    share: float
    class_weight_distance: float
    spread_ratio: float | None


def grid_points(indices: np.ndarray, *, seed: int, epoch: int = 0) -> Float[Tensor, "n 2"]:
    """Points `indices` of a seed and epoch: (N, 2) float32, the same in any company."""
    mode = (keyed_uniform(seed, _MODE, epoch, indices) * MODES).astype(np.int64)
    offsets = keyed_normal(seed, _PLACE, epoch, indices[:, None], np.arange(2))
    return (_centres()[torch.from_numpy(mode)] + SIGMA * torch.from_numpy(offsets)).float()


def grid_mode(points: Float[Tensor, "n 2"]) -> Int[Tensor, " n"]:
    """The mode within 3σ of each point, -1 where there is none."""
    distances = torch.cdist(points.double(), _centres())
    nearest = distances.min(dim=1)
    return torch.where(nearest.values <= CLOSE * SIGMA, nearest.indices, -1)


def read_grid(points: Float[Tensor, "n 2"]) -> GridReading:
    """Judge points.

    Raises:
        InputError: no points, or some are not finite.
    """
    if not len(points) or not points.isfinite().all():
        raise InputError(f"points must be finite and at least one, got {len(points)}")
    modes = grid_mode(points)
    inside = modes >= 0
    offsets = (points.double() - _centres()[modes.clamp(min=0)])[inside]
    tail = math.exp(-(CLOSE**2) / 2)  # of r²/σ², exponential with mean 2, cut at 9
    perfect = (2 - (2 + CLOSE**2) * tail) / (1 - tail)
    return GridReading(
        modes=modes_covered(modes, MODES, least=FEWEST),
        share=inside.double().mean().item(),
        class_weight_distance=class_weight_distance(modes, torch.full((MODES,), 1 / MODES)).total_variation,
        spread_ratio=(offsets.square().sum(dim=1).mean() / perfect).sqrt().item() / SIGMA if inside.any() else None,
    )


DEFAULT = Rules(r1=1.0, r2=1.0, anneal=1e-3, lazy=2, lr=3e-3, ema_decay=0.99)


@dataclass(frozen=True, kw_only=True)
class GridGAN:
    """Two perceptrons that play for the 25-mode grid.

    The default begins with a discriminator that is flat over the distance between modes (γ = 1) and sharpens it
    slowly, against a generator that bends easily. Over seeds 0 to 9 three runs ended with all 25 modes and seven with
    24; 76 to 82 % of the points lie within 3σ of one (a perfect sampler: 98.9 %), their spread is 0.87 to 1.00 of σ
    (`bench/grid25.py`, 70 processor seconds each). `collapsing()` ends on one mode.

    Attributes:
        rules: of the game.
        steps: turns, half of them each player's.
        batch_size: points a turn.
        noise_dim, hidden: of the perceptrons.
        waves: frequencies of the noise that the generator sees; 0 gave modes up (see `PointGenerator`).
        fastest: of the frequencies of the points that the discriminator sees (see `PointDiscriminator`).
    """

    rules: Rules = DEFAULT
    steps: int = 8000
    batch_size: int = 512
    noise_dim: int = 2
    hidden: int = 96
    waves: int = 32
    fastest: float = 32.0

    def fit(
        self, *, seed: int = 0, watch: Callable[[int, Tensor], None] | None = None, progress: Progress = silent
    ) -> GridResult:
        """Play, and judge `PROBES` points at the end; up to 20 times on the way the alarm reads, which knows no modes.

        Args:
            watch: called with the turns done and the (`PROBES`, 2) points as they are then, up to 20 times.

        Raises:
            DivergenceError: a loss or gradient became non-finite.
        """
        every = math.ceil(self.steps / 20)
        readings: list[GameReading] = []
        apart = grid_points(np.arange(WATCHED), seed=seed, epoch=self.steps)  # of no turn
        with seeded(seed, _WEIGHTS):
            generator = PointGenerator(noise_dim=self.noise_dim, hidden=self.hidden, waves=self.waves, scale=SPREAD)
            discriminator = PointDiscriminator(hidden=self.hidden, fastest=self.fastest, scale=SPREAD)
        game, began = Game(generator, discriminator), time.monotonic()

        def rounds(batch: Batch) -> Round:
            noise = keyed_normal(seed, _NOISE, batch.epoch, batch.indices[:, None], np.arange(self.noise_dim))
            real = grid_points(batch.indices, seed=seed, epoch=batch.epoch)
            return Round(real=real, noise=torch.from_numpy(noise).float())

        def points(network: nn.Module, num: int) -> Tensor:
            noise = keyed_normal(seed, _PROBE, np.arange(num)[:, None], np.arange(self.noise_dim))
            with torch.inference_mode():
                return network(torch.from_numpy(noise).float())

        def told(done: int, _: object) -> bool:
            if done % every:
                return False
            now = points(game.average, PROBES)
            with torch.inference_mode():
                logits = game.discriminator(apart), game.discriminator(points(game.generator, WATCHED))
            variety = read_variety(apart, now[: 2 * WATCHED])
            readings.append(game_reading(done, *logits, variety, compares=self.rules.losses.compares))
            if watch is not None:
                watch(done, now)
            return False

        play(
            game,
            rounds,
            self.rules,
            Optimisation(epochs=self.steps, batch_size=self.batch_size, warmup=0.0, clip_norm=None),
            num_samples=self.batch_size,  # an epoch is a turn: points are drawn anew in each
            seed=seed,
            callbacks=[told],
            progress=progress,
        )
        averaged = game.average.eval()
        assert isinstance(averaged, PointGenerator)
        return GridResult(
            generator=averaged,
            reading=read_grid(points(averaged, PROBES)),
            readings=tuple(readings),
            events=tuple(collapse_events(readings, self.steps)),
            seconds=time.monotonic() - began,
            recipe=repr(self),
        )

    @classmethod
    def collapsing(cls) -> GridGAN:
        """The same players without penalties, under the non-saturating loss, which settles on few modes."""
        return cls(rules=Rules(losses=NON_SATURATING, lr=3e-3, ema_decay=0.99))


@dataclass(frozen=True, kw_only=True, eq=False)
class GridResult:
    """The averaged generator, what it covers, what the alarm read and said on the way (epochs are turns), seconds."""

    generator: PointGenerator
    reading: GridReading
    readings: tuple[GameReading, ...]
    events: tuple[str, ...]
    seconds: float
    recipe: str


@functools.cache
def _centres() -> Float[Tensor, "25 2"]:
    places = SPACING * (torch.arange(5, dtype=torch.float64) - 2)
    return torch.cartesian_prod(places, places)

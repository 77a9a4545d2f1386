"""Does a generator repeat its training images? Asked of images it trained on and of others it never saw.

Shape letters: G generated, N training and M held-out images, D features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import gammaln, ndtr
from torch import Tensor

from headfirst.errors import InputError
from headfirst.metrics.detection import auroc
from headfirst.metrics.neighbours import TIE, in_one_frame, nearest_of, nearest_two

NUM_DRAWS = 9999
"""Exchanges of training and held-out images behind a p-value, which is then at least 1e-4."""

_ENTRIES_AT_ONCE = 4_000_000  # of the keys that order them: 32 MB


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """Whether generated images lie nearer to training images than to held-out ones.

    Attributes:
        share: of the generated images whose nearest real one is a training image, in [0, 1]; a tie of two counts half.
        expected: that share where nothing is memorised: N / (N + M).
        z: how many standard deviations the evidence lies above what is expected; 0 where it can have none.
        p_value: chance of such evidence or stronger if training and held-out images were exchanged at random.
        least_p_value: the chance of the strongest evidence there could be; above the level, no answer is possible.
        verdict: "memorised" (p at most the level), "no sign of it", or "too few to tell".
    """

    share: float
    expected: float
    z: float
    p_value: float
    least_p_value: float
    verdict: Literal["memorised", "no sign of it", "too few to tell"]


def memorisation_test(
    generated: Float[Tensor, "g d"],
    training: Float[Tensor, "n e"],
    held_out: Float[Tensor, "m f"],
    *,
    seed: int,
    significance: float = 0.05,
) -> Memorisation:
    """Distance to the nearest training image against distance to the nearest held-out one, for generated images.

    A generator that learnt the distribution and not the images cannot know which real images it was trained on: given
    what it made, training and held-out images are exchangeable, whatever it made (blurred, collapsed or perfect). The
    evidence is the sum of 1 - d₁ / d₂ over the generated images whose nearest real image is a training image, where d₁
    and d₂ are the distances to the nearest and to the second nearest real image of either kind: a copy counts 1, an
    image that merely lies closer to one than to another next to nothing. The p-value is that of exchanging training and
    held-out images at random; it needs no independence of the generated images and no distances computed again.

    Args:
        generated: (G, D), at least one.
        training: (N, D) what the generator was trained on, at least one.
        held_out: (M, D) of the same source, never shown to it, at least one; without copies of training images.
        seed: of the exchanges.
        significance: in (0, 1), the share of false alarms that is accepted.

    Raises:
        InputError: a side without images, other lengths, features that are not finite, a significance outside (0, 1).

    Source: the question of Meehan, Chaudhuri and Dasgupta, AISTATS 2020 (`data_copying_score`), as a permutation test
    (Fisher) on whose neighbour each generated image is, so that sharp or poor generators raise no alarm by themselves.

    >>> training, held_out = torch.arange(20.0)[:, None], torch.arange(20.0)[:, None] + 0.5
    >>> memorisation_test(training + 0.01, training, held_out, seed=0).verdict
    'memorised'
    >>> memorisation_test(training + 0.01, training[:9], held_out[:1], seed=0).verdict
    'too few to tell'
    """
    if not 0 < significance < 1:
        raise InputError(f"significance must lie strictly between 0 and 1, got {significance}; 0.05 is usual")
    g, both = _framed(generated, training, held_out)
    n, m = len(training), len(held_out)
    nearest, second = nearest_two(g, both)
    nearer = 1 - (nearest.squared / second.squared.clamp(min=1e-300)).sqrt()
    weights = torch.where(nearest.squared >= second.squared * (1 - TIE), 0.0, nearer)
    votes = torch.zeros(n + m, dtype=torch.float64).index_add_(0, nearest.indices, weights)

    won, expected = votes[:n].sum().item(), n / (n + m)
    p_value = (1 + int((_exchanged(votes, n, seed) >= won * (1 - 1e-12)).sum())) / (NUM_DRAWS + 1)
    variance = n * m / (n + m - 1) * votes.var(correction=0).item()
    least = _chance_of_all(int((votes > 0).sum()), n, m)
    answer = "memorised" if p_value <= significance else "no sign of it"
    return Memorisation(
        share=torch.where(weights > 0, nearest.indices < n, 0.5).mean().item(),
        expected=expected,
        z=(won - votes.sum().item() * expected) / math.sqrt(variance) if variance > 0 else 0.0,
        p_value=p_value,
        least_p_value=least,
        verdict="too few to tell" if least > significance else answer,
    )


@dataclass(frozen=True, kw_only=True)
class DataCopying:
    """Are generated images nearer to the training images than held-out ones are?

    Attributes:
        z: below 0, they are nearer (copying, or too little variety); above 0, further (underfitting).
        p_value: one-sided, of a z so low or lower where generated and held-out images are of one distribution.
    """

    z: float
    p_value: float


def data_copying_score(
    generated: Float[Tensor, "g d"], training: Float[Tensor, "n e"], held_out: Float[Tensor, "m f"]
) -> DataCopying:
    """Mann and Whitney's U of distances to the nearest training image, of generated against held-out images, as a z.

    A low z is no proof of copying: images of little variety, in the midst of the data, are near to training images too.
    `memorisation_test` tells the two apart. The normal approximation wants some twenty images a side.

    Args:
        generated: (G, D), at least one.
        training: (N, D), at least one.
        held_out: (M, D), at least one.

    Raises:
        InputError: a side without images, other lengths, features that are not finite.

    Source: Meehan, Chaudhuri and Dasgupta, AISTATS 2020, section 3, without cells; equal distances count half.

    >>> training = torch.arange(30.0)[:, None]
    >>> data_copying_score(training + 0.01, training, training + 0.3).z < -5
    True
    """
    g, both = _framed(generated, training, held_out)
    n = len(training)
    of_generated, of_held_out = nearest_of(g, both[:n]).squared, nearest_of(both[n:], both[:n]).squared
    G, M = len(of_generated), len(of_held_out)
    ties = torch.cat([of_generated, of_held_out]).unique(return_counts=True)[1].double()
    variance = G * M / 12 * (G + M + 1 - (ties.pow(3) - ties).sum().item() / ((G + M) * max(G + M - 1, 1)))
    z = (auroc(of_generated, of_held_out) - 0.5) * G * M / math.sqrt(variance) if variance > 0 else 0.0
    return DataCopying(z=z, p_value=float(ndtr(z)))


def _framed(generated: Tensor, training: Tensor, held_out: Tensor) -> tuple[Tensor, Tensor]:
    """Generated images, and training with held-out ones below them, in one frame."""
    in_one_frame(generated, training)
    in_one_frame(generated, held_out)
    both, g, _ = in_one_frame(torch.cat([training.cpu().double(), held_out.cpu().double()]), generated.cpu().double())
    return g, both


def _exchanged(votes: Float[Tensor, " r"], n: int, seed: int) -> Float[Tensor, " b"]:
    """(NUM_DRAWS,) sums of the votes of n real images drawn without replacement."""
    random, sums = np.random.default_rng((seed, n, len(votes))), []
    at_once = max(1, _ENTRIES_AT_ONCE // len(votes))
    for start in range(0, NUM_DRAWS, at_once):
        keys = random.random((min(at_once, NUM_DRAWS - start), len(votes)))
        drawn = keys <= np.partition(keys, n - 1, axis=1)[:, n - 1 : n]
        sums.append(torch.from_numpy(drawn).double() @ votes)
    return torch.cat(sums)


def _chance_of_all(hit: int, n: int, m: int) -> float:
    """That no held-out image is among the `hit` nearest ones: C(n + m - hit, m) / C(n + m, m)."""
    rest = n + m - min(hit, n)  # of more than n some are left out, and the chance is 1 in C(n + m, n)
    log_chance = gammaln(rest + 1) - gammaln(rest - m + 1) - gammaln(n + m + 1) + gammaln(n + 1)
    return float(min(math.exp(log_chance), 1.0))

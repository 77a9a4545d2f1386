"""How far a measured mean may be from the true one: bootstrap over images, spread over seeds.

`samples[s, i]` is what seed s scored on image i. The estimate is the mean over both; images are resampled,
the same resample for all seeds; with two seeds or more, t_{S-1} · sd / √S noise is added to each draw; the
interval is the central `level` of the draws, clipped to the metric's range.

No interval has zero width. Where all N images scored the same c, resampling cannot show how they might
differ, and an exact bound takes over (`constant_interval`): at most a share u of all images departs from c,
u being the Clopper-Pearson bound of 0 in N, and none departs further than the metric's range. At an accuracy
of 1 or 0 this is the Clopper-Pearson interval itself; for two methods that agree on every image it is ± u.
A metric without a range then has the whole line for its interval.

Known limit: the percentile bootstrap is too narrow where few images depart from the rest (fewer than about
ten, say 3 errors in 300); the exact bound begins only where none does.

Shape letters: N images, S training seeds.
Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; Clopper and Pearson,
Biometrika 1934.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.special import betaincinv
from torch import Tensor

from headfirst.errors import InputError
from headfirst.metrics.checks import as_float64
from headfirst.metrics.resampling import NUM_DRAWS, check_level, mean_draws, percentile_range, seed_noise

REAL_LINE = (-math.inf, math.inf)
UNIT = (0.0, 1.0)


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it: low ≤ value ≤ high, low < high."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    samples: Float[Tensor, "s n"] | Bool[Tensor, "s n"],
    *,
    seed: int,
    bounds: tuple[float, float] = REAL_LINE,
    level: float = 0.95,
    num_draws: int = NUM_DRAWS,
) -> Interval:
    """Interval of a mean over images and seeds.

    Args:
        samples: (S, N), one value for each seed and image; for an accuracy 1 where right.
        seed: of the resampling; the same seed gives the same interval.
        bounds: least and greatest value one sample can take, (0, 1) for an accuracy.
        level: probability, in (0, 1), with which the interval aims to cover the truth.

    Raises:
        InputError: no images, no seeds, samples that are not finite, a level outside (0, 1).

    >>> found = bootstrap_interval(torch.tensor([[0.0, 1.0, 1.0, 1.0]]), seed=0, bounds=(0.0, 1.0))
    >>> found
    Interval(value=0.75, low=0.25, high=1.0)
    """
    return mean_over_splits([samples], seed=seed, bounds=bounds, level=level, num_draws=num_draws)


def mean_over_splits(
    samples: Sequence[Tensor],
    *,
    seed: int,
    bounds: tuple[float, float] = REAL_LINE,
    level: float = 0.95,
    num_draws: int = NUM_DRAWS,
) -> Interval:
    """Interval of the mean over splits of each split's mean, all splits counting alike.

    Images are resampled within their split; a seed's spread is that of its own mean over the splits.

    Args:
        samples: for each split (S, N_split), the same seeds in the same order.
        seed: of the resampling.
        bounds: of the mean.
        level: in (0, 1).
    """
    blocks = [_checked(block) for block in samples]
    if not blocks or len({len(block) for block in blocks}) > 1:
        raise InputError(
            f"a mean over splits needs at least one split and the same seeds in each, "
            f"got {len(blocks)} splits with {[len(block) for block in blocks]} seeds"
        )
    per_seed = torch.stack([block.mean(dim=1) for block in blocks]).mean(dim=0)
    value = per_seed.mean().item()
    draws = seed_noise(per_seed, seed=seed, num_draws=num_draws)
    for index, block in enumerate(blocks):  # independent splits, independent resamples
        draws = draws + mean_draws(block, seed=seed + index, num_draws=num_draws) / len(blocks)
    found = percentile_range(draws, level)
    if found is None:
        constants = [block.mean().item() for block in blocks]
        return constant_interval(constants, [block.shape[1] for block in blocks], bounds=bounds, level=level)
    return within(value, *found, bounds)


def paired_difference(
    a: Float[Tensor, "s n"] | Bool[Tensor, "s n"],
    b: Float[Tensor, "t n"] | Bool[Tensor, "t n"],
    *,
    seed: int,
    level: float = 0.95,
    num_draws: int = NUM_DRAWS,
) -> Interval:
    """Interval of accuracy(a) - accuracy(b), in [-1, 1], paired over images and seeds.

    Args:
        a: (S, N), 1 where right; row s of either side was trained with the same seed. One row (a method without
            randomness) stands beside every row of the other side.
        b: the same images in the same order.

    >>> both = torch.ones(1, 100, dtype=torch.bool)
    >>> round(paired_difference(both, both, seed=0).high, 6)                   # 1 - 0.025 ** (1 / 100)
    0.036217
    """
    difference = paired_samples(a, b)
    return bootstrap_interval(difference, seed=seed, bounds=(-1.0, 1.0), level=level, num_draws=num_draws)


def paired_samples(
    a: Float[Tensor, "s n"] | Bool[Tensor, "s n"], b: Float[Tensor, "t n"] | Bool[Tensor, "t n"]
) -> Float[Tensor, "_ n"]:
    """a - b, float64, row by row; a single row stands beside every row of the other side."""
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        raise InputError(
            f"a paired difference needs the same seeds on both sides, or one seed on either, got {len(a)} and {len(b)}"
        )
    return a.double() - b.double()


def binomial_interval(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Clopper-Pearson: the exact interval of a proportion, from `successes` in `n` independent trials.

    Raises:
        InputError: unless 0 ≤ successes ≤ n and n ≥ 1.

    >>> round(binomial_interval(0, 10).high, 6)                                # 1 - 0.025 ** (1 / 10)
    0.308497
    """
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"need 0 ≤ successes ≤ n and n ≥ 1, got successes={successes}, n={n}")
    check_level(level)
    tail = (1 - level) / 2
    low = betaincinv(successes, n - successes + 1, tail) if successes else 0.0
    high = betaincinv(successes + 1, n - successes, 1 - tail) if successes < n else 1.0
    return Interval(successes / n, float(low), float(high))


def constant_interval(
    constants: Sequence[float], sizes: Sequence[int], *, bounds: tuple[float, float], level: float = 0.95
) -> Interval:
    """Interval of the mean of `constants`, where all `sizes[g]` images of group g scored `constants[g]`.

    With G groups and p_g the share of group g's images that depart from its constant, no departure seen
    has probability Π (1 - p_g)^n_g ≤ (1 - mean p)^(G min n), so mean p is at most u, the Clopper-Pearson
    bound of 0 in G min n trials; a departure moves a score to `bounds` at the furthest.

    >>> round(constant_interval([1.0], [10], bounds=(0.0, 1.0)).low, 6)               # 0.025 ** (1 / 10)
    0.691503
    """
    value = sum(constants) / len(constants)
    u = binomial_interval(0, len(sizes) * min(sizes), level=level).high
    low, high = value - u * (max(constants) - bounds[0]), value + u * (bounds[1] - min(constants))
    return within(value, low, high, bounds)


def within(value: float, low: float, high: float, bounds: tuple[float, float]) -> Interval:
    """The interval clipped to `bounds`, and widened to hold its own value."""
    # A statistic that is biased, or of very few images, can lie outside its own bootstrap.
    return Interval(value, max(min(low, value), bounds[0]), min(max(high, value), bounds[1]))


def _checked(samples: Tensor) -> Float[Tensor, "s n"]:
    if samples.ndim != 2 or 0 in samples.shape:
        raise InputError(
            f"an interval needs samples of shape (seeds, images), at least one of each, got {tuple(samples.shape)}"
        )
    if not samples.isfinite().all():
        raise InputError("an interval needs finite samples, got NaN or infinity; did training diverge?")
    return as_float64(samples.double())

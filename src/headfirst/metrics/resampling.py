"""The bootstrap: images resampled with replacement, seeds kept, the spread over seeds added.

A resample is written as weights: how often each image was drawn. Means over resamples are then matrix
products, and the same resample serves all seeds, all metrics and both sides of a paired difference.

Shape letters: N images, S training seeds, B bootstrap draws, M statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import stdtrit
from torch import Tensor

from headfirst.errors import InputError

NUM_DRAWS = 2000
"""Bootstrap draws behind each interval: the 2.5 % quantile then rests on 50 draws."""

Statistic = Callable[[Tensor], Tensor]
"""From weights (b, N) float64, each row summing to N, to (b, M) values of M statistics."""

_ENTRIES_AT_ONCE = 4_000_000  # of the weight matrix: 32 MB in float64


def resampling_weights(num_images: int, *, seed: int, num_draws: int) -> Iterator[Float[Tensor, "b n"]]:
    """Multinomial counts of `num_draws` resamples, (B, N) float64, in blocks of rows that fit in memory.

    >>> torch.cat(list(resampling_weights(3, seed=0, num_draws=4))).sum(dim=1)
    tensor([3., 3., 3., 3.], dtype=torch.float64)
    """
    if num_images < 1:
        raise InputError("an interval needs at least one image, got none; is the split empty?")
    if num_draws < 1:
        raise InputError(f"num_draws must be at least 1, got {num_draws}")
    rows_at_once = max(1, _ENTRIES_AT_ONCE // num_images)
    for start in range(0, num_draws, rows_at_once):
        yield _counts(num_images, min(rows_at_once, num_draws - start), seed, start).double()


# Every metric of every method on a split asks for the same blocks.
@lru_cache(maxsize=8)
def _counts(num_images: int, rows: int, seed: int, start: int) -> Int[Tensor, "b n"]:
    random = np.random.default_rng((seed, num_images, start))
    drawn = random.integers(num_images, size=(rows, num_images), dtype=np.int32)
    drawn += num_images * np.arange(rows, dtype=np.int32)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=rows * num_images)
    return torch.from_numpy(counts.reshape(rows, num_images).astype(np.int16))


def bootstrap_draws(statistic: Statistic, num_images: int, *, seed: int, num_draws: int) -> Float[Tensor, "b m"]:
    """The statistics of `num_draws` resamples of the images, (B, M) float64."""
    blocks = resampling_weights(num_images, seed=seed, num_draws=num_draws)
    return torch.cat([statistic(weights) for weights in blocks])


def mean_draws(samples: Float[Tensor, "s n"], *, seed: int, num_draws: int) -> Float[Tensor, " b"]:
    """The mean over images and seeds in each resample, (B,) float64."""
    per_image = samples.double().mean(dim=0, keepdim=True).T / samples.shape[1]
    return bootstrap_draws(lambda weights: weights @ per_image, len(per_image), seed=seed, num_draws=num_draws)[:, 0]


def seed_noise(per_seed: Float[Tensor, " s"], *, seed: int, num_draws: int) -> Float[Tensor, " b"]:
    """What another set of S seeds might have given: t_{S-1} · sd / √S for each draw; 0 for one seed.

    The quantiles of t are spread evenly over the draws and shuffled, so that the heavy tails of a few
    seeds (t_1 is Cauchy) add no noise of their own.
    """
    s = len(per_seed)
    # Rounding in the mean of equal values would leave an sd near 1e-17: equal seeds have no spread.
    if s < 2 or bool((per_seed == per_seed[0]).all()):
        return torch.zeros(num_draws, dtype=torch.float64)
    t = stdtrit(s - 1, (np.arange(num_draws) + 0.5) / num_draws)
    # A stream of its own, beside the one that draws the images.
    shuffled = np.random.default_rng((seed, s)).permutation(t)
    return torch.from_numpy(shuffled) * per_seed.double().std(correction=1) / s**0.5


def percentile_range(draws: Float[Tensor, " b"], level: float) -> tuple[float, float] | None:
    """The central `level` of the draws; None where it has no width."""
    check_level(level)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.quantile(draws, tails).tolist()
    # Weighted sums of equal numbers differ by rounding; that is no width.
    return (low, high) if high - low > 1e-12 * max(1.0, abs(low), abs(high)) else None


def check_level(level: float) -> None:
    """Refuse a level that is no probability between 0 and 1."""
    if not 0 < level < 1:
        raise InputError(f"level must lie strictly between 0 and 1, got {level}; 0.95 is usual")

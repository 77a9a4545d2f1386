"""Intervals of what is no mean over images: balanced accuracy and calibration error.

Shape letters: N images, S training seeds, K classes, B bins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headfirst.metrics.calibration import bin_of, mean_within_ties
from headfirst.metrics.checks import as_float64
from headfirst.metrics.intervals import (
    REAL_LINE,
    UNIT,
    Interval,
    binomial_interval,
    constant_interval,
    within,
)
from headfirst.metrics.resampling import NUM_DRAWS, bootstrap_draws, check_level, percentile_range, seed_noise


def bootstrap_statistic(
    statistic: Callable[[Tensor], Tensor],
    per_seed: Float[Tensor, " s"],
    num_images: int,
    *,
    seed: int,
    bounds: tuple[float, float] = REAL_LINE,
    level: float = 0.95,
    num_draws: int = NUM_DRAWS,
) -> Interval:
    """Percentile bootstrap of any statistic of the images.

    Where the draws have no width the interval is `bounds`: nothing is known of the spread of a statistic
    in general.

    Args:
        statistic: from weights (b, N) float64, how often each image was drawn, to (b,) values averaged
            over seeds.
        per_seed: (S,) the statistic of each seed on the images as they are; the value is their mean.
        num_images: N.
        seed: as in `bootstrap_interval`.
        bounds: of the statistic.
        level: in (0, 1).

    >>> x = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    >>> def root_mean_square(weights):
    ...     return (weights @ x.square() / 4).sqrt()
    >>> found = bootstrap_statistic(root_mean_square, root_mean_square(torch.ones(1, 4).double()), 4, seed=0)
    >>> found.low < found.value < found.high
    True
    """
    per_seed = as_float64(per_seed)
    draws = bootstrap_draws(lambda w: statistic(w)[:, None], num_images, seed=seed, num_draws=num_draws)[:, 0]
    draws = draws + seed_noise(per_seed, seed=seed, num_draws=num_draws)
    found = percentile_range(draws, level) or bounds
    return within(per_seed.mean().item(), *found, bounds)


def balanced_accuracy_interval(
    correct: Float[Tensor, "s n"] | Bool[Tensor, "s n"],
    labels: Int[Tensor, " n"],
    *,
    seed: int,
    level: float = 0.95,
    num_draws: int = NUM_DRAWS,
) -> Interval:
    """Interval of the mean of the class accuracies; a resample that lost a class averages over the others.

    >>> always = torch.ones(1, 20, dtype=torch.bool)
    >>> round(balanced_accuracy_interval(always, torch.arange(20) % 2, seed=0).low, 6)   # 0.025 ** (1 / 20)
    0.831567
    """
    classes = labels.cpu().unique()
    member = (labels.cpu()[:, None] == classes).double()
    correct = as_float64(correct.double())
    per_class = correct @ member / member.sum(dim=0)
    hits = correct.mean(dim=0)[:, None] * member

    def statistic(weights: Tensor) -> Tensor:
        return (weights @ hits / (weights @ member)).nanmean(dim=1)

    n = len(labels)
    found = bootstrap_statistic(statistic, per_class.mean(dim=1), n, seed=seed, level=level, num_draws=num_draws)
    if found.high == float("inf"):
        constants, sizes = per_class.mean(dim=0).tolist(), member.sum(dim=0).int().tolist()
        return constant_interval(constants, sizes, bounds=UNIT, level=level)
    return within(found.value, found.low, found.high, UNIT)


def calibration_error_interval(
    confidence: Float[Tensor, "s n"],
    correct: Float[Tensor, "s n"] | Bool[Tensor, "s n"],
    *,
    binning: Literal["width", "mass"],
    num_bins: int = 15,
    seed: int,
    level: float = 0.95,
    num_draws: int = NUM_DRAWS,
) -> Interval:
    """Interval of the expected calibration error (l1) of the top label, within [0, 1].

    The error is a norm of the bins' gaps g, and norms of noisy gaps lie above the norm of the true ones:
    the percentiles of the resampled error would sit above the estimate, often beside it. By the triangle
    inequality | ‖ĝ‖ - ‖g‖ | ≤ ‖ĝ - g‖, whose distribution the bootstrap gives as that of ‖g* - ĝ‖. The
    interval is the estimate ± the `level` quantile of that: never too narrow for it, 0 inside where the
    model is calibrated, wide where images are few. Bins are those of the images as they are.

    Args:
        confidence: (S, N) probability of the predicted class.
        correct: (S, N) 1 where right.
    """
    check_level(level)
    confidence, correct = as_float64(confidence), as_float64(correct.double())
    n = confidence.shape[1]
    gaps = torch.stack(
        [_gap_of_image(c, r, num_bins, binning) for c, r in zip(confidence, correct, strict=True)]
    )  # (S, N, B), whose sum over images is a seed's g
    s, _, b = gaps.shape
    columns = gaps.permute(1, 0, 2).reshape(n, s * b)
    per_seed = gaps.sum(dim=1).abs().sum(dim=1)
    value = per_seed.mean().item()

    def distance(weights: Tensor) -> Tensor:
        moved = ((weights - 1) @ columns).reshape(-1, s, b)
        return moved.abs().sum(dim=2).mean(dim=1, keepdim=True)

    draws = bootstrap_draws(distance, n, seed=seed, num_draws=num_draws)[:, 0]
    draws = draws + seed_noise(per_seed, seed=seed, num_draws=num_draws).abs()
    half = torch.quantile(draws, level).item()
    if half <= 1e-12:
        # One gap for every image: a share u may depart from it, by the range of a gap, 2.
        half = 2 * binomial_interval(0, n, level=level).high
    return within(value, value - half, value + half, UNIT)


def _gap_of_image(
    confidence: Float[Tensor, " n"],
    correct: Float[Tensor, " n"],
    num_bins: int,
    binning: Literal["width", "mass"],
) -> Float[Tensor, "n b"]:
    bins = bin_of(confidence, num_bins, binning)
    gap = (mean_within_ties(confidence, correct) - confidence) / len(bins)
    return gap[:, None] * (bins[:, None] == torch.arange(num_bins)).double()

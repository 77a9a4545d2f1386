"""Intervals of several paired differences that hold together, for choosing among them.

Each difference has its bootstrap over images and spread over seeds as in `paired_difference`, on the same resamples, so
that what the differences have in common is seen. Each interval is the estimate ± c · w, where w is the `level` quantile
of its own departures and c that of the largest departure among all, in units of w: 1 where the differences are one and
the same, and never more than is needed for ones that have nothing in common.

Shape letters: R differences, S training seeds, N images.
Source: the max-t correction (Westfall and Young, Resampling-Based Multiple Testing, 1993, section 2.3), with quantiles
in the place of standard errors, which the few seeds' t does not have.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headfirst.errors import InputError
from headfirst.metrics.intervals import Interval, constant_interval, paired_samples, within
from headfirst.metrics.resampling import NUM_DRAWS, check_level, mean_draws, seed_noise


def simultaneous_differences(
    several: Sequence[Tensor],
    baseline: Float[Tensor, "t m"] | Bool[Tensor, "t m"],
    *,
    seed: int,
    level: float = 0.95,
    num_draws: int = NUM_DRAWS,
) -> tuple[Interval, ...]:
    """Interval of accuracy - accuracy of the baseline for each, in [-1, 1]; all hold together with `level`.

    A difference that is the same for every image has an exact interval (`constant_interval`), of level
    1 - (1 - level) / R.

    Args:
        several: R times (S, N), 1 where right; row s of each was trained with the same seed.
        baseline: the same seeds and images.
        seed: of the resampling.
        level: in (0, 1).

    Raises:
        InputError: nothing to compare; other images or seeds than the baseline's.

    >>> right, wrong = torch.ones(1, 4), torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    >>> [found.value for found in simultaneous_differences([right, wrong], wrong, seed=0)]
    [0.5, 0.0]
    """
    check_level(level)
    if not several or any(one.shape != several[0].shape for one in (*several, baseline)) or 0 in baseline.shape:
        raise InputError(
            f"differences need the same seeds and images as the baseline, at least one of each, got "
            f"{[tuple(one.shape) for one in several]} and {tuple(baseline.shape)}"
        )
    d = torch.stack([paired_samples(one, baseline) for one in several])
    values = d.mean(dim=(1, 2))
    draws = torch.stack(
        [mean_draws(x, seed=seed, num_draws=num_draws) + seed_noise(x.mean(dim=1), seed=seed, num_draws=num_draws)
         for x in d]
    )  # fmt: skip
    departures = (draws - values[:, None]).abs()
    w = torch.quantile(departures, level, dim=1)
    moving = w > 1e-12
    largest = (departures[moving] / w[moving][:, None]).amax(dim=0) if bool(moving.any()) else torch.ones(1)
    c = torch.quantile(largest.double(), level).item()
    each = 1 - (1 - level) / len(several)
    return tuple(
        within(value, value - c * half, value + c * half, (-1.0, 1.0))
        if half > 1e-12
        else constant_interval([value], [d.shape[2]], bounds=(-1.0, 1.0), level=each)
        for value, half in zip(values.tolist(), w.tolist(), strict=True)
    )

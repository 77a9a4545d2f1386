"""Intervals where two things besides the images were drawn: what was trained, and which labels a probe then saw.

`samples[p, s, i]` is what pre-training p, with the s-th draw of labelled images, scored on image i. The estimate is the
mean over all three. To each draw of the image bootstrap is added t_{P-1} · sd_P / √P, from the means of the
pre-trainings, and t_{S-1} · sd_S / √S, from the means of the label draws: rows that share a pre-training are no
independent runs, and counting them as P·S would make the interval too narrow. What the two have in common is counted
in both, so the interval errs on the wide side. One pre-training, or one draw, adds nothing of its own: its interval
speaks of that one alone.

Shape letters: P, Q pre-trainings, S draws of labelled images, N images.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from headfirst.errors import InputError
from headfirst.metrics.intervals import Interval, constant_interval, within
from headfirst.metrics.resampling import NUM_DRAWS, mean_draws, percentile_range, seed_noise


def crossed_interval(
    samples: Float[Tensor, "p s n"] | Bool[Tensor, "p s n"],
    *,
    seed: int,
    bounds: tuple[float, float] = (0.0, 1.0),
    level: float = 0.95,
    num_draws: int = NUM_DRAWS,
) -> Interval:
    """Interval of the mean over pre-trainings, label draws and images; an accuracy's by default.

    Args:
        samples: (P, S, N), 1 where right.
        seed: of the resampling.
        bounds: least and greatest value of one sample.
        level: in (0, 1).

    Raises:
        InputError: no images, no draws, no pre-training, samples that are not finite.

    >>> crossed_interval(torch.tensor([[[0.0, 1.0, 1.0, 1.0]]]), seed=0)
    Interval(value=0.75, low=0.25, high=1.0)
    """
    x = _checked(samples)
    noise = seed_noise(x.mean(dim=(1, 2)), seed=seed + 1, num_draws=num_draws)
    return _interval(x.mean(dim=0), noise, seed=seed, bounds=bounds, level=level, num_draws=num_draws)


def crossed_difference(
    a: Float[Tensor, "p s n"] | Bool[Tensor, "p s n"],
    b: Float[Tensor, "q t m"] | Bool[Tensor, "q t m"],
    *,
    seed: int,
    level: float = 0.95,
    num_draws: int = NUM_DRAWS,
) -> Interval:
    """Interval of accuracy(a) - accuracy(b), in [-1, 1], paired over images and label draws.

    The pre-trainings of the two sides are no pairs: each side adds the spread of its own.

    Args:
        a: (P, S, N), 1 where right.
        b: (Q, S, N), with the same draws and images in the same order.

    >>> both = torch.ones(1, 1, 100, dtype=torch.bool)
    >>> round(crossed_difference(both, both, seed=0).high, 6)                  # 1 - 0.025 ** (1 / 100)
    0.036217
    """
    x, y = _checked(a), _checked(b)
    if x.shape[1:] != y.shape[1:]:
        raise InputError(
            "a paired difference needs the same label draws and images on both sides, "
            f"got {tuple(x.shape[1:])} and {tuple(y.shape[1:])}"
        )
    noise = seed_noise(x.mean(dim=(1, 2)), seed=seed + 1, num_draws=num_draws)
    noise = noise - seed_noise(y.mean(dim=(1, 2)), seed=seed + 2, num_draws=num_draws)
    paired = x.mean(dim=0) - y.mean(dim=0)
    return _interval(paired, noise, seed=seed, bounds=(-1.0, 1.0), level=level, num_draws=num_draws)


def _interval(
    by_draw: Float[Tensor, "s n"],
    noise: Float[Tensor, " b"],
    *,
    seed: int,
    bounds: tuple[float, float],
    level: float,
    num_draws: int,
) -> Interval:
    value = by_draw.mean().item()
    draws = noise + mean_draws(by_draw, seed=seed, num_draws=num_draws)
    draws = draws + seed_noise(by_draw.mean(dim=1), seed=seed, num_draws=num_draws)
    found = percentile_range(draws, level)
    if found is None:
        return constant_interval([value], [by_draw.shape[1]], bounds=bounds, level=level)
    return within(value, *found, bounds)


def _checked(samples: Tensor) -> Float[Tensor, "p s n"]:
    if samples.ndim != 3 or 0 in samples.shape:
        raise InputError(
            "an interval needs samples of shape (pre-trainings, label draws, images), at least one of each, "
            f"got {tuple(samples.shape)}"
        )
    if not samples.double().isfinite().all():
        raise InputError("an interval needs finite samples, got NaN or infinity; did training diverge?")
    return samples.double().cpu()

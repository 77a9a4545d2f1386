"""What is shared by distances between two sets of features: the result, its interval, what is refused.

Shape letters: N and M images, D features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from scipy.special import ndtri
from torch import Tensor

from headfirst.errors import InputError
from headfirst.metrics.checks import as_float64, check_features


@dataclass(frozen=True, kw_only=True)
class Distance:
    """A squared distance between two distributions, told from a sample of each; 0 where they are the same.

    Attributes:
        value: the estimate as the literature reports it.
        corrected: the estimate without the bias that few images bring; below 0 at times where the two are alike.
        low, high: interval of the true distance, 0 ≤ low ≤ high, around `corrected` or, if that is below 0, around 0.
    """

    value: float
    corrected: float
    low: float
    high: float


def with_interval(value: float, corrected: float, first: float, second: float, level: float) -> Distance:
    """The estimate ± the normal quantile times √max(first, second), cut off at 0.

    `first` is the variance by the influence of each image, `second` what pairs of images add. Near a distance of 0 the
    influence vanishes and the pairs decide; `first`, being estimated, holds twice `second` besides its own, so that the
    interval is too wide there rather than too narrow.

    Source: Efron and Stein, Annals of Statistics 1981 (a variance by influence is biased upwards).
    """
    half = float(ndtri((1 + level) / 2)) * math.sqrt(max(first, second, 0.0))
    truth = max(corrected, 0.0)
    return Distance(value=value, corrected=corrected, low=max(truth - half, 0.0), high=truth + half)


def check_pair(a: Float[Tensor, "n d"], b: Float[Tensor, "m e"], *, limit: float, least: int = 2) -> None:
    """Refuse fewer than `least` rows a side, features of other lengths, not finite or beyond `limit`."""
    for features in (a, b):
        check_features(features)
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"both sides need features of one length, got {a.shape[1]} and {b.shape[1]}; take one backbone"
        )
    if min(len(a), len(b)) < least:
        raise InputError(f"need at least {least} images on either side, got {len(a)} and {len(b)}; give more images")
    largest = max(as_float64(a).abs().max().item(), as_float64(b).abs().max().item())
    if largest > limit:
        raise InputError(
            f"features must lie within ± {limit:.0e} for float64 to hold the result, got {largest:.4g}; scale them"
        )

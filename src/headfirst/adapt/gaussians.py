"""One Gaussian a class, as the generative classifiers count and draw it.

What enters: labelled features. What leaves: means, residuals and priors; and, drawn from a fit, features again.

Shape letters: N images, D features, P classes with training images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.adapt.refusals import require_finite, require_labelled, require_two_classes, require_unlike
from headfirst.errors import InputError
from headfirst.randomness import keyed_normal, keyed_uniform
from headfirst.types import Features

Prior = Literal["shares", "uniform"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassStatistics:
    """What Gaussian classes are fitted to, float64.

    Attributes:
        present: (P,) the classes that have images, ascending.
        counts: (P,) their images.
        prior: (P,) their prior probabilities.
        means: (P, D).
        residuals: (N, D) features less the mean of their class.
        centre: (D,) mean of all images.
        total_variances: (D,) of all images about it, unbiased.
    """

    present: Int[Tensor, " p"]
    counts: Int[Tensor, " p"]
    prior: Float[Tensor, " p"]
    means: Float[Tensor, "p d"]
    residuals: Float[Tensor, "n d"]
    centre: Float[Tensor, " d"]
    total_variances: Float[Tensor, " d"]

    @property
    def degrees(self) -> int:
        """Degrees of freedom of the residuals, N - P."""
        return len(self.residuals) - len(self.present)

    @property
    def says_nothing_within(self) -> bool:
        """Whether the images of each class are alike (one each, or copies), so that no spread can be learnt."""
        within, total = self.residuals.square().sum(), self.total_variances.sum() * (len(self.residuals) - 1)
        return bool(within <= 1e-12 * total)


def class_statistics(features: Features, *, prior: Prior, what: str) -> ClassStatistics:
    """Count labelled features.

    Args:
        prior: "shares" of the training images, or "uniform" over the classes that have any.
        what: the classifier that asks, for the messages.

    Raises:
        DataError: an unlabelled image, a feature that is not finite, fewer than two classes, features all alike.
    """
    require_labelled(features)
    require_finite(features)
    require_two_classes(features, what)
    values = features.values.double()
    centre = values.mean(dim=0)
    centred = values - centre
    require_unlike(features, centred.square().sum(dim=1).mean().sqrt())
    present, rows, counts = torch.unique(features.labels, return_inverse=True, return_counts=True)
    offsets = centred.new_zeros(len(present), values.shape[1]).index_add(0, rows, centred) / counts[:, None]
    weights = counts.double() if prior == "shares" else torch.ones_like(counts, dtype=torch.float64)
    return ClassStatistics(
        present=present,
        counts=counts,
        prior=weights / weights.sum(),
        means=centre + offsets,
        residuals=centred - offsets[rows],
        centre=centre,
        total_variances=centred.square().sum(dim=0) / (len(values) - 1),
    )


def over_all_classes(rows: Tensor, present: Int[Tensor, " p"], num_classes: int, *, absent: float = 0.0) -> Tensor:
    """(K, …) float32 from (P, …): less their mean over P, which a softmax ignores, and `absent` for other classes.

    With logits that sum to zero over P the largest is never below 0, and `ABSENT_BIAS` never wins.
    """
    everyone = rows.new_full((num_classes, *rows.shape[1:]), absent)
    everyone[present] = rows - rows.mean(dim=0)
    return everyone.float()


def draw(
    num: int, prior: Float[Tensor, " p"], num_features: int, *, seed: int
) -> tuple[Int[Tensor, " num"], Float[Tensor, "num d"]]:
    """Rows of `prior` drawn by it, and standard normal noise, float64; draw i depends on (seed, i) alone.

    Raises:
        InputError: `num` below 1 or `seed` below 0.
    """
    if num < 1 or seed < 0:
        raise InputError(f"samples are at least 1 and seeds at least 0, got num={num} and seed={seed}")
    rows = torch.searchsorted(prior.cumsum(dim=0), torch.from_numpy(keyed_uniform(seed, np.arange(num), 0)), right=True)
    noise = keyed_normal(seed, np.arange(num)[:, None], np.arange(1, 1 + num_features))
    return rows.clamp(max=len(prior) - 1), torch.from_numpy(noise)  # rounding may leave the last sum below one


def drawn_features(values: Float[Tensor, "n d"], labels: Int[Tensor, " n"], classes: tuple[str, ...]) -> Features:
    """Draws as the features of a split of their own; no backbone made them."""
    ids = tuple(f"sampled/{i}" for i in range(len(labels)))
    return Features(values=values.float(), labels=labels, classes=classes, ids=ids, split="sampled", source="")

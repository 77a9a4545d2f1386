"""Is this image like those at home? Scores that are higher for home images, and how well they tell.

Shape letters: N images, D features, K classes, M home images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.errors import InputError
from headfirst.metrics.checks import as_float64, check_features, check_logits, check_numbers
from headfirst.metrics.intervals import UNIT, Interval, constant_interval, within
from headfirst.metrics.resampling import NUM_DRAWS, percentile_range

_ENTRIES_AT_ONCE = 4_000_000  # of the similarity matrix: 32 MB in float64


def max_softmax(logits: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """The largest softmax probability of each row, (N,) float64 in [1/K, 1].

    Args:
        logits: (N, K), finite; not probabilities.

    Raises:
        InputError: no rows, logits not finite, probabilities instead of logits.

    Source: Hendrycks and Gimpel, ICLR 2017.

    >>> max_softmax(torch.tensor([[2.0, 2.0]]))
    tensor([0.5000], dtype=torch.float64)
    """
    check_logits(logits)
    return as_float64(logits).softmax(dim=1).amax(dim=1)


def energy(logits: Float[Tensor, "n k"], temperature: float = 1.0) -> Float[Tensor, " n"]:
    """T log Σ_k exp(z_k / T), minus the energy of each row, (N,) float64.

    Adding a constant to a row's logits adds it to the score: it says what softmax forgets.

    Args:
        logits: (N, K), finite; not probabilities.
        temperature: T > 0.

    Raises:
        InputError: no rows, logits not finite, probabilities instead of logits, a temperature that is not positive.

    Source: Liu et al., NeurIPS 2020, eq. 4.

    >>> energy(torch.zeros(1, 4))                                                                    # log 4
    tensor([1.3863], dtype=torch.float64)
    """
    check_logits(logits)
    if not 0 < temperature < math.inf:
        raise InputError(f"temperature must be positive and finite, got {temperature}")
    return temperature * (as_float64(logits) / temperature).logsumexp(dim=1)


def neighbour_distance(features: Float[Tensor, "n d"], home: Float[Tensor, "m d"], k: int = 5) -> Float[Tensor, " n"]:
    """Minus the Euclidean distance to the k-th nearest home feature, all of unit norm, (N,) float64 in [-2, 0].

    Args:
        features: (N, D).
        home: (M, D), such as the training images'. A feature that is among them is its own first neighbour.
        k: 1 … M.

    Raises:
        InputError: no rows, features that are not finite or all zero, k outside 1 … M.

    Source: Sun et al., ICML 2022.

    >>> neighbour_distance(torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]]), k=2)       # -√2
    tensor([-1.4142], dtype=torch.float64)
    """
    features, home = _unit_rows(features), _unit_rows(home)
    if not 1 <= k <= len(home):
        raise InputError(f"k must lie in 1 … {len(home)}, the number of home features, got {k}")
    distances = []
    for block in features.split(max(1, _ENTRIES_AT_ONCE // len(home))):
        kth = (block @ home.T).topk(k, dim=1).indices[:, -1]
        # √(2 - 2 cos) would lose half of the digits of a small distance.
        distances.append((block - home[kth]).norm(dim=1))
    return -torch.cat(distances)


def _unit_rows(features: Tensor) -> Tensor:
    check_features(features)
    norm = as_float64(features).norm(dim=1, keepdim=True)
    if not norm.all():
        row = int((norm[:, 0] == 0).nonzero()[0])
        raise InputError(f"a feature that is all zero has no direction, got one at row {row}; look at that image")
    return as_float64(features) / norm


@dataclass(frozen=True, kw_only=True, eq=False)
class Mahalanobis:
    """Minus the least squared Mahalanobis distance to a class mean, with one covariance for all classes.

    The covariance of the features about their class means is shrunk towards a multiple of the identity by the share
    that Ledoit and Wolf derive, so it has an inverse even where D > N.

    Attributes:
        means: (C, D) float64, of the classes that have images.
        covariance: (D, D) float64, shrunk.

    Source: Lee et al., NeurIPS 2018, eq. 1 and 2; shrinkage: Ledoit and Wolf, Journal of Multivariate Analysis 2004.

    >>> features = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
    >>> score = Mahalanobis.fit(features, torch.tensor([0, 0, 0, 0]))
    >>> round(score(torch.tensor([[0.0, 2.0]])).item(), 6)                                              # -2² / ½
    -8.0
    """

    means: Float[Tensor, "c d"]
    covariance: Float[Tensor, "d d"]

    @classmethod
    def fit(cls, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> Mahalanobis:
        """From labelled home features.

        Args:
            features: (N, D).
            labels: (N,) ≥ 0; classes without images are left out.

        Raises:
            InputError: no rows, features that are not finite, an unlabelled image, features equal within each class.
        """
        check_features(features)
        if (labels < 0).any():
            raise InputError("labels must be at least 0; leave unlabelled images (-1) out before fitting")
        x = as_float64(features)
        _, group = labels.cpu().unique(return_inverse=True)
        member = torch.nn.functional.one_hot(group).double()
        means = member.T @ x / member.sum(dim=0)[:, None]
        residuals = x - means[group]
        if residuals.abs().max() <= 1e-12 * x.abs().max():
            raise InputError(
                "features are equal within each class, so nothing is known of their spread; give more images"
            )
        return cls(means=means, covariance=_ledoit_wolf(residuals))

    def __call__(self, features: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """(N,) float64 ≤ 0; 0 at a class mean."""
        check_features(features)
        root, centre = torch.linalg.cholesky(self.covariance), self.means.mean(dim=0)
        whitened, means = (
            torch.linalg.solve_triangular(root, (x - centre).T, upper=False).T
            for x in (as_float64(features), self.means)
        )
        return -torch.stack([(whitened - mean).square().sum(dim=1) for mean in means]).amin(dim=0)


def _ledoit_wolf(residuals: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """(1 - s) S + s μ I with μ = tr S / D and s the share that makes its expected squared error least."""
    n, d = residuals.shape
    S = residuals.T @ residuals / n
    target = S.trace() / d * torch.eye(d, dtype=S.dtype)
    distance = (S - target).square().sum()
    noise = (residuals.square().sum(dim=1).square().mean() - S.square().sum()) / n
    share = min(noise / distance, 1.0) if distance > 0 else 0.0
    return (1 - share) * S + share * target


def auroc(scores_in: Float[Tensor, " n"], scores_out: Float[Tensor, " m"]) -> float:
    """Chance that a home image scores higher than another, equal scores counting half; in [0, 1].

    Args:
        scores_in: (N,) of home images, which should be higher.
        scores_out: (M,) of the others.

    Raises:
        InputError: no scores on a side, a NaN score.

    Source: Mann and Whitney, Annals of Mathematical Statistics 1947.

    >>> auroc(torch.tensor([3.0, 2.0]), torch.tensor([2.0, 1.0]))                                 # 3.5 of 4 pairs
    0.875
    """
    inside, outside, num_values = _ranked(scores_in, scores_out)
    return _auroc(*(np.bincount(ranks, minlength=num_values)[None] for ranks in (inside, outside))).item()


def auroc_interval(
    scores_in: Float[Tensor, " n"],
    scores_out: Float[Tensor, " m"],
    *,
    seed: int,
    level: float = 0.95,
    num_draws: int = NUM_DRAWS,
) -> Interval:
    """`auroc` and its interval: percentile bootstrap, either side resampled by itself, clipped to [0, 1].

    Where no resample differs (the sides do not overlap, or all scores are equal), min(N, M) disjoint pairs are
    trials with one outcome, and their exact bound takes over (`constant_interval`): no interval has zero width.

    Args:
        scores_in: of home images.
        scores_out: of the others; higher means more like home.
        seed: of the resampling.
        level: in (0, 1).

    Raises:
        InputError: as `auroc`; a level outside (0, 1).

    >>> found = auroc_interval(torch.arange(10.0) + 10, torch.arange(20.0) - 20, seed=0)
    >>> found.value, found.high, round(found.low, 6)                                          # 0.025 ** (1 / 10)
    (1.0, 1.0, 0.691503)
    """
    inside, outside, num_values = _ranked(scores_in, scores_out)
    n, m = len(inside), len(outside)
    random, draws = np.random.default_rng((seed, n, m)), []
    at_once = max(1, _ENTRIES_AT_ONCE // (n + m))
    for start in range(0, num_draws, at_once):
        rows = min(at_once, num_draws - start)
        counts = [_resampled(ranks, num_values, rows, random) for ranks in (inside, outside)]
        draws.append(torch.from_numpy(_auroc(*counts)))
    value, found = auroc(scores_in, scores_out), percentile_range(torch.cat(draws), level)
    if found is None:
        return constant_interval([value], [min(n, m)], bounds=UNIT, level=level)
    return within(value, *found, UNIT)


def _ranked(scores_in: Tensor, scores_out: Tensor) -> tuple[np.ndarray, np.ndarray, int]:
    """The rank of each score among the distinct ones of both sides, and how many there are."""
    for scores in (scores_in, scores_out):
        check_numbers(scores[:, None])
    values, ranks = np.unique(torch.cat([as_float64(scores_in), as_float64(scores_out)]).numpy(), return_inverse=True)
    return ranks[: len(scores_in)], ranks[len(scores_in) :], len(values)


def _resampled(
    ranks: Int[np.ndarray, " n"], num_values: int, rows: int, random: np.random.Generator
) -> Int[np.ndarray, "b u"]:
    """How often each rank is drawn, in each of `rows` resamples."""
    drawn = ranks[random.integers(len(ranks), size=(rows, len(ranks)))] + num_values * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * num_values).reshape(rows, num_values)


def _auroc(inside: Int[np.ndarray, "b u"], outside: Int[np.ndarray, "b u"]) -> Float[np.ndarray, " b"]:
    """From how many images of either side have each rank."""
    below = np.cumsum(outside, axis=1) - outside / 2
    return (inside * below).sum(axis=1) / (inside.sum(axis=1) * outside.sum(axis=1))


def false_positive_rate(
    scores_in: Float[Tensor, " n"], scores_out: Float[Tensor, " m"], true_positive_rate: float = 0.95
) -> float:
    """Share of the others taken for home at the highest threshold that keeps `true_positive_rate` of home; [0, 1].

    Args:
        scores_in: of home images; those that score at least the threshold are taken for home.
        scores_out: of the others, likewise.
        true_positive_rate: in (0, 1].

    Raises:
        InputError: as `auroc`; a rate outside (0, 1].

    Source: Hendrycks and Gimpel, ICLR 2017; at 95 % as in Liang et al., ICLR 2018.

    >>> false_positive_rate(torch.arange(1.0, 21.0), torch.tensor([0.5, 1.5, 2.5, 30.0]))    # kept: 2 and above
    0.5
    """
    for scores in (scores_in, scores_out):
        check_numbers(scores[:, None])
    if not 0 < true_positive_rate <= 1:
        raise InputError(f"true_positive_rate must lie in (0, 1], got {true_positive_rate}; 0.95 is usual")
    # The rate as the decimal it prints as: 0.95 of 20 are 19, whatever the rounding.
    kept = math.ceil(len(scores_in) * Fraction(str(float(true_positive_rate))))
    threshold = as_float64(scores_in).sort(descending=True).values[kept - 1]
    return (as_float64(scores_out) >= threshold).double().mean().item()

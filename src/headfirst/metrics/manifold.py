"""Do generated features lie where real ones do, and everywhere there? Balls to the k-th neighbour stand for regions.

Beside each number stands what two samples of one distribution would give on average: without it a coverage of 0.97
looks like a fault and is none.

Shape letters: N real and M generated images, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError
from headfirst.metrics.neighbours import in_balls, in_one_frame, kth_of_others


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall:
    """Shares in [0, 1].

    Attributes:
        precision: of the generated features that lie in the ball of a real one.
        recall: of the real features that lie in the ball of a generated one.
        expected: what either is on average for a second sample of the real distribution, estimated.
    """

    precision: float
    recall: float
    expected: float


@dataclass(frozen=True, kw_only=True)
class DensityCoverage:
    """How often real balls are hit, and how many.

    Attributes:
        density: mean over generated features of the number of real balls around each, over k; in [0, N / k].
        coverage: share of the real balls that hold a generated feature, in [0, 1].
        expected_density: of a second sample of the real distribution: 1, exactly.
        expected_coverage: likewise; exact.
    """

    density: float
    coverage: float
    expected_density: float
    expected_coverage: float


def precision_recall(real: Float[Tensor, "n d"], fake: Float[Tensor, "m e"], k: int) -> PrecisionRecall:
    """Improved precision and recall: balls about each feature reach to its k-th nearest other of the same side.

    `expected` is the share of real features that lie in the ball of another real one, of N instead of N + 1: a new
    sample lies in the ball of a real feature just where it is among its k nearest. It depends on the distribution (few
    features are anybody's neighbour in many dimensions) and is estimated from the real side alone; for recall it is
    that of M = N, and close to it otherwise.

    Args:
        real: (N, D), N above k.
        fake: (M, D), M above k.
        k: at least 1; 3 in the source.

    Raises:
        InputError: too few images for k, other lengths, features that are not finite.

    Source: Kynkäänniemi et al., NeurIPS 2019, eq. 1 to 3.

    >>> real, fake = torch.tensor([[0.0], [1.0], [2.0], [9.0]]), torch.tensor([[0.5], [0.6]])
    >>> found = precision_recall(real, fake, 1)
    >>> found.precision, found.recall
    (1.0, 0.0)
    """
    x, y = _checked(real, fake, k, both=True)
    around_real, around_fake = kth_of_others(x, k), kth_of_others(y, k)
    return PrecisionRecall(
        precision=_share_inside(y, x, around_real),
        recall=_share_inside(x, y, around_fake),
        expected=_share_inside(x, x, around_real, itself=True),
    )


def density_coverage(real: Float[Tensor, "n d"], fake: Float[Tensor, "m e"], k: int) -> DensityCoverage:
    """Density and coverage: like precision and recall, but balls are those of real features only and are counted.

    Two samples of one continuous distribution have a density of 1 and a coverage of
    1 - (N-1)…(N-k) / ((M+N-1)…(M+N-k)) on average, for any N, M, k and distribution: of the M + N - 1 other features
    each order of distances to a real one is equally likely, and its ball is empty where the k nearest are all real.
    Equal features (copies) break it.

    Args:
        real: (N, D), N above k.
        fake: (M, D), M at least 1.
        k: at least 1; 5 in the source.

    Raises:
        InputError: too few images for k, other lengths, features that are not finite.

    Source: Naeem et al., ICML 2020, sections 3.2 and 4; k-th neighbours exclude the feature itself.

    >>> real, fake = torch.tensor([[0.0], [1.0], [2.0], [9.0]]), torch.tensor([[0.5], [0.6]])
    >>> found = density_coverage(real, fake, 1)
    >>> found.density, found.coverage
    (2.0, 0.5)
    """
    x, y = _checked(real, fake, k, both=False)
    hits, covered = 0, torch.zeros(len(x), dtype=torch.bool)
    for _, inside in in_balls(y, x, kth_of_others(x, k)):
        hits += int(inside.sum())
        covered |= inside.any(dim=0)
    return DensityCoverage(
        density=hits / (k * len(y)),
        coverage=covered.double().mean().item(),
        expected_density=1.0,
        expected_coverage=expected_coverage(len(x), len(y), k),
    )


def expected_coverage(num_real: int, num_fake: int, k: int) -> float:
    """1 - Π_{i=1…k} (N - i) / (M + N - i): the coverage of two samples of one continuous distribution, exact.

    Args:
        num_real: N, above k.
        num_fake: M, at least 1.
        k: at least 1.

    Raises:
        InputError: k outside 1 … N - 1, no generated images.

    Source: Naeem et al., ICML 2020, section 4 and appendix.

    >>> round(expected_coverage(1000, 1000, 5), 3)                                             # near 1 - 2⁻⁵
    0.969
    """
    if not 1 <= k < num_real or num_fake < 1:
        raise InputError(
            f"coverage needs 1 ≤ k < the number of real images and a generated one, "
            f"got k={k}, {num_real} real and {num_fake} generated"
        )
    missed = 1.0
    for i in range(1, k + 1):
        missed *= (num_real - i) / (num_fake + num_real - i)
    return 1 - missed


def _checked(real: Tensor, fake: Tensor, k: int, *, both: bool) -> tuple[Tensor, Tensor]:
    x, y, _ = in_one_frame(real, fake)
    fewest = min(len(x), len(y)) if both else len(x)
    if not 1 <= k < fewest:
        raise InputError(
            f"k must lie in 1 … {fewest - 1}, below the number of images that have neighbours, got {k}; "
            "give more images or a smaller k"
        )
    return x, y


def _share_inside(points: Tensor, centres: Tensor, radii: Tensor, *, itself: bool = False) -> float:
    """Share of the points in any ball; where `itself`, but their own."""
    found = []
    for rows, inside in in_balls(points, centres, radii):
        if itself:
            inside.diagonal(rows.start).fill_(False)
        found.append(inside.any(dim=1))
    return torch.cat(found).double().mean().item()

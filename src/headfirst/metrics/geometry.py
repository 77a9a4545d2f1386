"""Where features lie and how they moved: spans, angles between them, movement inside and outside, similarity.

Nothing is centred but in `linear_cka`: a head acts on features as they are, and gradient descent moves a linear map
along the span of uncentred features only.

Shape letters: N images, D features, r dimensions of a span.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError
from headfirst.metrics.checks import as_float64, check_features


def span(features: Float[Tensor, "n d"], energy: float = 0.95) -> Float[Tensor, "d r"]:
    """Orthonormal columns, (D, r) float64: the fewest directions that hold `energy` of the squared norm.

    They are the first right singular vectors of the features, uncentred, with σ_1² + … + σ_r² ≥ energy · Σ σ².

    Args:
        features: (N, D).
        energy: in (0, 1]; 1 takes every direction whose singular value is above rounding.

    Raises:
        InputError: no rows, features that are not finite or all zero, energy outside (0, 1].

    >>> span(torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), energy=0.9).abs()
    tensor([[1.],
            [0.],
            [0.]], dtype=torch.float64)
    """
    if not 0 < energy <= 1:
        raise InputError(f"energy must lie in (0, 1], got {energy}; 0.95 is usual")
    sigma, directions = _singular(features)
    held = sigma.square().cumsum(dim=0) / sigma.square().sum()
    rank = int((held < energy - 1e-14).sum()) + 1
    return directions[:, : min(rank, len(sigma))]


def principal_angles(a: Float[Tensor, "d r"], b: Float[Tensor, "d q"]) -> Float[Tensor, " p"]:
    """Angles in [0, π/2] radians between two subspaces, ascending, (min of their dimensions,) float64.

    The cosines are the singular values of AᵀB and the sines those of B - AAᵀB; each angle is taken from the smaller of
    the two, so that angles near 0 and near π/2 alike are exact to rounding.

    Args:
        a: (D, r), whose columns span a subspace; they need be neither orthonormal nor independent.
        b: (D, q), likewise.

    Raises:
        InputError: no columns, columns that are not finite or all zero.

    Source: Björck and Golub, Mathematics of Computation 1973; Knyazev and Argentati, SIAM J. Sci. Comput. 2002.

    >>> principal_angles(torch.eye(3)[:, :1], torch.tensor([[1.0], [1.0], [0.0]]))                          # π/4
    tensor([0.7854], dtype=torch.float64)
    """
    A, B = (_singular(columns.T)[1] for columns in (a, b))
    if A.shape[1] < B.shape[1]:
        A, B = B, A
    cosines = torch.linalg.svdvals(A.T @ B)
    sines = torch.linalg.svdvals(B - A @ (A.T @ B)).flip(0)
    return torch.where(cosines.square() >= 0.5, sines.clamp(max=1.0).asin(), cosines.clamp(max=1.0).acos())


def energy_inside(features: Float[Tensor, "n d"], basis: Float[Tensor, "d r"]) -> Float[Tensor, " n"]:
    """‖Bᵀf‖² / ‖f‖², the share of each feature's squared norm inside the span of B, (N,) float64 in [0, 1].

    Args:
        features: (N, D).
        basis: (D, r), orthonormal columns, as `span` gives.

    Raises:
        InputError: no rows, features that are not finite, one that is all zero, columns that are not orthonormal.

    >>> energy_inside(torch.tensor([[3.0, 4.0]]), torch.eye(2)[:, :1])
    tensor([0.3600], dtype=torch.float64)
    """
    B, f = _orthonormal(basis), as_float64(features)
    return ((f @ B).norm(dim=1) / _norms(features)).square().clamp(max=1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Moved:
    """How far each feature moved, relative to its norm before.

    Attributes:
        inside: (N,) float64 ≥ 0, along the span.
        outside: (N,) float64 ≥ 0, orthogonal to it.
    """

    inside: Float[Tensor, " n"]
    outside: Float[Tensor, " n"]


def movement(before: Float[Tensor, "n d"], after: Float[Tensor, "m d"], basis: Float[Tensor, "d r"]) -> Moved:
    """‖BBᵀd‖ / ‖f‖ and ‖(I - BBᵀ)d‖ / ‖f‖, where d = f' - f is what changed of feature f.

    Args:
        before: (N, D).
        after: (N, D), the same images in the same order.
        basis: (D, r), orthonormal columns, as `span` gives.

    Raises:
        InputError: other numbers of images; as `energy_inside`.

    >>> moved = movement(torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 6.0]]), torch.eye(2)[:, :1])
    >>> moved.inside, moved.outside
    (tensor([0.2000], dtype=torch.float64), tensor([0.4000], dtype=torch.float64))
    """
    if len(before) != len(after):
        raise InputError(f"movement needs the same images before and after, got {len(before)} and {len(after)}")
    check_features(after)
    B, norm = _orthonormal(basis), _norms(before)
    d = as_float64(after) - as_float64(before)
    along = d @ B
    return Moved(inside=along.norm(dim=1) / norm, outside=(d - along @ B.T).norm(dim=1) / norm)


def linear_cka(x: Float[Tensor, "n d"], y: Float[Tensor, "m e"], debiased: bool = False) -> float:
    """Similarity of two sets of features of the same images: ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖), columns centred.

    1 where one is the other rotated, mirrored or scaled. In [0, 1], but biased upwards where images are few for the
    dimensions; `debiased` puts the unbiased estimates of the three squared norms in their place, and is 0 on average
    for unrelated features, and so at times below 0.

    Args:
        x: (N, D); N ≥ 4 where debiased, else 2.
        y: (N, E), the same images in the same order.

    Raises:
        InputError: other or too few images, features that are not finite or the same for every image; where debiased,
            features whose own estimate is not positive.

    Source: Kornblith et al., ICML 2019, eq. 4; debiased: Song et al., JMLR 2012, with linear kernels.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [3.0, 2.0]])
    >>> rotated_and_doubled = 2 * x @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    >>> round(linear_cka(x, rotated_and_doubled), 6)
    1.0
    """
    for features in (x, y):
        check_features(features)
    n, least = len(x), 4 if debiased else 2
    if len(y) != n or n < least:
        raise InputError(f"CKA needs the same {least} or more images on both sides, got {n} and {len(y)}")
    X, Y = _centred(x), _centred(y)
    product = _debiased_product if debiased else _product
    xx, yy = product(X, X), product(Y, Y)
    if min(xx, yy) <= 0:
        raise InputError(f"{n} images are too few for a debiased CKA of these features; give more images")
    return product(X, Y) / (xx * yy) ** 0.5


def effective_rank(features: Float[Tensor, "n d"]) -> float:
    """exp(-Σ p log p) with p = σ / Σ σ of the singular values, uncentred; r where r are equal and the rest 0.

    In [1, min(N, D)].

    Args:
        features: (N, D).

    Raises:
        InputError: no rows, features that are not finite or all zero.

    Source: Roy and Vetterli, EUSIPCO 2007; of features: Garrido et al., ICML 2023 (RankMe, without its epsilon).

    >>> round(effective_rank(torch.eye(5)[:3]), 6)
    3.0
    """
    sigma, _ = _singular(features)
    return torch.special.entr(sigma / sigma.sum()).sum().exp().item()


def _singular(features: Tensor) -> tuple[Float[Tensor, " r"], Float[Tensor, "d r"]]:
    """The singular values above rounding, and the right singular vectors."""
    check_features(features)
    x = as_float64(features)
    if x.shape[0] > x.shape[1]:
        x = torch.linalg.qr(x, mode="r").R  # the same values and vectors, of D rows instead of N
    _, sigma, directions = torch.linalg.svd(x, full_matrices=False)
    if sigma[0] == 0:
        raise InputError("features that are all zero span nothing; were the backbone's weights loaded?")
    above = sigma > max(features.shape) * torch.finfo(x.dtype).eps * sigma[0]
    return sigma[above], directions[above].T


def _norms(features: Tensor) -> Float[Tensor, " n"]:
    check_features(features)
    norm = as_float64(features).norm(dim=1)
    if not norm.all():
        row = int((norm == 0).nonzero()[0])
        raise InputError(f"a feature that is all zero has no direction, got one at row {row}; look at that image")
    return norm


def _orthonormal(basis: Tensor) -> Tensor:
    check_features(basis)
    B = as_float64(basis)
    off = (B.T @ B - torch.eye(B.shape[1], dtype=B.dtype)).abs().max().item()
    if off > 1e-4:  # float32 columns are within 1e-6
        raise InputError(f"basis needs orthonormal columns, but BᵀB is {off:.4g} off the identity; take them from span")
    return B


def _centred(features: Tensor) -> Tensor:
    x = as_float64(features)
    centred = x - x.mean(dim=0)
    if centred.abs().max() <= 1e-12 * x.abs().max():
        raise InputError("CKA needs features that differ, got the same for every image; were the weights loaded?")
    return centred


def _product(X: Tensor, Y: Tensor) -> float:
    """‖XᵀY‖², the squared Frobenius norm; (N - 1)² times the biased HSIC."""
    return (X.T @ Y).square().sum().item()


def _debiased_product(X: Tensor, Y: Tensor) -> float:
    """N(N - 3) times the unbiased HSIC: Song's estimator of Gram matrices whose rows sum to zero, in features."""
    n = len(X)
    x, y = X.square().sum(dim=1), Y.square().sum(dim=1)
    return _product(X, Y) - n / (n - 2) * (x @ y).item() + (x.sum() * y.sum()).item() / ((n - 1) * (n - 2))

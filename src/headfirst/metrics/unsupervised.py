"""How good features are, told from few images: how far they spread, and what their neighbours and a probe would say.

Shape letters: N images, D features, C classes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.errors import InputError
from headfirst.metrics.checks import as_float64, check_features


def feature_spread(features: Float[Tensor, "n d"]) -> float:
    """√D times the mean deviation, over the dimensions, of features scaled to unit length.

    0 where all features point one way; 1, the most there is, where they are spread evenly over the sphere.

    Args:
        features: (N, D), N at least 2; a feature of length 0 stays 0.

    Raises:
        InputError: fewer than two rows, or features that are not finite.

    Source: Chen & He, "Exploring Simple Siamese Representation Learning", CVPR 2021, section 4.1.

    >>> feature_spread(torch.tensor([[2.0, 0.0], [1.0, 0.0]]))
    0.0
    >>> round(feature_spread(torch.cat([torch.eye(2), -torch.eye(2)])), 6)
    1.0
    """
    check_features(features)
    if len(features) < 2:
        raise InputError(f"a deviation needs at least two features, got {len(features)}")
    unit = torch.nn.functional.normalize(as_float64(features), dim=1)
    return (unit.std(dim=0, correction=0).mean() * features.shape[1] ** 0.5).item()


def leave_one_out_knn(features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], k: int = 5) -> float:
    """Share of images whose k most similar others (cosine) vote for their label; a tie goes to the nearer ones.

    Args:
        features: (N, D).
        labels: (N,) at least 0.
        k: neighbours, fewer where there are not so many others.

    Returns:
        Accuracy in 0 … 1.

    Raises:
        InputError: fewer than two images, features that are not finite, or labels of another length or below 0.

    >>> pairs = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> leave_one_out_knn(pairs, torch.tensor([0, 0, 1, 1]), k=1)
    1.0
    """
    _check(features, labels)
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    unit = torch.nn.functional.normalize(as_float64(features), dim=1)
    similarity = (unit @ unit.T).fill_diagonal_(-torch.inf)
    nearest = similarity.topk(min(k, len(unit) - 1), dim=1).indices
    # A vote counts a little more the nearer it is, which decides ties alone.
    weights = 1 + 1e-6 * torch.arange(nearest.shape[1], 0, -1, dtype=torch.float64)
    votes = torch.zeros(len(unit), int(labels.max()) + 1, dtype=torch.float64)
    votes.scatter_add_(1, labels[nearest], weights.expand(len(unit), -1))
    return (votes.argmax(dim=1) == labels).double().mean().item()


def leave_one_out_ridge(features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], l2: float = 1e-2) -> float:
    """Accuracy of a ridge classifier on each image, fitted to all the others, in closed form.

    With the smoother S = 1/N + K (K + λN)⁻¹ of centred features, the prediction without image i is
    (ŷ_i - S_ii y_i) / (1 - S_ii), exactly, intercept included; targets are one-hot, and one number scales all features.

    Args:
        features: (N, D).
        labels: (N,) at least 0.
        l2: λ, relative to the mean squared length of the centred features.

    Returns:
        Accuracy in 0 … 1.

    Raises:
        InputError: as for `leave_one_out_knn`; l2 that is not positive.

    Source: Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, equation 5.26 (any linear smoother).
    """
    _check(features, labels)
    if not l2 > 0:
        raise InputError(f"l2 must be positive, got {l2}")
    x = as_float64(features)
    x = x - x.mean(dim=0)
    n = len(x)
    kernel = x @ x.T
    kernel = kernel / kernel.diagonal().mean().clamp(min=1e-300)
    y = torch.nn.functional.one_hot(labels.long()).double()
    eye = torch.eye(n, dtype=torch.float64)
    smoother = torch.full((n, n), 1 / n, dtype=torch.float64) + torch.linalg.solve(kernel + l2 * n * eye, kernel)
    own = smoother.diagonal()[:, None]
    without = smoother @ y - own * y  # a positive factor of each row, 1/(1 - S_ii), is left out: no argmax needs it
    return (without.argmax(dim=1) == labels).double().mean().item()


def _check(features: Tensor, labels: Tensor) -> None:
    check_features(features)
    if len(features) < 2 or labels.shape != features.shape[:1] or int(labels.min()) < 0:
        raise InputError(
            f"at least two images are needed, each with a label of 0 or more; got features {tuple(features.shape)} and "
            f"labels {tuple(labels.shape)}"
        )

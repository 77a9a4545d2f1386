"""Features drawn from Gaussian classes that are known, and a few small sets made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from headfirst.types import Features


def features_of(values: np.ndarray, labels: Sequence[int] | np.ndarray, *, num_classes: int | None = None) -> Features:
    """As a split named train, of classes a, b, c, …"""
    index = torch.as_tensor(np.asarray(labels))
    return Features(
        values=torch.from_numpy(np.asarray(values)).float(),
        labels=index,
        classes=tuple("abcdefghijklmnopqrstuvwxyz"[: num_classes or int(index.max()) + 1]),
        ids=tuple(f"{i}.png" for i in range(len(index))),
        split="train",
        source="none",
    )


def shared_covariance(d: int, *, seed: int = 0) -> np.ndarray:
    """(D, D), eigenvalues from 0.2 to 3 along random axes."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))
    return q @ np.diag(np.geomspace(0.2, 3, d)) @ q.T


def drawn(counts: Sequence[int], *, d: int, seed: int = 0, apart: float = 2.0) -> Features:
    """`counts` images of each class about random means, all with `shared_covariance`."""
    means = apart * np.random.default_rng(99).normal(size=(len(counts), d))
    labels = np.repeat(np.arange(len(counts)), counts)
    noise = np.random.default_rng(seed).multivariate_normal(np.zeros(d), shared_covariance(d), size=len(labels))
    return features_of(means[labels] + noise, labels)

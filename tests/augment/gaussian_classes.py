"""Gaussian classes, and generators whose faults are known."""

from __future__ import annotations

import torch

from headfirst.types import Features

CLASSES = ("ant", "bee", "cat", "dog")


def centres(num_classes: int, dim: int, apart: float) -> torch.Tensor:
    """(K, D) orthogonal centres, each `apart` from the origin."""
    return apart * torch.eye(dim)[:num_classes]


def features(values: torch.Tensor, labels: torch.Tensor, name: str = "real") -> Features:
    return Features(
        values=values.float(), labels=labels.long(), classes=CLASSES[: int(labels.max()) + 1],
        ids=tuple(f"{name}/{i}" for i in range(len(labels))), split=name, source="planted",
    )  # fmt: skip


def drawn(centre: torch.Tensor, each: int, *, seed: int, name: str = "real") -> Features:
    """`each` images of every class, N(centre, 1)."""
    labels = torch.arange(len(centre)).repeat_interleave(each)
    noise = torch.randn(len(labels), centre.shape[1], generator=torch.Generator().manual_seed(seed))
    return features(centre[labels] + noise, labels, name)

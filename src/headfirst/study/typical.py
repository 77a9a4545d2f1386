"""Which images to label first: the typical ones, from clusters that hold no label yet (TypiClust).

1. k-means cuts all L + U images into L + budget clusters (at most 500): at least `budget` of them hold no label.
2. The cluster with the fewest labels is next, the largest among those; clusters of a few images come last, since
   they are outliers.
3. In it, the most typical image: the one with the least mean distance to its nearest neighbours there.

Shape letters: U unlabelled and L labelled images, D features, C clusters, M images of one cluster.
Source: Hacohen, Dekel & Weinshall, Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets (ICML
2022), algorithm 1, with the constants of the authors' code. Deviations: labels gained on the way are counted (so a
second image comes from a cluster only when all others have one), the density of a cluster counts its labelled images,
and where clusters are small by nature, "few images" is half of what they have on average.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from headfirst.errors import InputError

MOST_CLUSTERS = 500
FEW_IMAGES = 5
"""Clusters of at most so many images are outliers; less where clusters hold fewer than ten on average."""
NEIGHBOURS = 20
RESTARTS = 5
"""k-means is the best of so many starts."""

_ROWS_TOGETHER = 1024  # whose distances are held at a time: memory is linear in a cluster's images


@dataclass(frozen=True, kw_only=True)
class Typical:
    """An image to label, and the cluster it stands for.

    Attributes:
        row: among the unlabelled images.
        cluster: its number.
        size: images of the cluster, labelled or not.
        labels: those that were labelled from the start.
        distance: mean distance to its nearest neighbours in the cluster (unit features, so in [0, 2]); the inverse of
            the typicality.
    """

    row: int
    cluster: int
    size: int
    labels: int
    distance: float


def most_typical(
    unlabelled: Float[Tensor, "u d"], labelled: Float[Tensor, "l d"], *, budget: int, seed: int = 0
) -> tuple[Typical, ...]:
    """The `budget` images most worth labelling, the first ones first; all of them where there are fewer.

    Args:
        unlabelled, labelled: features, brought to unit length here; there may be no labelled ones.
        seed: of k-means.

    Raises:
        InputError: a budget below 1, no unlabelled images, features that are not finite.

    >>> rays = torch.eye(3).repeat_interleave(20, dim=0) + 0.01 * torch.rand(60, 3)
    >>> sorted((1 + choice.row) // 20 for choice in most_typical(rays[1:], rays[:1], budget=2))
    [1, 2]
    """
    if budget < 1:
        raise InputError(f"the number of images to choose must be at least 1, got {budget}")
    if not len(unlabelled):
        raise InputError("there are no unlabelled images to choose from")
    x = F.normalize(torch.cat([labelled, unlabelled]).double(), dim=1)
    if not x.isfinite().all():
        raise InputError("features must be finite to be clustered, got NaN or infinity; check the backbone's weights")
    num_labelled = len(labelled)
    cluster = clusters(x.numpy(), min(num_labelled + budget, MOST_CLUSTERS), seed=seed)
    sizes = np.bincount(cluster)
    labels = np.bincount(cluster[:num_labelled], minlength=len(sizes))
    few = min(float(FEW_IMAGES), 0.5 * sizes.mean().item())

    queues: dict[int, list[Typical]] = {}
    for c in np.unique(cluster[num_labelled:]).tolist():
        members = np.flatnonzero(cluster == c)
        distance = neighbour_distances(x[members]).tolist()
        queues[c] = [
            Typical(row=int(members[i]) - num_labelled, cluster=c, size=int(sizes[c]), labels=int(labels[c]),
                    distance=distance[i])
            for i in sorted(range(len(members)), key=lambda i: -distance[i])  # the most typical at the end
            if members[i] >= num_labelled
        ]  # fmt: skip
    return _in_turn(queues, labels, few, budget)


def _in_turn(
    queues: dict[int, list[Typical]], labels: Int[np.ndarray, " c"], few: float, budget: int
) -> tuple[Typical, ...]:
    """From the cluster with the fewest labels, the largest among those, small ones last; and so on."""
    held, chosen = labels.copy(), []
    while len(chosen) < budget and queues:
        c = min(queues, key=lambda c: (queues[c][0].size <= few, held[c], -queues[c][0].size, c))
        chosen.append(queues[c].pop())
        held[c] += 1
        if not queues[c]:
            del queues[c]
    return tuple(chosen)


def clusters(x: Float[np.ndarray, "n d"], num_clusters: int, *, seed: int) -> Int[np.ndarray, " n"]:
    """The k-means cluster of each row; fewer clusters where fewer rows differ."""
    from sklearn.cluster import KMeans

    num_clusters = min(num_clusters, len(np.unique(x, axis=0)))
    found = KMeans(num_clusters, n_init=RESTARTS, random_state=seed).fit_predict(x)  # pyright: ignore[reportArgumentType]
    return np.asarray(found, dtype=np.int64)


def neighbour_distances(x: Float[Tensor, "m d"]) -> Float[Tensor, " m"]:
    """Mean Euclidean distance of each row to its 20 nearest others, or to half of the rows if that is less.

    >>> neighbour_distances(torch.tensor([[0.0], [1.0], [3.0], [7.0]]))          # the one nearest, or two
    tensor([2.0000, 1.5000, 2.5000, 5.0000])
    """
    if len(x) < 2:
        return x.new_zeros(len(x))
    k = min(NEIGHBOURS, max(1, len(x) // 2))
    nearest = [torch.cdist(rows, x).topk(k + 1, dim=1, largest=False).values for rows in x.split(_ROWS_TOGETHER)]
    return torch.cat(nearest)[:, 1:].mean(dim=1)  # without the row itself, at distance zero

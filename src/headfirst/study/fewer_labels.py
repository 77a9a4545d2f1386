"""What a linear probe gets right on validation images had it had fewer labels: what learning curves are made of.

Labels are put in a random order, seed by seed, and the first few of each class are kept; more contain fewer. The
probe's strength is chosen once, by its own cross-validation on all labels; with n of N it is N / n times as strong,
since the same prior on the weights then stands against fewer images. What is scored is balanced accuracy, so the
priors that come with unequal numbers are taken out again: each logit less the logarithm of its class's number.
Otherwise labels of one class would mostly buy a bias towards it.

Shape letters: S seeds, M sizes, N training and V validation images, D features, K classes.
Source of the correction: Menon et al., Long-tail Learning via Logit Adjustment (ICLR 2021), section 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headfirst.adapt.logistic import logistic_path
from headfirst.randomness import keyed_permutation
from headfirst.types import Features

_ELEMENTS_TOGETHER = 2**22  # images × seeds × classes solved side by side: 32 MB an array


def nested_counts(totals: Int[np.ndarray, " K"]) -> Int[np.ndarray, "M K"]:
    """Sizes from an eighth of the images of each class to all, each about √2 times the one before.

    >>> nested_counts(np.array([20, 4])).tolist()
    [[2, 1], [4, 1], [5, 1], [7, 1], [10, 2], [14, 3], [20, 4]]
    """
    shares = 2.0 ** (-np.arange(7) / 2)
    counts = np.maximum(1, np.rint(shares[:, None] * totals)).astype(np.int64)
    return np.unique(counts, axis=0)  # ascending, since all columns rise together


def right_with_fewer(
    train: Features,
    val: Features,
    counts: Int[np.ndarray, "M K"],
    *,
    l2: float,
    seeds: Sequence[int],
) -> Bool[Tensor, "S M V"]:
    """Whether the probe with the first counts[m, c] images of each class c, in the order of seed s, is right.

    Args:
        train: labelled, each class with at least one image.
        counts: 1 … the class's images.
        l2: strength for all images, in the units of `LinearProbe`.
    """
    mean = train.values.double().mean(dim=0)
    x = train.values.double() - mean
    scale = x.square().sum(dim=1).mean().sqrt()
    x, asked = x / scale, (val.values.double() - mean) / scale
    of_class = train.labels.bincount(minlength=counts.shape[1]).numpy()
    together = max(1, _ELEMENTS_TOGETHER // (len(x) * counts.shape[1]))
    right = torch.empty(len(seeds), len(counts), len(val), dtype=torch.bool)
    for m, count in enumerate(counts):
        n = int(count.sum())
        prior = torch.from_numpy(count).double().log()
        orders = seeds[:1] if (count == of_class).all() else seeds  # all labels are all labels in any order
        for start in range(0, len(orders), together):
            group = orders[start : start + together]
            kept = torch.stack([first_of_each_class(train.labels, count, seed=seed) for seed in group])
            used = kept.any(dim=0)  # rows that no seed keeps need not be carried along
            weights = kept[:, used].double() / n
            *_, solution = logistic_path(x[used], train.labels[used], _down_to(l2 * len(x) / n), sample_weights=weights)
            logits = torch.einsum("vd,skd->svk", asked, solution.weight) + (solution.bias - prior)[:, None]
            right[start : start + len(group), m] = logits.argmax(dim=2) == val.labels
        if len(orders) < len(seeds):
            right[:, m] = right[0, m]
    return right


def _down_to(l2: float) -> list[float]:
    """Two strengths a decade from 1 down to `l2`: started from zero, a weak one may not reach its optimum."""
    return np.geomspace(1.0, l2, 1 + math.ceil(-2 * math.log10(l2))).tolist() if l2 < 1 else [l2]


def first_of_each_class(labels: Int[Tensor, " N"], count: Int[np.ndarray, " K"], *, seed: int) -> Bool[Tensor, " N"]:
    """The first count[c] images of each class c in an order drawn from (seed, class): nested in `count`.

    >>> first_of_each_class(torch.tensor([0, 0, 1]), np.array([1, 1]), seed=0).sum().item()
    2
    """
    kept = torch.zeros(len(labels), dtype=torch.bool)
    for c, wanted in enumerate(count.tolist()):
        rows = torch.nonzero(labels == c)[:, 0]
        kept[rows[keyed_permutation(len(rows), seed, c)[:wanted]]] = True
    return kept

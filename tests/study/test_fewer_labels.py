"""Fewer labels: nested subsets, the probe against scikit-learn's, and intervals that hold on Gaussian classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from headfirst.study import fewer_labels
from headfirst.study.fewer_labels import first_of_each_class, nested_counts, right_with_fewer
from headfirst.study.learning_curve import learning_curve
from headfirst.types import Features

L2 = 3e-3


def gaussians(means: torch.Tensor, each: list[int], *, seed: int) -> Features:
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(means)).repeat_interleave(torch.tensor(each))
    values = means[labels] + torch.randn(len(labels), means.shape[1], generator=random)
    ids = tuple(f"{seed}/{i}" for i in range(len(labels)))
    return Features(values=values, labels=labels, classes=tuple("abc"), ids=ids, split="", source="")


def means(seed: int) -> torch.Tensor:
    return 1.2 * torch.randn(3, 6, generator=torch.Generator().manual_seed(seed))


def test_more_labels_contain_fewer_and_every_class_has_its_number() -> None:
    labels = torch.tensor([0] * 9 + [1] * 5 + [2])
    kept = [first_of_each_class(labels, np.array(count), seed=4) for count in ([2, 1, 1], [4, 3, 1], [9, 5, 1])]
    assert [labels[rows].bincount().tolist() for rows in kept] == [[2, 1, 1], [4, 3, 1], [9, 5, 1]]
    assert bool((kept[0] <= kept[1]).all() and (kept[1] <= kept[2]).all())
    assert not torch.equal(kept[1], first_of_each_class(labels, np.array([4, 3, 1]), seed=5))


def test_sizes_rise_to_all_there_are() -> None:
    counts = nested_counts(np.array([100, 7, 1]))
    assert counts[-1].tolist() == [100, 7, 1]
    assert bool((np.diff(counts, axis=0) >= 0).all())
    assert counts.min() == 1


@pytest.mark.parametrize("count", [[10, 4, 2], [10, 16, 12], [3, 3, 3]])
def test_the_probe_is_sklearns_without_the_classes_shares(count: list[int]) -> None:
    train, val = gaussians(means(0), [10, 16, 12], seed=1), gaussians(means(0), [60, 60, 60], seed=2)
    right = right_with_fewer(train, val, np.array([count]), l2=L2, seeds=[7])[0, 0]
    mean = train.values.double().mean(dim=0)
    scale = (train.values.double() - mean).square().sum(dim=1).mean().sqrt()
    x, asked = ((one.values.double() - mean) / scale for one in (train, val))
    rows = first_of_each_class(train.labels, np.array(count), seed=7)
    other = LogisticRegression(C=1 / (L2 * 38), tol=1e-10, max_iter=10_000).fit(x[rows], train.labels[rows])
    logits = asked.numpy() @ other.coef_.T + other.intercept_ - np.log(count)
    assert (right.numpy() == (logits.argmax(axis=1) == val.labels.numpy())).all()


def test_seeds_side_by_side_are_seeds_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    train, val = gaussians(means(0), [8, 8, 8], seed=1), gaussians(means(0), [40, 40, 40], seed=2)
    counts = nested_counts(np.array([8, 8, 8]))
    together = right_with_fewer(train, val, counts, l2=L2, seeds=[3, 4, 5])
    monkeypatch.setattr(fewer_labels, "_ELEMENTS_TOGETHER", 1)
    assert torch.equal(right_with_fewer(train, val, counts, l2=L2, seeds=[3, 4, 5]), together)
    assert bool((together[:, -1] == together[0, -1]).all())  # all labels, whatever their order
    assert not bool((together[:, 0] == together[0, 0]).all())


def test_classes_far_apart_and_a_weak_strength_find_their_optimum() -> None:
    far = 30 * torch.eye(3, 6)
    train, val = gaussians(far, [8, 8, 8], seed=1), gaussians(far, [10, 10, 10], seed=2)
    assert bool(right_with_fewer(train, val, nested_counts(np.array([8, 8, 8])), l2=2e-8, seeds=[0, 1]).all())


@pytest.mark.parametrize("alone", [False, True])
def test_what_more_labels_bring_lies_in_the_interval(alone: bool) -> None:
    """Gaussian classes, so that further labels can be drawn and their worth seen on 6,000 images."""
    held, values = 0, []
    for rep in range(12):
        there = means(rep)
        train, val = gaussians(there, [12] * 3, seed=100 + rep), gaussians(there, [25] * 3, seed=200 + rep)
        test = gaussians(there, [2000] * 3, seed=300 + rep)
        further = gaussians(there, [12, 0, 0] if alone else [12] * 3, seed=400 + rep)
        grown = Features(
            values=torch.cat([train.values, further.values]), labels=torch.cat([train.labels, further.labels]),
            classes=train.classes, ids=train.ids + further.ids, split="", source="",
        )  # fmt: skip
        now, then = (
            right_with_fewer(one, test, one.labels.bincount().numpy()[None], l2=L2 * 36 / len(one), seeds=[0])
            for one in (train, grown)
        )
        truth = then.double().mean().item() - now.double().mean().item()
        counts = nested_counts(np.array([12] if alone else [12] * 3))
        if alone:
            counts = np.hstack([counts, np.full((len(counts), 2), 12)])
        right = right_with_fewer(train, val, counts, l2=L2, seeds=range(8))
        found = learning_curve(right, val.labels, counts[:, 0].astype(float).tolist(), seed=rep).gain(12.0)
        held += found.low <= truth <= found.high
        values.append(found.value - truth)
    assert held >= 10
    assert abs(np.mean(values)) < 0.02

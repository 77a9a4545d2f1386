"""Retrieval, alignment, uniformity and the modality gap against closed forms and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from torch import Tensor
from torch.nn.functional import normalize

from headfirst.errors import InputError
from headfirst.metrics import (
    alignment,
    modality_gap,
    retrieval,
    retrieval_ranks,
    retrieval_recall,
    uniformity,
)


def unit(seed: int, n: int, d: int) -> Tensor:
    return normalize(torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d))), dim=1)


def test_every_partner_first_and_every_partner_last():
    x = unit(0, 30, 8)
    assert retrieval_recall(x, x, 1) == 1.0
    assert retrieval_ranks(x, -x).tolist() == [29] * 30
    assert retrieval_recall(x, -x, 29) == 0.0
    assert retrieval_recall(x, -x, 30) == 1.0


def test_collapsed_embeddings_find_nothing():
    same = unit(0, 1, 8).expand(20, 8)
    assert retrieval_recall(same, same, 19) == 0.0
    assert retrieval_recall(same, same, 20) == 1.0
    assert retrieval_recall(same, same, 1, groups=torch.zeros(20).long()) == 1.0  # there is no stranger


def test_random_embeddings_find_by_chance():
    """Partners independent of the queries: the rank is uniform on 0 … N-1."""
    ranks = retrieval_ranks(unit(1, 2000, 16), unit(2, 2000, 16)).double()
    assert ranks.mean() == pytest.approx(999.5, abs=4 * 577 / math.sqrt(2000))
    assert (ranks < 200).double().mean() == pytest.approx(0.1, abs=4 * 0.3 / math.sqrt(2000))


@pytest.mark.parametrize("block", [1, 100, 10**6])
def test_ranks_are_those_of_sorting(monkeypatch: pytest.MonkeyPatch, block: int):
    monkeypatch.setattr(retrieval, "_BLOCK", block)
    x, y, groups = unit(3, 40, 6), unit(4, 40, 6), torch.arange(40) // 3
    ranks = retrieval_ranks(x, y, groups=groups)
    for i in range(40):
        order = (x[i] @ y.T).argsort(descending=True)
        strangers_first = 0
        for j in order.tolist():
            if groups[j] == groups[i]:
                break
            strangers_first += 1
        assert ranks[i] == strangers_first
    recalls = [retrieval_recall(x, y, k, groups=groups) for k in (1, 5, 10)]
    assert recalls == [(ranks < k).double().mean().item() for k in (1, 5, 10)]
    assert recalls[0] < recalls[2]


def test_alignment_is_twice_one_minus_the_mean_cosine():
    x, y = unit(5, 50, 7), unit(6, 50, 7)
    assert alignment(x, y) == pytest.approx(2 - 2 * (x * y).sum(1).mean().item(), rel=1e-12)
    assert alignment(x, x) == 0.0


def test_uniformity_closed_forms():
    """Antipodes: -4t. An orthonormal frame: -2t. A simplex of N points: ‖x_i - x_j‖² = 2N/(N-1)."""
    x = unit(0, 1, 5)
    assert uniformity(torch.cat([x, -x]), t=3.0) == pytest.approx(-12, rel=1e-12)
    assert uniformity(torch.eye(9)) == pytest.approx(-4, rel=1e-12)
    simplex = normalize(torch.eye(4, dtype=torch.float64) - 0.25, dim=1)
    assert uniformity(simplex) == pytest.approx(-2 * 8 / 3, rel=1e-12)
    assert uniformity(x.expand(6, 5)) == 0.0


def test_uniformity_on_the_circle():
    """Even spread over the circle: E exp(-2t(1 - cos θ)) = e^(-2t) I_0(2t)."""
    angles = torch.arange(4000, dtype=torch.float64) * (2 * math.pi / 4000)
    circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    expected = math.log(np.i0(4.0)) - 4.0
    assert uniformity(circle) == pytest.approx(expected, abs=2 / 4000 * math.exp(-expected))


def test_uniformity_is_that_of_all_distances(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retrieval, "_BLOCK", 70)
    x = unit(7, 33, 5)
    assert uniformity(x, t=1.3) == pytest.approx(math.log(np.exp(-1.3 * pdist(x.numpy()) ** 2).mean()), rel=1e-10)


def test_modality_gap_is_the_planted_one():
    x = unit(8, 40, 6)
    assert modality_gap(x, x.flip(0)) == pytest.approx(0, abs=1e-15)
    # Two cones around ±e_1 with cos β along it: the means are ±cos β · e_1 where the rest cancels.
    around = torch.tensor([[0.6, 0.8], [0.6, -0.8]])
    assert modality_gap(around, -around) == pytest.approx(1.2, rel=1e-6)


def test_refusals():
    x = unit(0, 4, 3)
    for metric in (alignment, modality_gap, retrieval_ranks):
        with pytest.raises(InputError, match=r"unit norm, but row 0 has 2"):
            metric(x, 2 * x)
        with pytest.raises(InputError, match="at least one image"):
            metric(x[:0], x[:0])
        with pytest.raises(InputError, match="finite"):
            metric(x, x.masked_fill(x == x[1, 2], torch.nan))
    with pytest.raises(InputError, match="at least 1 candidate, got k=0"):
        retrieval_recall(x, x, 0)
    with pytest.raises(InputError, match="at least two rows"):
        uniformity(x[:1])

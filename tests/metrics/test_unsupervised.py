"""Spread and leave-one-out accuracies against truths by construction and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from headfirst.errors import InputError
from headfirst.metrics import feature_spread, leave_one_out_knn, leave_one_out_ridge


def blobs(num: int, dim: int, *, apart: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    labels = np.arange(num) % 3
    centres = random.normal(size=(3, dim)) * apart
    return torch.from_numpy(centres[labels] + random.normal(size=(num, dim))), torch.from_numpy(labels)


class TestSpread:
    def test_evenly_on_the_sphere_is_one(self):
        x = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0))
        assert feature_spread(x) == pytest.approx(1, abs=0.01)

    def test_lengths_do_not_count(self):
        x, _ = blobs(40, 5, apart=1.0)
        assert feature_spread(x * torch.rand(40, 1).double() * 9) == pytest.approx(feature_spread(x), abs=1e-12)

    def test_a_common_direction_shrinks_it(self):
        x, _ = blobs(40, 5, apart=0.0)
        far = torch.zeros(5).double()
        far[0] = 1000.0
        assert feature_spread(x + far) < 0.01

    def test_one_image_is_refused(self):
        with pytest.raises(InputError, match="at least two features, got 1"):
            feature_spread(torch.ones(1, 3))


class TestNeighbours:
    def test_is_scikit_learn_s_vote_without_the_image_itself(self):
        x, y = blobs(60, 6, apart=0.8)
        right = []
        for i in range(60):
            rest = [j for j in range(60) if j != i]
            vote = KNeighborsClassifier(5, metric="cosine").fit(x[rest].numpy(), y[rest].numpy())
            shares = vote.predict_proba(x[i : i + 1].numpy())[0]
            if sorted(shares)[-1] == sorted(shares)[-2]:
                nearest = vote.kneighbors(x[i : i + 1].numpy(), return_distance=False)[0]
                weights = np.zeros(3)
                np.add.at(weights, y[rest].numpy()[nearest], 1 + 1e-6 * np.arange(5, 0, -1))
                shares = weights
            right.append(int(np.argmax(shares)) == int(y[i]))
        assert 0.4 < np.mean(right) < 0.99
        assert leave_one_out_knn(x, y) == pytest.approx(float(np.mean(right)), abs=1e-12)

    def test_an_image_does_not_vote_for_itself(self):
        x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        assert leave_one_out_knn(x, torch.tensor([0, 1, 0, 1]), k=1) == 0.0


class TestRidge:
    def test_is_the_fit_without_each_image_in_turn(self):
        x, y = blobs(30, 7, apart=0.7, seed=3)
        centred = x - x.mean(dim=0)
        scale = centred.square().sum(dim=1).mean()
        right = []
        for i in range(30):
            rest = [j for j in range(30) if j != i]
            a = torch.cat([x[rest] / scale.sqrt(), torch.ones(29, 1).double()], dim=1)
            penalty = torch.eye(8).double() * (1e-2 * 30)
            penalty[7, 7] = 0.0  # the intercept is free
            targets = torch.nn.functional.one_hot(y[rest], 3).double()
            w = torch.linalg.solve(a.T @ a + penalty, a.T @ targets)
            row = torch.cat([x[i] / scale.sqrt(), torch.ones(1).double()])
            right.append(int((row @ w).argmax()) == int(y[i]))
        assert 0.5 < np.mean(right) < 0.99
        assert leave_one_out_ridge(x, y) == pytest.approx(float(np.mean(right)), abs=1e-12)

    def test_more_features_than_images_are_no_memory(self):
        """Noise that is fitted perfectly says nothing of the image left out."""
        x = torch.randn(60, 200, generator=torch.Generator().manual_seed(0))
        assert leave_one_out_ridge(x, torch.arange(60) % 3) < 0.55

    def test_refuses_by_name(self):
        x, y = blobs(6, 2, apart=1.0)
        with pytest.raises(InputError, match="each with a label of 0 or more"):
            leave_one_out_ridge(x, y - 1)
        with pytest.raises(InputError, match="l2 must be positive"):
            leave_one_out_ridge(x, y, l2=0.0)
        with pytest.raises(InputError, match="k must be at least 1"):
            leave_one_out_knn(x, y, k=0)

"""Gaussian naive Bayes against a loop from the formula, scikit-learn, and Gaussians that are known."""

from __future__ import annotations

from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch
from planted_gaussians import drawn, features_of
from sklearn.naive_bayes import GaussianNB

from headfirst.adapt import GaussianNaiveBayes, as_module
from headfirst.errors import DataError, InputError
from headfirst.types import Features


def unlike(counts: list[int], *, d: int = 5, seed: int = 0) -> Features:
    """Classes whose variances differ by class and feature."""
    random, fixed = np.random.default_rng(seed), np.random.default_rng(98)
    means, deviations = fixed.normal(size=(len(counts), d)), fixed.uniform(0.4, 2.5, size=(len(counts), d))
    labels = np.repeat(np.arange(len(counts)), counts)
    return features_of(means[labels] + deviations[labels] * random.normal(size=(len(labels), d)), labels)


def brute_force(train: Features, query: list[float], *, pooling: float, floor: float) -> list[float]:
    """log p(x, y) but for the powers of 2π, in plain Python."""
    rows, labels, d = train.values.double().tolist(), train.labels.tolist(), train.values.shape[1]
    members = [[r for r, y in zip(rows, labels, strict=True) if y == k] for k in range(len(train.classes))]
    means = [[sum(r[j] for r in m) / len(m) for j in range(d)] for m in members]
    squares = [[sum((r[j] - c[j]) ** 2 for r in m) for j in range(d)] for m, c in zip(members, means, strict=True)]
    pooled = [sum(s[j] for s in squares) / (len(rows) - len(members)) for j in range(d)]
    said = []
    for m, c, s in zip(members, means, squares, strict=True):
        total = log(len(m) / len(rows))
        for j in range(d):
            v = max((s[j] + pooling * pooled[j]) / (len(m) - 1 + pooling), floor * sum(pooled) / d)
            total -= (query[j] - c[j]) ** 2 / v / 2 + log(v) / 2
        said.append(total)
    return said


@pytest.mark.parametrize(("pooling", "floor"), [(0.0, 1e-9), (7.0, 1e-9), (1.0, 0.8)])
def test_logits_are_those_of_a_loop(pooling: float, floor: float) -> None:
    train, test = unlike([9, 4, 12]), unlike([5, 5, 5], seed=1)
    model = GaussianNaiveBayes(pooling=pooling, floor=floor).fit(train)
    expected = np.array([brute_force(train, q, pooling=pooling, floor=floor) for q in test.values.double().tolist()])
    expected -= expected.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(model.logits(test.values).numpy(), expected, rtol=1e-4, atol=2e-4)


def test_it_is_sklearns_but_for_the_degrees_of_freedom() -> None:
    train, test = unlike([30, 10, 20]), unlike([20, 20, 20], seed=1)
    other = GaussianNB(var_smoothing=0).fit(train.values.double().numpy(), train.labels.numpy())
    other.var_ *= np.array([30 / 29, 10 / 9, 20 / 19])[:, None]
    theirs = other.predict_proba(test.values.double().numpy())
    ours = GaussianNaiveBayes(pooling=0.0, floor=1e-12).fit(train).predict_proba(test)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)
    assert 0.5 < theirs.max(axis=1).mean() < 0.95


def test_known_gaussians_give_their_posterior() -> None:
    train, test = unlike([20_000, 40_000]), unlike([500, 500], seed=1)
    fixed = np.random.default_rng(98)
    means, deviations = fixed.normal(size=(2, 5)), fixed.uniform(0.4, 2.5, size=(2, 5))
    x = test.values.double().numpy()[:, None]
    joint = -(((x - means) / deviations) ** 2 / 2 + np.log(deviations)).sum(axis=2) + np.log([1 / 3, 2 / 3])
    truth = 1 / (1 + np.exp(joint[:, 0] - joint[:, 1]))
    np.testing.assert_allclose(GaussianNaiveBayes().fit(train).predict_proba(test)[:, 1].numpy(), truth, atol=0.03)


def test_much_pooling_makes_the_boundary_linear() -> None:
    model = GaussianNaiveBayes(pooling=1e12).fit(unlike([30, 10, 20]))
    assert float(model.square.abs().max()) < 1e-6
    assert float(GaussianNaiveBayes(pooling=1.0).fit(unlike([30, 10, 20])).square.abs().max()) > 0.1


def test_rescaled_features_change_nothing_where_the_floor_does_not_bind() -> None:
    train, test = unlike([9, 4, 12]), unlike([5, 5, 5], seed=1)
    scales, shift = torch.logspace(-1, 1, 5), torch.arange(5.0)
    recipe = GaussianNaiveBayes(floor=1e-12)
    one = recipe.fit(train).predict_proba(test)
    two = recipe.fit(replace(train, values=train.values * scales + shift)).predict_proba(test.values * scales + shift)
    np.testing.assert_allclose(one.numpy(), two.numpy(), atol=2e-4)


def test_a_feature_that_never_varies_says_nothing() -> None:
    train, test = unlike([9, 4, 12]), unlike([5, 5, 5], seed=1)
    dead = [replace(f, values=torch.cat([f.values, torch.full((len(f), 1), 2.0)], dim=1)) for f in (train, test)]
    alive = torch.cat([test.values, torch.full((15, 1), 50.0)], dim=1)
    model = GaussianNaiveBayes().fit(dead[0])
    assert float(model.square[:, 5].abs().max()) < 1e-12 * float(model.square.abs().max())
    torch.testing.assert_close(model.logits(alive), model.logits(dead[1].values), rtol=1e-5, atol=1e-4)


def test_the_prior_moves_the_bias_by_the_log_ratio_and_nothing_else() -> None:
    train = unlike([30, 10, 5])
    shares, uniform = (GaussianNaiveBayes(prior=prior).fit(train) for prior in ("shares", "uniform"))
    assert torch.equal(shares.square, uniform.square)
    assert torch.equal(shares.linear, uniform.linear)
    moved = (shares.bias - uniform.bias).double()
    np.testing.assert_allclose((moved - moved[0]).numpy(), np.log([1, 10 / 30, 5 / 30]), atol=1e-5)


def test_a_class_without_images_never_wins() -> None:
    model = GaussianNaiveBayes().fit(unlike([6, 0, 6]))
    far = 1e3 * torch.randn(500, 5, generator=torch.Generator().manual_seed(0))
    assert not (model.predict(far) == 1).any()
    assert not (model.sample(500, seed=0).labels == 1).any()


def test_one_image_a_class_takes_the_variances_of_all() -> None:
    values = np.random.default_rng(0).normal(size=(4, 9)) * np.arange(1, 10)
    model = GaussianNaiveBayes().fit(features_of(values, range(4)))
    np.testing.assert_allclose(model.variances.numpy(), np.tile(values.var(axis=0, ddof=1), (4, 1)), rtol=1e-5)
    assert model.predict(torch.from_numpy(values)).tolist() == [0, 1, 2, 3]


def test_one_image_of_one_class_takes_the_variances_pooled_over_the_others() -> None:
    train = unlike([8, 1, 8])
    x, y = train.values.double().numpy(), train.labels.numpy()
    pooled = sum(((x[y == k] - x[y == k].mean(axis=0)) ** 2).sum(axis=0) for k in (0, 2)) / 14
    np.testing.assert_allclose(GaussianNaiveBayes().fit(train).variances[1].numpy(), pooled, rtol=1e-10)


def test_samples_have_the_moments_of_the_fit() -> None:
    model = GaussianNaiveBayes(pooling=1.0).fit(unlike([12, 4]))
    sampled = model.sample(60_000, seed=4)
    for k in range(2):
        x = sampled.values[sampled.labels == k].double()
        assert len(x) / 60_000 == pytest.approx((0.75, 0.25)[k], abs=0.008)
        error = (model.variances[k] / len(x)).sqrt()
        assert bool(((x.mean(dim=0) - model.means[k]).abs() < 5 * error).all())
        assert bool(((x.var(dim=0) / model.variances[k] - 1).abs() < 5 * (2 / len(x)) ** 0.5).all())
        correlations = np.corrcoef(x.numpy().T) - np.eye(5)
        assert np.abs(correlations).max() < 5 / len(x) ** 0.5
    assert torch.equal(sampled.values[:9], model.sample(9, seed=4).values)


def test_the_head_is_the_model() -> None:
    model, test = GaussianNaiveBayes().fit(drawn([6, 6, 6], d=4)), drawn([5, 5, 5], d=4, seed=1)
    assert torch.equal(as_module(model)(test.values), model.logits(test.values))
    said = model.predictions(test, seed=2)
    assert (said.kind, said.method, said.seed, said.chosen_on) == ("logits", "naive-bayes", 2, "fixed")
    assert torch.equal(said.values.argmax(dim=1), model.predict(test))
    assert model.score(test) == pytest.approx((model.predict(test) == test.labels).double().mean().item())


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (replace(unlike([3, 3]), values=torch.full((6, 5), float("nan"))), "6 of 6 in 'train' are not, first '0.png'"),
        (replace(unlike([3, 3]), labels=torch.tensor([0, -1, 1, 1, 0, 0])), "1 of 6 are not, first '1.png'"),
        (unlike([6]), "naive Bayes needs images of at least two classes, but those of 'train' are all 'a'"),
        (features_of(np.full((6, 4), 3.0), [0, 1] * 3), "the 6 features of 'train' are all alike"),
    ],
)
def test_refusals(features: Features, message: str) -> None:
    with pytest.raises(DataError, match=message):
        GaussianNaiveBayes().fit(features)


def test_without_pooling_a_single_image_is_refused() -> None:
    with pytest.raises(InputError, match="and 'b' has one in 'train'; give pooling above 0"):
        GaussianNaiveBayes(pooling=0.0).fit(unlike([4, 1]))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"pooling": -1.0}, "pooling must be finite and at least 0, got -1.0"),
        ({"floor": 0.0}, "floor must be positive"),
    ],
)
def test_recipes_refused(recipe: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GaussianNaiveBayes(**recipe)

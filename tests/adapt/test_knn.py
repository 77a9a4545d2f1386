"""Nearest neighbours against a loop in float64."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log, sqrt

import numpy as np
import pytest
import torch

from headfirst.adapt import KNN, knn
from headfirst.adapt.knn import neighbour_counts
from headfirst.errors import DataError, InputError
from headfirst.types import Features


def make_features(
    n: int, *, k: int = 3, d: int = 5, noise: float = 0.8, seed: int = 0, split: str = "train"
) -> Features:
    random = torch.Generator().manual_seed(seed)
    means = torch.randn(k, d, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % k
    return Features(
        values=3 * (means[labels] + noise * torch.randn(n, d, generator=random)),
        labels=labels,
        classes=tuple("abcdefgh"[:k]),
        ids=tuple(f"{i}.png" for i in range(n)),
        split=split,
        source="none",
    )


def brute_force(
    train: Features, query: list[float], *, k: int, temperature: float, leave_out: int | None = None
) -> list[float]:
    """Plain Python, from the formula."""

    def cosine(u: list[float], v: list[float]) -> float:
        dot = sum(a * b for a, b in zip(u, v, strict=True))
        return dot / sqrt(sum(a * a for a in u) * sum(b * b for b in v))

    rows, labels = train.values.double().tolist(), train.labels.tolist()
    ranked = sorted(((cosine(query, r), labels[j]) for j, r in enumerate(rows) if j != leave_out), reverse=True)[:k]
    total = sum(exp(s / temperature) for s, _ in ranked)
    num_classes = len(train.classes)
    return [
        0.99 * sum(exp(s / temperature) for s, y in ranked if y == c) / total + 0.01 / num_classes
        for c in range(num_classes)
    ]


@pytest.mark.parametrize("k", [1, 4, 30])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_vote_is_that_of_a_loop(k: int, temperature: float) -> None:
    train, test = make_features(30), make_features(11, seed=1, split="test")
    model = KNN(k=k, temperature=temperature).fit(train)
    expected = [brute_force(train, q, k=k, temperature=temperature) for q in test.values.double().tolist()]
    np.testing.assert_allclose(model.predict_proba(test).numpy(), expected, rtol=0, atol=3e-6)
    assert (model.k, model.chosen_on) == (k, "fixed")


def test_k_has_the_least_leave_one_out_log_loss() -> None:
    train = make_features(64, noise=0.6)
    losses = {
        k: -sum(
            log(brute_force(train, q, k=k, temperature=0.07, leave_out=i)[y])
            for i, (q, y) in enumerate(zip(train.values.double().tolist(), train.labels.tolist(), strict=True))
        )
        / 64
        for k in (1, 3, 5, 10, 20, 50)
    }
    ours = knn.leave_one_out_log_losses(
        torch.nn.functional.normalize(train.values, dim=1),
        train.labels,
        neighbour_counts(64),
        num_classes=3,
        temperature=0.07,
    )
    assert ours == pytest.approx(losses, rel=1e-4)
    model = KNN().fit(train)
    assert model.k == min(losses, key=losses.__getitem__)
    assert model.k not in (1, 50)  # else this data would not tell
    assert model.chosen_on == "train"


def test_ties_go_to_the_smaller_k() -> None:
    # two tight, orthogonal clusters of ten: with 1, 3 or 5 neighbours all votes are for the right class
    values = torch.tensor([[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 10)
    features = replace(make_features(20, k=2, d=2), values=values, labels=torch.tensor([0] * 10 + [1] * 10))
    assert KNN().fit(features).k == 1


def test_candidates_stay_below_the_number_of_images() -> None:
    assert neighbour_counts(2) == [1]
    assert neighbour_counts(5) == [1, 3]
    assert neighbour_counts(201) == [1, 3, 5, 10, 20, 50, 100, 200]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = make_features(40, noise=1.5), make_features(23, seed=1, split="test")
    whole = KNN().fit(train)
    monkeypatch.setattr(knn, "_SIMILARITIES_TOGETHER", 40 * 7)
    blocked = KNN().fit(train)
    assert whole.k == blocked.k
    torch.testing.assert_close(whole.predict_proba(test), blocked.predict_proba(test), rtol=0, atol=1e-6)


def test_length_of_a_feature_does_not_matter() -> None:
    train, test = make_features(30), make_features(11, seed=1, split="test")
    sizes = torch.logspace(-15, 15, 30)[:, None]
    one, two = KNN(k=5).fit(train), KNN(k=5).fit(replace(train, values=train.values * sizes))
    torch.testing.assert_close(one.predict_proba(test), two.predict_proba(test), rtol=0, atol=1e-5)


def test_a_class_absent_from_training_never_wins_and_is_never_impossible() -> None:
    train, test = make_features(30), make_features(50, noise=9.0, seed=1, split="test")
    absent = replace(train, labels=torch.where(train.labels == 1, 2, train.labels))
    probabilities = KNN(k=7).fit(absent).predict_proba(test)
    assert not (probabilities.argmax(dim=1) == 1).any()
    torch.testing.assert_close(probabilities[:, 1], torch.full((50,), 0.01 / 3))


def test_predictions_are_probabilities() -> None:
    train, test = make_features(30), make_features(11, seed=1, split="test")
    model = KNN(k=3).fit(train)
    predictions = model.predictions(test, seed=2)
    assert (predictions.kind, predictions.method, predictions.seed) == ("probabilities", "knn", 2)
    torch.testing.assert_close(predictions.values.sum(dim=1), torch.ones(11))
    np.testing.assert_array_equal(model.predict(test), predictions.values.argmax(dim=1))
    assert model.score(test) == pytest.approx(float(np.mean(model.predict(test).numpy() == test.labels.numpy())))
    assert predictions.log_probabilities().isfinite().all()


def zeroed(features: Features, row: int) -> Features:
    values = features.values.clone()
    values[row] = 0
    return replace(features, values=values)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (zeroed(make_features(9), 4), r"positive norm, but 1 of 9 in 'train' are zero, first '4.png'"),
        (replace(make_features(9), labels=torch.tensor([0, -1, 2] * 3)), "3 of 9 are not, first '1.png'"),
        (
            replace(make_features(9), values=torch.full((9, 5), float("nan"))),
            "9 of 9 in 'train' are not, first '0.png'",
        ),
        (make_features(1, k=2), "at least two training images, got 1; give k=1"),
        (make_features(9).take([]), "'train' has no images"),
    ],
)
def test_refusals(features: Features, message: str) -> None:
    with pytest.raises(DataError, match=message):
        KNN().fit(features)


def test_queries_of_zero_norm_are_refused() -> None:
    with pytest.raises(DataError, match="1 of 9 in 'train' are zero"):
        KNN(k=1).fit(make_features(9)).predict(zeroed(make_features(9), 2))


def test_more_neighbours_than_images() -> None:
    assert KNN(k=9).fit(make_features(9)).k == 9
    with pytest.raises(InputError, match="k must be at most the number of training images, 9 in 'train', got 10"):
        KNN(k=10).fit(make_features(9))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [({"k": 0}, "k must be at least 1, got 0"), ({"temperature": 0.0}, "temperature must be positive")],
)
def test_recipes_refused(recipe: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        KNN(**recipe)

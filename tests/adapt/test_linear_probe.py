"""The recipe around the solver: invariance, the choice of strength, absent classes, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from headfirst.adapt import LinearProbe, linear_probe
from headfirst.adapt.linear_probe import held_out_losses, one_standard_error, stratified_folds
from headfirst.errors import DataError, InputError
from headfirst.types import Features


def make_features(
    labels: list[int], *, d: int = 6, k: int | None = None, noise: float = 1.0, seed: int = 0
) -> Features:
    random = torch.Generator().manual_seed(seed)
    k = max(labels) + 1 if k is None else k
    means = torch.randn(max(k, 1), d, generator=random)
    index = torch.tensor(labels)
    values = means[index] + noise * torch.randn(len(labels), d, generator=random)
    return Features(
        values=values,
        labels=index,
        classes=tuple(f"class-{i}" for i in range(k)),
        ids=tuple(f"{i}.png" for i in range(len(labels))),
        split="train",
        source="none",
    )


def thirds(n: int, k: int = 3) -> list[int]:
    return [i % k for i in range(n)]


# the problem that is solved


@pytest.mark.parametrize("l2", [1e-1, 1e-3, 1e-5])
def test_head_on_raw_features_is_sklearns(l2: float) -> None:
    features = make_features(thirds(90), noise=1.5)
    x = features.values.double().numpy() * 7 + 3
    model = LinearProbe(l2=l2).fit(replace(features, values=torch.from_numpy(x).float()))
    scale = ((x - x.mean(axis=0)) ** 2).sum(axis=1).mean()  # squared: the penalty is on weights of scaled features
    other = LogisticRegression(C=1 / (90 * l2 * scale), tol=1e-12, max_iter=100_000).fit(x, features.labels.numpy())
    np.testing.assert_allclose(model.weight.numpy(), other.coef_, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        model.predict_proba(torch.from_numpy(x).float()).numpy(), other.predict_proba(x), rtol=0, atol=1e-4
    )


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.floats(1e-3, 1e3), wide=st.booleans())
def test_rotation_shift_and_scale_change_nothing(seed: int, size: float, wide: bool) -> None:
    d = 40 if wide else 5
    features = make_features(thirds(24), d=d, seed=seed)
    random = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=random, dtype=torch.float64)).Q
    shift = torch.randn(d, generator=random, dtype=torch.float64)

    def moved(values: torch.Tensor) -> torch.Tensor:
        return (size * (values.double() @ rotation + shift)).float()

    one = LinearProbe(l2=1e-3).fit(features)
    two = LinearProbe(l2=1e-3).fit(replace(features, values=moved(features.values)))
    fresh = torch.randn(50, d, generator=random)
    torch.testing.assert_close(one.predict_proba(fresh), two.predict_proba(moved(fresh)), rtol=0, atol=2e-4)


def test_rotation_shift_and_scale_do_not_change_the_strength() -> None:
    features = make_features(thirds(30), d=8)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0))).Q
    moved = replace(features, values=100 * features.values @ rotation + 30)
    one, two = LinearProbe().fit(features), LinearProbe().fit(moved)
    assert one.l2 == two.l2
    for a, b in zip(one.path, two.path, strict=True):
        assert a.cv_log_loss == pytest.approx(b.cv_log_loss, rel=1e-2)


def test_every_strength_of_the_path_is_solved_where_classes_are_separable() -> None:
    features = make_features(thirds(60), d=30, noise=0.05)
    features = replace(features, values=torch.nn.functional.normalize(features.values + 2, dim=1))
    model = LinearProbe().fit(features)
    assert len(model.path) == 50
    assert max(point.gradient_ratio for point in model.path) <= 1e-6
    assert [point.l2 for point in model.path] == sorted((point.l2 for point in model.path), reverse=True)
    assert (model.path[0].l2, model.path[-1].l2) == (1.0, pytest.approx(1e-8))
    assert model.weight.isfinite().all()
    assert model.score(features) == 1.0


# the choice


def test_one_standard_error_rule_on_a_curve_made_by_hand() -> None:
    loss = np.array([2.0, 1.31, 1.30, 1.1, 1.0, 1.05, 0.995 + 0.2])
    se = np.array([9.0, 9.0, 9.0, 9.0, 0.3, 9.0, 9.0])
    assert one_standard_error(loss, se) == 2  # 1.30 is within, 1.31 is not; only the best point's error counts
    assert one_standard_error(loss, np.zeros(7)) == 4
    assert one_standard_error(np.array([1.0, 1.0]), np.zeros(2)) == 0  # ties to the stronger


def test_fit_takes_what_the_rule_says() -> None:
    model = LinearProbe().fit(make_features(thirds(60), noise=2.0))
    loss = np.array([point.cv_log_loss for point in model.path])
    se = np.array([point.cv_se for point in model.path])
    chosen = next(point for point in model.path if point.cv_log_loss <= loss.min() + se[loss.argmin()])
    assert model.l2 == chosen.l2
    assert model.l2 > model.path[int(loss.argmin())].l2  # on noisy data the rule is stricter than the least
    assert model.chosen_on == "train"


def test_held_out_losses_are_those_of_sklearn_fitted_without_the_fold() -> None:
    features = make_features(thirds(36), noise=1.5)
    x = features.values.double()
    x = (x - x.mean(dim=0)) / (x - x.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    fold = stratified_folds(features.labels.numpy(), folds=3, seed=5)
    strengths = np.geomspace(1, 1e-4, 12).tolist()
    losses = held_out_losses(x, features.labels, fold, strengths)
    for s in (0, 6, 11):
        expected = []
        for f in range(3):
            train, held = fold != f, fold == f
            other = LogisticRegression(C=1 / (train.sum() * strengths[s]), tol=1e-12, max_iter=100_000)
            other.fit(x.numpy()[train], features.labels.numpy()[train])
            logs = other.predict_log_proba(x.numpy()[held])
            expected.extend(-logs[np.arange(held.sum()), features.labels.numpy()[held]])
        np.testing.assert_allclose(np.sort(losses[s]), np.sort(expected), rtol=1e-3, atol=1e-5)


def test_folds_solved_in_small_groups_give_the_same_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    features = make_features(thirds(30))
    together = LinearProbe().fit(features)
    monkeypatch.setattr(linear_probe, "_ELEMENTS_TOGETHER", 1)
    one_by_one = LinearProbe().fit(features)
    assert together.l2 == one_by_one.l2
    for a, b in zip(together.path, one_by_one.path, strict=True):
        assert a.cv_log_loss == pytest.approx(b.cv_log_loss, rel=1e-3)
        assert a.cv_se == pytest.approx(b.cv_se, rel=1e-2)


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(1, 12), min_size=2, max_size=6), folds=st.integers(2, 6), seed=st.integers(0, 99))
def test_folds_are_even_and_hold_out_each_class(counts: list[int], folds: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    fold = stratified_folds(labels, folds=folds, seed=seed)
    large = [c for c in counts if c >= 3]
    if 2 * sum(large) < sum(counts):
        assert (fold == -1).all()
        return
    num_folds = min([folds, *large])
    assert set(fold[fold >= 0]) == set(range(num_folds))
    sizes = np.bincount(fold[fold >= 0])
    assert sizes.max() - sizes.min() <= 1
    for k, count in enumerate(counts):
        if count < 3:
            assert (fold[labels == k] == -1).all()
        else:
            held = np.bincount(fold[labels == k], minlength=num_folds)
            assert held.min() >= 1
            assert held.max() - held.min() <= 1
    np.testing.assert_array_equal(fold, stratified_folds(labels, folds=folds, seed=seed))


def test_folds_depend_on_the_seed() -> None:
    labels = np.repeat([0, 1], 20)
    assert (stratified_folds(labels, folds=5, seed=0) != stratified_folds(labels, folds=5, seed=1)).any()


def test_below_three_images_a_class_the_strength_is_the_stated_one() -> None:
    features = make_features(thirds(6))
    model = LinearProbe().fit(features)
    assert (model.l2, model.chosen_on) == (linear_probe.FEW_SHOT_L2, "fixed")
    assert [(point.l2, point.cv_log_loss, point.cv_se) for point in model.path] == [(model.l2, None, None)]
    assert LinearProbe().fit(make_features(thirds(9))).chosen_on == "train"


def test_one_small_class_does_not_stop_the_choice() -> None:
    model = LinearProbe().fit(make_features([0] * 10 + [1] * 10 + [2]))
    assert model.chosen_on == "train"
    assert (model.bias > linear_probe.ABSENT_BIAS).all()


@pytest.mark.parametrize("l2", [1e-8, 1e-4, 1.0, 30.0])
def test_a_given_strength_is_used(l2: float) -> None:
    model = LinearProbe(l2=l2).fit(make_features(thirds(30)))
    assert (model.l2, model.chosen_on, len(model.path)) == (l2, "fixed", 1)
    assert model.path[0].gradient_ratio <= 1e-6


def test_refitting_with_the_chosen_strength_gives_the_same_head() -> None:
    features = make_features(thirds(60), noise=2.0)
    model = LinearProbe().fit(features)
    again = LinearProbe(l2=model.l2).fit(features)
    torch.testing.assert_close(model.weight, again.weight, rtol=1e-3, atol=1e-4)


# absent classes


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.lists(st.floats(-(2.0**40), 2.0**40, width=32), min_size=6, max_size=6), min_size=1, max_size=5)
)
def test_a_class_absent_from_training_never_wins(rows: list[list[float]]) -> None:
    values = torch.tensor(rows)
    logits = ABSENT.logits(values)
    assert logits.isfinite().all()
    assert not np.isin(ABSENT.predict(values).numpy(), [1, 4]).any()
    assert (ABSENT.predict_proba(values)[:, [1, 4]] == 0).all()


ABSENT = LinearProbe(l2=1e-6).fit(make_features([0, 2, 3] * 8, k=5, noise=0.1))


def test_an_absent_class_changes_nothing_for_the_others() -> None:
    assert ABSENT.weight[[1, 4]].abs().max() == 0
    assert (ABSENT.bias[[1, 4]] == -1e9).all()
    features = make_features([0, 2, 3] * 8, k=5, noise=0.1)
    without = replace(features, labels=torch.tensor([0, 1, 2] * 8), classes=("a", "b", "c"))
    torch.testing.assert_close(ABSENT.weight[[0, 2, 3]], LinearProbe(l2=1e-6).fit(without).weight)


# manners


def test_predictions_scores_and_probabilities_agree() -> None:
    features = make_features(thirds(60))
    model = LinearProbe(l2=1e-2).fit(features)
    test = replace(make_features([*thirds(30), 0], noise=1.5, seed=1), split="test")
    predictions = model.predictions(test, seed=4)
    assert (predictions.kind, predictions.method, predictions.seed, predictions.split) == ("logits", "probe", 4, "test")
    assert (predictions.ids, predictions.chosen_on) == (test.ids, "fixed")
    torch.testing.assert_close(predictions.probabilities(), model.predict_proba(test))
    np.testing.assert_array_equal(model.predict(test), model.predict_proba(test.values).argmax(dim=1))
    assert model.score(test) == pytest.approx(float(np.mean(model.predict(test).numpy() == test.labels.numpy())))
    assert model.classes_ == test.classes


def test_same_seed_same_bytes_and_nothing_is_mutated() -> None:
    features = make_features(thirds(40))
    before = features.values.clone()
    one, two = LinearProbe(seed=3).fit(features), LinearProbe(seed=3).fit(features)
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.bias, two.bias)
    assert one.path == two.path
    assert torch.equal(features.values, before)


def test_progress_ends_complete() -> None:
    calls: list[tuple[str, int, int]] = []
    LinearProbe().fit(make_features(thirds(12)), progress=lambda *call: calls.append(call))
    for stage in ("cross-validating the probe", "fitting the probe"):
        done = [call for call in calls if call[0] == stage]
        assert done[-1][1] == done[-1][2] == max(call[1] for call in done)


def with_value(features: Features, row: int, value: float) -> Features:
    values = features.values.clone()
    values[row, 0] = value
    return replace(features, values=values)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (replace(make_features(thirds(9)), labels=torch.tensor([0, 1, -1] * 3)), r"3 of 9 are not, first '2.png'"),
        (with_value(make_features(thirds(9)), 4, float("nan")), r"1 of 9 in 'train' are not, first '4.png'"),
        (with_value(make_features(thirds(9)), 7, float("inf")), r"first '7.png'; check that image"),
        (make_features([1] * 9, k=2), r"at least two classes, .* all 'class-1'; label images of another"),
        (replace(make_features(thirds(9)), values=torch.full((9, 6), 0.1)), "are all alike, .* check that the images"),
        (make_features(thirds(9)).take([]), "'train' has no images"),
    ],
)
def test_refusals(features: Features, message: str) -> None:
    with pytest.raises(DataError, match=message):
        LinearProbe().fit(features)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"l2": 0.0}, "l2 must be finite and at least 1e-08, got 0.0"),
        ({"l2": float("nan")}, "l2 must be finite"),
        ({"num_strengths": 49}, "num_strengths must be at least 50, got 49"),
        ({"folds": 1}, "folds must be at least 2, got 1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_recipes_refused(recipe: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LinearProbe(**recipe)


def test_other_classes_and_unlabelled_scores_are_refused() -> None:
    features = make_features(thirds(12))
    model = LinearProbe(l2=0.1).fit(features)
    with pytest.raises(DataError, match="the model knows the classes class-0, class-1, class-2, but 'train'"):
        model.predict(replace(features, classes=("class-0", "class-2", "class-1")))
    unlabelled = replace(features, labels=torch.full((12,), -1))
    assert len(model.predictions(unlabelled)) == 12
    with pytest.raises(DataError, match="12 of 12 are not"):
        model.score(unlabelled)

"""Linear discriminant analysis against known Gaussians, dense linear algebra and scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import torch
from planted_gaussians import drawn, features_of, shared_covariance
from sklearn.covariance import oas
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from headfirst.adapt import LDA, LPFT, LDAModel, WiSE, on_backbone
from headfirst.adapt.shared_covariance import oracle_shrinkage
from headfirst.data import ImageSet
from headfirst.errors import DataError, InputError
from headfirst.features import embed
from headfirst.nn import PretrainedBackbone
from headfirst.types import Features

# known Gaussians


def test_two_known_gaussians_give_the_fisher_direction_the_bayes_error_and_the_posterior() -> None:
    random, d, shares = np.random.default_rng(0), 5, np.array([0.7, 0.3])
    covariance = shared_covariance(d)
    direction = random.normal(size=d)
    direction *= 2 / np.sqrt(direction @ np.linalg.solve(covariance, direction))  # Mahalanobis distance 2
    means = 10 + np.array([np.zeros(d), direction])

    def draw(n: int) -> Features:
        labels = (random.random(n) < shares[1]).astype(int)
        return features_of(means[labels] + random.multivariate_normal(np.zeros(d), covariance, size=n), labels)

    model, fresh = LDA().fit(draw(40_000)), draw(100_000)
    ours = (model.weight[1] - model.weight[0]).double().numpy()
    fisher = np.linalg.solve(covariance, direction)
    assert ours @ fisher / np.linalg.norm(ours) / np.linalg.norm(fisher) > 0.999
    cut = np.log(shares[0] / shares[1]) / 2  # where the posterior is a half, from the middle, in standard deviations
    bayes_error = shares[0] * NormalDist().cdf(-1 - cut) + shares[1] * NormalDist().cdf(-1 + cut)
    assert 1 - model.score(fresh) == pytest.approx(bayes_error, abs=0.004)  # three standard errors of the share wrong
    x = fresh.values.double().numpy()
    logit = (x - means.mean(axis=0)) @ fisher + np.log(shares[1] / shares[0])
    np.testing.assert_allclose(model.predict_proba(fresh)[:, 1].numpy(), 1 / (1 + np.exp(-logit)), atol=0.03)


@pytest.mark.parametrize("degrees", [10, 60])
def test_oracle_shrinkage_has_nearly_the_least_error(degrees: int) -> None:
    """Residuals of classes of two images; counting images for degrees of freedom would shrink half as much."""
    p, random = 20, np.random.default_rng(degrees)
    truth = 0.5 ** np.abs(np.subtract.outer(np.arange(p), np.arange(p)))
    grid = np.linspace(0, 1, 41)
    ours, fixed = 0.0, np.zeros(len(grid))
    for _ in range(100):
        pairs = random.multivariate_normal(np.zeros(p), truth, size=(degrees, 2))
        model = LDA().fit(features_of_pairs(pairs))
        s = sum(np.outer(a - b, a - b) / 2 for a, b in pairs) / degrees
        target = np.trace(s) / p * np.eye(p)
        ours += np.square((1 - model.shrinkage) * s + model.shrinkage * target - truth).sum()
        fixed += [np.square((1 - r) * s + r * target - truth).sum() for r in grid]
    assert ours <= 1.08 * fixed.min()


def features_of_pairs(pairs: np.ndarray) -> Features:
    labels = np.repeat(np.arange(len(pairs)), 2)
    features = features_of(pairs.reshape(-1, pairs.shape[-1]), labels)
    return replace(features, classes=tuple(map(str, range(len(pairs)))))


def test_samples_have_the_moments_of_the_fit() -> None:
    model = LDA(shrinkage=0.3).fit(drawn([5, 0, 3], d=12))  # fewer images than features: all directions are drawn
    sampled = model.sample(100_000, seed=3)
    dense = covariance_of(model)
    for row, k in enumerate((0, 2)):
        x = sampled.values[sampled.labels == k].double().numpy()
        assert len(x) / 100_000 == pytest.approx((5 / 8, 3 / 8)[row], abs=0.008)
        error = np.sqrt(np.diag(dense) / len(x))
        assert np.all(np.abs(x.mean(axis=0) - model.means[row].numpy()) < 5 * error)
        spread = np.sqrt((np.outer(np.diag(dense), np.diag(dense)) + dense**2) / len(x))
        assert np.all(np.abs(np.cov(x.T) - dense) < 5.5 * spread)
    assert not (sampled.labels == 1).any()
    assert np.linalg.eigvalsh(dense).min() > 0.01


def test_a_draw_depends_on_seed_and_number_alone() -> None:
    model = LDA().fit(drawn([6, 6], d=3))
    few, many, other = model.sample(7, seed=1), model.sample(50, seed=1), model.sample(7, seed=2)
    assert torch.equal(few.values, many.values[:7])
    assert torch.equal(few.labels, many.labels[:7])
    assert not torch.equal(few.values, other.values)
    assert LDA().fit(many).score(few) > 0.9  # what is drawn can be learnt from
    with pytest.raises(InputError, match=r"got num=0 and seed=1"):
        model.sample(0, seed=1)


# dense algebra and scikit-learn


def covariance_of(model: LDAModel) -> np.ndarray:
    return model.covariance.power(torch.eye(model.means.shape[1], dtype=torch.float64), 1.0).numpy()


@pytest.mark.parametrize(("counts", "d"), [([4, 3, 5], 30), ([30, 20, 25], 6), ([4, 2], 6)])
def test_head_and_shrinkage_are_those_of_dense_algebra(counts: list[int], d: int) -> None:
    train = drawn(counts, d=d)
    model, x, y = LDA().fit(train), train.values.double().numpy(), train.labels.numpy()
    means = np.array([x[y == k].mean(axis=0) for k in range(len(counts))])
    degrees = len(x) - len(counts)
    s = (x - means[y]).T @ (x - means[y]) / degrees
    t, tt = np.trace(s), np.trace(s @ s)
    rho = min(((1 - 2 / d) * tt + t**2) / ((degrees + 1 - 2 / d) * (tt - t**2 / d)), 1)
    assert model.shrinkage == pytest.approx(rho, rel=1e-10)
    assert 0 < rho < 1
    dense = (1 - rho) * s + rho * t / d * np.eye(d)
    np.testing.assert_allclose(covariance_of(model), dense, atol=1e-12)
    fresh = drawn([9] * len(counts), d=d, seed=1).values
    offsets = fresh.double().numpy()[:, None] - means
    logits = np.log(np.array(counts) / len(x)) - np.einsum("nkd,de,nke->nk", offsets, np.linalg.inv(dense), offsets) / 2
    logits -= logits.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(model.logits(fresh).numpy(), logits, rtol=1e-4, atol=1e-4)


def test_shrinkage_is_sklearns_oas_but_for_two_over_p() -> None:
    x = np.random.default_rng(0).multivariate_normal(np.zeros(400), shared_covariance(400), size=150)
    _, theirs = oas(x, assume_centered=True)
    eigenvalues = torch.from_numpy(np.linalg.eigvalsh(x @ x.T / 150))
    assert oracle_shrinkage(eigenvalues, num_features=400, degrees=150) == pytest.approx(theirs, rel=2 / 400)


@pytest.mark.parametrize(("shrinkage", "d"), [(0.0, 6), (0.4, 100)])
def test_given_shrinkage_is_sklearns_but_for_the_degrees_of_freedom(shrinkage: float, d: int) -> None:
    train, fresh = drawn([40, 10, 25], d=d, apart=0.5), drawn([20, 20, 20], d=d, seed=1, apart=0.5)
    other = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
    other.fit(train.values.double().numpy(), train.labels.numpy())
    log_prior = np.log(other.priors_)
    other.coef_, other.intercept_ = other.coef_ * 72 / 75, (other.intercept_ - log_prior) * 72 / 75 + log_prior
    theirs = other.predict_proba(fresh.values.double().numpy())
    np.testing.assert_allclose(LDA(shrinkage=shrinkage).fit(train).predict_proba(fresh).numpy(), theirs, atol=1e-5)
    assert theirs.max(axis=1).min() < 0.9  # else nothing would be compared


# properties


def test_without_shrinkage_an_invertible_map_changes_nothing() -> None:
    train, fresh = drawn([20, 30, 10], d=6, apart=0.7), drawn([20, 20, 20], d=6, seed=1, apart=0.7)
    random = np.random.default_rng(5)
    matrix, shift = random.normal(size=(6, 6)), 4 * random.normal(size=6)

    def moved(features: Features) -> Features:
        return features_of(features.values.double().numpy() @ matrix.T + shift, features.labels)

    before, after = (
        LDA(shrinkage=0.0).fit(t).predict_proba(f) for t, f in ((train, fresh), (moved(train), moved(fresh)))
    )
    np.testing.assert_allclose(before.numpy(), after.numpy(), atol=2e-4)
    shrunk, other = (
        LDA(shrinkage=0.5).fit(t).predict_proba(f) for t, f in ((train, fresh), (moved(train), moved(fresh)))
    )
    assert np.abs((shrunk - other).numpy()).max() > 0.01  # the identity that is shrunk towards is not mapped along


def test_the_prior_moves_the_bias_by_the_log_ratio_and_nothing_else() -> None:
    train = drawn([30, 10, 5], d=4)
    shares, uniform = (LDA(prior=prior).fit(train) for prior in ("shares", "uniform"))
    assert torch.equal(shares.weight, uniform.weight)
    moved = (shares.bias - uniform.bias).double()
    np.testing.assert_allclose((moved - moved[0]).numpy(), np.log([1, 10 / 30, 5 / 30]), atol=1e-5)


def test_a_class_without_images_never_wins() -> None:
    train = drawn([6, 0, 6], d=4)
    model = LDA().fit(train)
    far = 1e4 * torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    assert not (model.predict(far) == 1).any()
    assert float(model.predict_proba(far)[:, 1].max()) == 0


def test_one_image_a_class_lets_the_nearest_win_by_the_variance_of_all() -> None:
    values = np.random.default_rng(0).normal(size=(4, 9))
    model = LDA().fit(features_of(values, range(4)))
    fresh = np.random.default_rng(1).normal(size=(40, 9))
    squares = np.square(fresh[:, None] - values.astype(np.float32)).sum(axis=2)
    weights = np.exp(-0.5 * squares / values.var(axis=0, ddof=1).mean())
    expected = weights / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(torch.from_numpy(fresh)).numpy(), expected, atol=1e-5)
    assert (model.shrinkage, model.chosen_on) == (1.0, "train")


def test_predictions_are_logits() -> None:
    train = drawn([6, 6, 6], d=4)
    model = LDA(shrinkage=0.1).fit(train)
    said = model.predictions(train, seed=2)
    assert (said.kind, said.method, said.seed, said.chosen_on) == ("logits", "lda", 2, "fixed")
    assert model.classes_ == ("a", "b", "c")
    assert torch.equal(said.values.argmax(dim=1), model.predict(train))
    assert model.score(train) == pytest.approx((model.predict(train) == train.labels).double().mean().item())


# on a backbone


def test_fine_tuning_and_wise_start_from_it(backbone: PretrainedBackbone, images: ImageSet) -> None:
    model = LDA().fit(embed(backbone, images["train"]))
    start = on_backbone(backbone, model)
    assert start.record == {"shrinkage": model.shrinkage}
    test = embed(backbone, images["test"])
    torch.testing.assert_close(
        start.predictions(images["test"]).values, model.logits(test.values), rtol=1e-4, atol=1e-4
    )
    tuned = LPFT(epochs=1, batch_size=8, lr=1e-3).fit(backbone, images["train"], head=model)
    kept = WiSE(alpha=0.0).fit(start, tuned)
    assert torch.equal(kept.predictions(test).values, start.predictions(test).values)
    assert not torch.equal(tuned.classifier.head.weight, start.classifier.head.weight)


# refusals


def spoilt(value: float) -> Features:
    features = drawn([3, 3], d=4)
    values = features.values.clone()
    values[4, 2] = value
    return replace(features, values=values)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (spoilt(float("nan")), "1 of 6 in 'train' are not, first '4.png'"),
        (spoilt(float("inf")), "1 of 6 in 'train' are not, first '4.png'"),
        (replace(drawn([3, 3], d=4), labels=torch.tensor([0, -1, 1, 1, 0, 0])), "1 of 6 are not, first '1.png'"),
        (drawn([6], d=4), "LDA needs images of at least two classes, but those of 'train' are all 'a'"),
        (features_of(np.full((6, 4), 3.0), [0, 1] * 3), "the 6 features of 'train' are all alike"),
        (drawn([3, 3], d=4).take([]), "'train' has no images"),
    ],
)
def test_refusals(features: Features, message: str) -> None:
    with pytest.raises(DataError, match=message):
        LDA().fit(features)


def test_a_covariance_that_cannot_be_inverted_is_refused() -> None:
    for counts, d in (([4, 3], 6), ([2, 2], 9)):  # as many degrees of freedom as one too few, and far too few
        with pytest.raises(InputError, match=f"singular in {d} dimensions with shrinkage 0; give a larger one"):
            LDA(shrinkage=0.0).fit(drawn(counts, d=d))
    with pytest.raises(InputError, match=r"of 3 images of 3 classes is singular .* with shrinkage 0\.5"):
        LDA(shrinkage=0.5).fit(drawn([1, 1, 1], d=4))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"shrinkage": 1.5}, r"shrinkage is a share in \[0, 1\], got 1.5; None has it chosen"),
        ({"shrinkage": float("nan")}, "got nan"),
    ],
)
def test_recipes_refused(recipe: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LDA(**recipe)

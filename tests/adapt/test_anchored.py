"""The anchored probe: zero-shot at one end, the plain probe at the other, the optimum in between."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F

from headfirst.adapt import LPFT, LinearProbe, WiSE, ZeroShot, ZeroShotModel, on_backbone
from headfirst.adapt.anchored import anchored_inputs, folds_of_all
from headfirst.data import prepare
from headfirst.errors import DataError
from headfirst.nn import UnitLinear, load_dual_encoder
from headfirst.types import Features

D, K = 6, 3
CLASSES = ("red", "green", "blue")


def make_prior(quality: float, scale: float = 10.0, seed: int = 0) -> ZeroShotModel:
    """Directions that are the classes' own axes to the share `quality`, else noise."""
    noise = torch.randn(K, D, generator=torch.Generator().manual_seed(seed))
    directions = F.normalize(quality * torch.eye(K, D) + (1 - quality) * F.normalize(noise, dim=1), dim=1)
    return ZeroShotModel(
        recipe=ZeroShot(CLASSES), classes=CLASSES, prompts={}, directions=directions, logit_scale=scale,
        logit_bias=None, encoder="made",
    )  # fmt: skip


def make_features(count: int, *, seed: int, spread: float = 0.35, labels: Tensor | None = None) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % K if labels is None else labels
    values = torch.eye(K, D)[labels] + spread * torch.randn(count, D, generator=generator)
    return Features(
        values=5 * values, labels=labels, classes=CLASSES, ids=tuple(map(str, range(count))), split="train", source=""
    )


def test_no_labels_give_exactly_zero_shot():
    prior, empty = make_prior(0.5), make_features(0, seed=0)
    model = LinearProbe(prior=prior).fit(empty)
    values = make_features(40, seed=1).values
    assert torch.equal(model.weight, prior.weight)
    torch.testing.assert_close(model.logits(values), prior.logits(values), rtol=1e-5, atol=1e-5)
    assert model.l2 == np.inf


def test_the_pull_leads_from_zero_shot_to_the_probe():
    prior, train = make_prior(0.3), make_features(60, seed=0)
    departures = []
    for l2 in (1e6, 1.0, 1e-2, 1e-4):
        model = LinearProbe(prior=prior, l2=l2).fit(train)
        departures.append((model.weight - prior.weight).norm().item())
    assert departures[0] < 1e-4
    assert departures == sorted(departures)
    # With ever weaker pulls both probes end at the same classifier: the likelihood's own.
    unit = Features(**{**train.__dict__, "values": F.normalize(train.values, dim=1)})
    noisy = make_features(300, seed=3, spread=1.0)
    unit = Features(**{**noisy.__dict__, "values": F.normalize(noisy.values, dim=1)})
    anchored = LinearProbe(prior=prior, l2=1e-8).fit(noisy).predict_proba(noisy.values)
    plain = LinearProbe(l2=1e-8).fit(unit).predict_proba(unit.values)
    torch.testing.assert_close(anchored, plain, rtol=0, atol=2e-3)


@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 1, 2, 0], [0, 0, 0, 1]])  # all classes; one of them absent
def test_the_optimum_is_scipys(labels: list[int]):
    prior, l2 = make_prior(0.5), 0.03
    train = make_features(len(labels), seed=2, labels=torch.tensor(labels))
    x = F.normalize(train.values.double(), dim=1).numpy()
    w0 = np.concatenate([prior.weight.double().numpy(), np.zeros((K, 1))], axis=1)
    x1 = np.concatenate([x, np.ones((len(x), 1))], axis=1)

    def objective(flat: np.ndarray) -> float:
        w = flat.reshape(K, D + 1)
        z = x1 @ w.T
        log_p = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
        return -log_p[np.arange(len(x)), labels].mean() + l2 / 2 * ((w - w0) ** 2).sum()

    best = minimize(objective, w0.ravel(), method="BFGS", options={"gtol": 1e-9}).x.reshape(K, D + 1)
    model = LinearProbe(prior=prior, l2=l2).fit(train)
    np.testing.assert_allclose(model.weight.numpy(), best[:, :-1], atol=2e-4)
    np.testing.assert_allclose(model.bias.numpy(), best[:, -1], atol=2e-4)


def test_cross_validation_stays_with_a_good_prior_and_leaves_a_bad_one():
    train = make_features(30, seed=0)
    good, bad = (LinearProbe(prior=make_prior(q, scale=8.0)).fit(train) for q in (1.0, 0.0))
    assert good.l2 > 1e-2
    assert bad.l2 < good.l2
    test = make_features(600, seed=9)
    for model, prior in ((good, make_prior(1.0, 8.0)), (bad, make_prior(0.0, 8.0))):
        zero_shot = (prior.predict(test.values) == test.labels).double().mean().item()
        assert model.score(test) >= zero_shot - 0.02
    assert bad.score(test) > 0.9
    assert bad.chosen_on == "train"


def test_one_label_a_class_is_held_out_too():
    assert sorted(folds_of_all(np.array([0, 1, 2]), folds=5, seed=0).tolist()) == [0, 1, 2]
    model = LinearProbe(prior=make_prior(0.6)).fit(make_features(3, seed=0))
    assert all(point.cv_log_loss is not None for point in model.path)
    single = LinearProbe(prior=make_prior(0.6)).fit(make_features(1, seed=0))
    assert torch.equal(single.weight, make_prior(0.6).weight)


def test_the_held_out_loss_of_the_prior_itself_is_its_log_loss():
    prior, train = make_prior(0.5), make_features(20, seed=0)
    model = LinearProbe(prior=prior).fit(train)
    _, logits = anchored_inputs(train, prior)
    assert model.path[0].l2 == np.inf
    assert model.path[0].cv_log_loss == pytest.approx(F.cross_entropy(logits, train.labels).item(), rel=1e-9)


def test_other_classes_are_refused():
    train = make_features(6, seed=0)
    other = Features(**{**train.__dict__, "classes": ("one", "two", "three")})
    with pytest.raises(DataError, match="the model knows the classes red, green, blue"):
        LinearProbe(prior=make_prior(0.5)).fit(other)


@pytest.mark.parametrize("family", ["clip", "siglip", "altclip"])
def test_lpft_starts_from_any_head_and_wise_goes_from_zero_shot_to_tuned(family, checkpoints, images, tmp_path):
    encoder = load_dual_encoder(checkpoints(family))
    backbone = encoder.image_alone()
    small = prepare(images.only("train", "test"), backbone.preprocessing, cache=tmp_path)
    zero_shot = ZeroShot(CLASSES).fit(encoder)
    start = on_backbone(backbone, zero_shot)
    recipe = LPFT(lr=1e-3, epochs=1, batch_size=12)
    begun = recipe.start(backbone, small["train"], seed=0, head=zero_shot)
    assert isinstance(begun.head, UnitLinear)
    tuned = recipe.fit(backbone, small["train"], seed=0, head=zero_shot)
    mixed = WiSE(alpha=0.5).fit(start, tuned)
    for name, value in mixed.classifier.state_dict().items():
        if value.is_floating_point():
            ends = start.classifier.state_dict()[name], tuned.classifier.state_dict()[name]
            torch.testing.assert_close(value, (ends[0] + ends[1]) / 2, rtol=1e-5, atol=1e-6)
    at_start = WiSE(alpha=0.0).fit(start, tuned).predictions(small["test"]).values
    assert torch.equal(at_start, start.predictions(small["test"]).values)
    assert copy.deepcopy(tuned.classifier).head.weight.shape == (3, encoder.embed_dim)

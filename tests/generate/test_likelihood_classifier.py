"""Bayes' rule with a VAE's likelihood: on images whose class is plain, and against its own definition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from headfirst.data import ImageSet, few_shot
from headfirst.errors import InputError
from headfirst.generate import VAE, GaussianDecoder, LikelihoodClassifier, bound
from tiny import make_split

LITTLE: dict[str, Any] = {"latent_dim": 4, "width": 8, "hidden": 16, "batch_size": 16, "fewest": 10, "lr": 0.01}


def test_plain_classes_are_told_and_the_rows_are_bayes_rule():
    train, val = make_split("train", 60, seed=0).take(range(59)), make_split("val", 18, seed=1)
    vae = VAE(epochs=12, decoder=GaussianDecoder(variance=0.1), **LITTLE)
    recipe = LikelihoodClassifier(vae=vae, draws=4, fewest_steps=78)
    model = recipe.fit(train, seed=2)
    assert len(model.generator.record["losses"]) == 20  # of 4 steps each, where the recipe asks for 12
    found = model.predictions(val)
    assert (found.kind, found.method, found.seed, found.split) == ("logits", "vae", 2, "val")
    assert found.values.argmax(dim=1).tolist() == val.labels.tolist()
    by_hand = bound(model.generator, val, draws=4, labels=torch.full((18,), 2), seed=2).per_image + np.log(19 / 59)
    assert found.values[:, 2].numpy() == pytest.approx(by_hand.numpy(), rel=1e-5)


def test_few_digits_are_not_learned_by_heart():
    """Five of a class; four times as many steps leave little more than chance."""
    digits = ImageSet.digits()
    model = LikelihoodClassifier(draws=2).fit(few_shot(digits["train"], 5, seed=0), force=True)
    found = model.predictions(digits["val"].take(range(0, len(digits["val"]), 10)))
    assert (found.values.argmax(dim=1) == found.labels).double().mean() > 0.45


def test_refuses():
    train = make_split("train", 30, seed=0)
    with pytest.raises(InputError, match="every class needs an image, and blue has none"):
        LikelihoodClassifier(vae=VAE(**LITTLE)).fit(train.take(np.flatnonzero(train.labels < 2)))
    labels = np.where(np.arange(30) == 0, -1, train.labels)
    with pytest.raises(InputError, match="needs every image's label"):
        LikelihoodClassifier(vae=VAE(**LITTLE)).fit(replace(train, labels=labels))
    with pytest.raises(InputError, match="at least 2 draws and a VAE with classes, got 1 draws"):
        LikelihoodClassifier(draws=1)
    with pytest.raises(InputError, match="conditional=False"):
        LikelihoodClassifier(vae=VAE(conditional=False))

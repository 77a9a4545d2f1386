"""`builtin/glyph` does what its README says, and its script's arithmetic is right."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel

from headfirst.data import ImageSet, few_shot, normalise, preprocess
from headfirst.nn import PretrainedBackbone, load_backbone
from headfirst.types import Preprocessing

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "src" / "headfirst" / "nn" / "glyph"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_glyph", REPOSITORY / "scripts" / "make_glyph.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def glyph() -> PretrainedBackbone:
    return load_backbone("builtin/glyph")


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return ImageSet.digits()


def pixels(sources, preprocessing: Preprocessing) -> Tensor:
    return torch.from_numpy(np.stack([preprocess(image, preprocessing) for image in sources])).permute(0, 3, 1, 2)


@torch.no_grad()
def features(glyph: PretrainedBackbone, sources) -> Tensor:
    images = pixels(sources, glyph.preprocessing)
    return torch.cat([glyph(normalise(batch, glyph.preprocessing)) for batch in images.split(500)])


def test_is_small_and_is_what_transformers_loads(glyph, digits):
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3e6
    images = normalise(pixels(digits["val"].sources[:16], glyph.preprocessing), glyph.preprocessing)
    reference = AutoModel.from_pretrained(FOLDER, local_files_only=True).eval()
    with torch.no_grad():
        expected = reference(images).pooler_output.flatten(1)
        torch.testing.assert_close(glyph(images), expected, rtol=1e-4, atol=1e-5)


def test_was_trained_with_the_preprocessing_it_ships(glyph, script):
    assert glyph.preprocessing == script.PREPROCESSING


def test_twenty_labels_a_class_are_enough(glyph, digits):
    """The README's figures, with room for another machine's rounding."""
    from sklearn.linear_model import LogisticRegression

    few = few_shot(digits["train"], 20, seed=0)
    x = features(glyph, few.sources)
    mean, scale = x.mean(dim=0), x.std()
    probe = LogisticRegression(max_iter=2000).fit((x - mean) / scale, few.labels)

    def accuracy(name: str) -> float:
        return probe.score((features(glyph, digits[name].sources) - mean) / scale, digits[name].labels)

    assert accuracy("test") > 0.90
    assert accuracy("shift-uci") > 0.70


def test_learns_from_train_and_unlabelled_alone(script, digits):
    seen = {image.numpy().tobytes() for image in script.unlabelled_images().permute(0, 2, 3, 1)}

    def share_seen(name: str) -> float:
        return np.mean([preprocess(i, script.PREPROCESSING).tobytes() in seen for i in digits[name].sources])

    assert share_seen("train") == share_seen("unlabelled") == 1
    assert share_seen("val") == share_seen("test") == share_seen("shift-uci") == 0


def test_reads_no_label(script, digits, monkeypatch):
    honest = script.unlabelled_images()
    spoilt = {name: replace(split, labels=np.full(len(split), -1)) for name, split in digits.splits.items()}
    monkeypatch.setattr(script.ImageSet, "digits", lambda: replace(digits, splits=spoilt))
    assert torch.equal(script.unlabelled_images(), honest)


def test_batch_norm_statistics_are_those_of_the_images(glyph, script):
    """The statistics that adaptation keeps: mean and variance of what enters each norm, over both domains."""
    images = normalise(script.unlabelled_images(), script.PREPROCESSING)
    entering: dict[nn.Module, Tensor] = {}
    norms = [module for module in glyph.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [n.register_forward_pre_hook(lambda n, x: entering.__setitem__(n, x[0])) for n in norms]
    with torch.no_grad():
        glyph(images)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        mean = entering[norm].mean(dim=(0, 2, 3))
        spread = norm.running_var.sqrt()
        assert ((norm.running_mean - mean) / spread).abs().max() < 0.05
        assert (entering[norm].std(dim=(0, 2, 3)) / spread).log().abs().max() < 0.05


def test_nt_xent_of_equal_embeddings(script):
    z = torch.ones(8, 4)
    assert script.nt_xent(z, z, 0.2).item() == pytest.approx(math.log(15), rel=1e-6)


def test_nt_xent_is_equation_one(script):
    """Against the double loop of Chen et al. (2020), equation 1, in float64."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    z = [row / row.norm() for row in (*a, *b)]
    total = 0.0
    for i in range(10):
        j = (i + 5) % 10
        denominator = sum(math.exp(z[i] @ z[k] / 0.3) for k in range(10) if k != i)
        total -= math.log(math.exp(z[i] @ z[j] / 0.3) / denominator)
    assert script.nt_xent(a, b, 0.3).item() == pytest.approx(total / 10, rel=1e-12)


def test_views_are_the_generators_and_stay_in_range(script):
    images = torch.randint(0, 256, (32, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    one, same, other = (script.view(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    black, white = (script.normalise(torch.full((1, 3, 1, 1), float(v)), script.PREPROCESSING) for v in (0, 255))
    assert (one >= black - 1e-5).all()
    assert (one <= white + 1e-5).all()


def test_the_same_seed_makes_the_same_weights(script):
    images = torch.randint(0, 256, (64, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()

    def weights(seed: int) -> dict[str, Tensor]:
        return script.pretrain(images, seed=seed, epochs=1, batch=16).state_dict()

    one, same, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)

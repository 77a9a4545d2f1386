"""`builtin/glyph` does what its README says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel

from headfirst.data import ImageSet, ImageSplit, few_shot, normalise, preprocess, unlabelled_pool
from headfirst.nn import PretrainedBackbone, load_backbone

FOLDER = Path(__file__).parents[2] / "src" / "headfirst" / "nn" / "glyph"


@pytest.fixture(scope="module")
def glyph() -> PretrainedBackbone:
    return load_backbone("builtin/glyph")


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return ImageSet.digits()


def seen_by(glyph: PretrainedBackbone, split: ImageSplit) -> Tensor:
    """The images as the network takes them."""
    pixels = np.stack([preprocess(image, glyph.preprocessing) for image in split.sources])
    return normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2), glyph.preprocessing)


@torch.no_grad()
def features(glyph: PretrainedBackbone, split: ImageSplit) -> Tensor:
    return torch.cat([glyph(batch) for batch in seen_by(glyph, split).split(500)])


def test_is_small_and_is_what_transformers_loads(glyph, digits):
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3e6
    images = seen_by(glyph, digits["val"].take(range(16)))
    reference = AutoModel.from_pretrained(FOLDER, local_files_only=True).eval()
    with torch.no_grad():
        expected = reference(images).pooler_output.flatten(1)
        torch.testing.assert_close(glyph(images), expected, rtol=1e-4, atol=1e-5)


def test_twenty_labels_a_class_are_enough(glyph, digits):
    """scikit-learn's probe on what the README's own probes are asked, with room for another machine's rounding."""
    from sklearn.linear_model import LogisticRegression

    few = few_shot(digits["train"], 20, seed=0)
    x = features(glyph, few)
    mean, scale = x.mean(dim=0), x.std()
    probe = LogisticRegression(max_iter=2000).fit((x - mean) / scale, few.labels)

    def accuracy(name: str) -> float:
        return probe.score((features(glyph, digits[name]) - mean) / scale, digits[name].labels)

    assert accuracy("test") > 0.90
    assert accuracy("shift-uci") > 0.70


def test_batch_norm_statistics_are_those_of_the_images(glyph, digits):
    """The statistics that adaptation keeps: mean and variance of what enters each norm, over both domains."""
    entering: dict[nn.Module, Tensor] = {}
    norms = [module for module in glyph.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [n.register_forward_pre_hook(lambda n, x: entering.__setitem__(n, x[0])) for n in norms]
    with torch.no_grad():
        glyph(seen_by(glyph, unlabelled_pool(digits)))
    for hook in hooks:
        hook.remove()
    for norm in norms:
        mean = entering[norm].mean(dim=(0, 2, 3))
        spread = norm.running_var.sqrt()
        assert ((norm.running_mean - mean) / spread).abs().max() < 0.05
        assert (entering[norm].std(dim=(0, 2, 3)) / spread).log().abs().max() < 0.05

"""A tiny random residual net and tiny images on which fine-tuning takes a moment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ResNetConfig, ResNetModel

from headfirst.data import ImageSet, ImageSplit, prepare
from headfirst.nn import PretrainedBackbone, load_backbone

torch.set_num_threads(1)


def make_split(name: str, num_images: int, *, seed: int) -> ImageSplit:
    """Three classes of noisy 16×16 images, told apart by colour."""
    random = np.random.default_rng(seed)
    labels = np.arange(num_images) % 3
    images = random.integers(0, 120, size=(num_images, 16, 16, 3))
    for i, label in enumerate(labels):
        images[i, ..., label] += 100
    return ImageSplit(
        name=name,
        ids=tuple(f"{name}/{i}" for i in range(num_images)),
        sources=tuple(image.astype(np.uint8) for image in images),
        labels=labels.astype(np.int64),
        classes=("red", "green", "blue"),
    )


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("resnet")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", num_channels=3)
        model = ResNetModel(config)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        model.save_pretrained(directory)
    (directory / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "ViTImageProcessor",
                "size": {"height": 16, "width": 16},
                "resample": 2,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.25, 0.25, 0.25],
            }
        )
    )
    return directory


@pytest.fixture
def backbone(tiny_directory: Path) -> PretrainedBackbone:
    return load_backbone(tiny_directory)


@pytest.fixture(scope="session")
def images(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return make_images(tiny_directory, tmp_path_factory.mktemp("cache"))


def make_images(tiny_directory: Path, cache: Path) -> ImageSet:
    """Home splits and `shift-dim`, a third as bright, prepared for the net in `tiny_directory`."""
    splits = {
        name: make_split(name, count, seed=seed)
        for seed, (name, count) in enumerate({"train": 24, "val": 18, "test": 30, "shift-dim": 21}.items())
    }
    shift = splits["shift-dim"]
    splits["shift-dim"] = ImageSplit(
        name=shift.name,
        ids=shift.ids,
        sources=tuple((np.asarray(image) // 3).astype(np.uint8) for image in shift.sources),
        labels=shift.labels,
        classes=shift.classes,
    )
    found = ImageSet(name="colours", splits=splits, classes=("red", "green", "blue"))
    return prepare(found, load_backbone(tiny_directory).preprocessing, cache=cache)

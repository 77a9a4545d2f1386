"""A tiny random backbone and a folder of small real files. No network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import ResNetConfig, ResNetModel
from transformers.utils import logging

from headfirst.data import ImageSplit


def write_tiny_checkpoint(directory: Path) -> Path:
    """A random ResNet of 32×32 images, with statistics that a batch would move."""
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], layer_type="basic")
    logging.disable_progress_bar()
    ResNetModel(config).save_pretrained(directory)
    logging.enable_progress_bar()
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 32, "width": 32},
        "resample": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    return directory


def write_images(folder: Path, count: int) -> list[Path]:
    """PNG files of noise, each its own."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(7)
    paths = [folder / f"{i:04}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return paths


def split_of(paths: list[Path]) -> ImageSplit:
    """The split "train" of these files, two classes in turn."""
    return ImageSplit(
        name="train",
        ids=tuple(path.name for path in paths),
        sources=tuple(paths),
        labels=np.arange(len(paths), dtype=np.int64) % 2,
        classes=("even", "odd"),
    )

"""A tiny random backbone and a folder of small real files. No network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_images import write_images, write_tiny_checkpoint

from headfirst.nn import load_backbone

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def backbone(tiny_checkpoint):
    return load_backbone(tiny_checkpoint)


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    return write_images(tmp_path / "images", 21)

"""Fixtures that several packages' tests use. No test touches the cache of the person who runs it."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints import checkpoints, sentence_encoder
from headfirst.types import Preprocessing
from tiny import backbone, images, tiny_directory

__all__ = ["backbone", "checkpoints", "images", "sentence_encoder", "tiny_directory"]

PACS = Path(__file__).parents[1] / "../shared/data/pacs"
MOBILENET = Path(__file__).parents[1] / "../shared/weights/mobilenet-v2-imagenet"


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADFIRST_CACHE", str(tmp_path_factory.mktemp("headfirst-cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Also where a command takes the cores that are free: two of its runs are to round alike, whatever runs beside."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headfirst.features.threads._busy", len)
        yield


@pytest.fixture
def photograph() -> Callable[..., np.ndarray]:
    """`photograph(seed, height, width)`: smooth random colours, (height, width, 3) uint8."""
    return make_photograph


@pytest.fixture
def photo_folder(tmp_path: Path) -> Callable[..., Path]:
    """`photo_folder({"train/dog": 4, "test/dog": 2})` makes PNG files in those folders under one root."""

    def make(folders: dict[str, int], name: str = "photos") -> Path:
        root = tmp_path / name
        for number, (folder, count) in enumerate(folders.items()):
            (root / folder).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                image = Image.fromarray(make_photograph(1000 * number + i, 24, 32))
                image.save(root / folder / f"{i:03d}.png")
        return root

    return make


@pytest.fixture
def tiny() -> Preprocessing:
    """16 pixels from a shortest edge of 18, bilinear."""
    return Preprocessing(resize=18, resample="bilinear", crop=(16, 16), mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture(scope="session")
def pacs() -> Path:
    """The real photographs beside the checkout; use with `@pytest.mark.real`."""
    if not PACS.is_dir():
        pytest.skip(f"no photographs at {PACS}")
    return PACS.resolve()


@pytest.fixture(scope="session")
def mobilenet() -> Path:
    """The real pretrained backbone beside the checkout; use with `@pytest.mark.real`."""
    if not MOBILENET.is_dir():
        pytest.skip(f"no weights at {MOBILENET}")
    return MOBILENET.resolve()


def make_photograph(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))

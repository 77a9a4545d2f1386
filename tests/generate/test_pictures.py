"""Square images of one size in [0, 1], grey where all are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headfirst.data import ImageSet, ImageSplit
from headfirst.errors import InputError
from headfirst.generate import pictures
from headfirst.generate.pictures import as_rgb


def split(*arrays: np.ndarray | Path, labels: list[int] | None = None) -> ImageSplit:
    n = len(arrays)
    return ImageSplit(name="train", ids=tuple(map(str, range(n))), sources=tuple(arrays), classes=("a", "b"),
                      labels=np.array(labels or [-1] * n))  # fmt: skip


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def grey(side: int, seed: int = 0) -> np.ndarray:
    return np.repeat(noise(side, side, seed)[..., :1], 3, axis=2)


def test_small_squares_stay_as_they_are():
    images = [grey(28, i) for i in range(3)]
    found = pictures(split(*images, labels=[0, 1, 1]))
    assert (found.size, found.channels, found.resized, found.classes) == (28, 1, "", ("a", "b"))
    assert found.shares == pytest.approx((1 / 3, 2 / 3))
    batch = found.batch(np.array([2, 0]))
    assert batch.shape == (2, 1, 28, 28)
    assert torch.equal(as_rgb(batch), torch.from_numpy(np.stack([images[2], images[0]])).permute(0, 3, 1, 2))
    coloured = pictures(split(noise(28, 28))).batch()
    assert torch.equal(as_rgb(coloured)[0], torch.from_numpy(noise(28, 28)).permute(2, 0, 1))


def test_others_are_resized_and_it_is_said(tmp_path: Path):
    Image.fromarray(noise(40, 60)).save(tmp_path / "a.png")
    found = pictures(split(tmp_path / "a.png", noise(28, 28)))
    assert (found.size, found.channels, found.classes, found.shares) == (32, 3, (), ())
    assert found.resized == "images are resized to 32 pixels on the shorter edge and cut to a square"
    assert found.batch().shape == (2, 3, 32, 32)
    assert pictures(split(noise(80, 80))).size == 32  # its own would be large
    assert pictures(split(noise(30, 30))).size == 32  # no multiple of four
    assert pictures(split(grey(28), noise(28, 28)), size=16).channels == 3


def test_a_size_that_cannot_be():
    with pytest.raises(InputError, match="size must be a multiple of 4 from 8 on, got 30; take 32"):
        pictures(split(noise(28, 28)), size=30)
    with pytest.raises(InputError, match="got 0; take 8"):
        pictures(split(noise(28, 28)), size=0)


def test_digits():
    found = pictures(ImageSet.digits()["train"])
    assert (found.size, found.channels, len(found), len(found.classes)) == (28, 1, 2500, 10)
    assert found.shares == pytest.approx((0.1,) * 10)

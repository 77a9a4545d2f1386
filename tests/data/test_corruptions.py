import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from PIL import Image

from headfirst.data import (
    CORRUPTIONS,
    SEVERITIES,
    ImageSet,
    ImageSplit,
    corrupt,
    corrupt_image,
    corrupt_mixed,
    prepare,
    prepare_split,
)
from headfirst.errors import InputError
from headfirst.types import Preprocessing


@pytest.fixture
def split(photo_folder: Callable[..., Path], tmp_path: Path) -> ImageSplit:
    root = photo_folder({"train/a": 20, "train/b": 20, "val/a": 1})
    recipe = Preprocessing(resize=32, resample="bilinear", crop=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    return prepare(ImageSet.open(root), recipe, cache=tmp_path / "cache")["train"]


def damage(image: np.ndarray, kind: str, severity: int, key: int = 3) -> float:
    changed = corrupt_image(image, kind, severity, key=key)
    assert changed.shape == image.shape
    return float(np.sqrt(np.mean((changed.astype(float) - image) ** 2)))


@pytest.mark.parametrize("side", [28, 96])
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_severity_harms_more_than_the_last(kind: str, side: int, photograph: Callable[..., np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    images = [
        np.clip(photograph(i, side, side) + rng.normal(0, 20, (side, side, 3)), 0, 255).astype(np.uint8)
        for i in range(20)
    ]
    harm = np.array([[damage(image, kind, severity) for severity in SEVERITIES] for image in images])
    assert (np.diff(harm.mean(axis=0)) > 0).all(), harm.mean(axis=0)
    if kind != "rotation":  # one picture may by chance look more like itself when turned further
        assert (np.diff(harm, axis=1) > -0.5).all()


def test_prepared_anew_it_is_still_corrupted(split: ImageSplit, tmp_path: Path) -> None:
    dark = corrupt(split, "brightness", 5, name="dark", cache=tmp_path / "cache")
    recipe = Preprocessing(resize=16, resample="bilinear", crop=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    ours, theirs = (prepare_split(s, recipe, cache=tmp_path / "cache")[0].batch() for s in (
        replace(dark, hashes=None, pixels=None), replace(split, hashes=None, pixels=None)))  # fmt: skip
    expected = dark.batch().float().mean() - split.batch().float().mean()
    assert abs(expected) > 20
    assert ours.float().mean() - theirs.float().mean() == pytest.approx(expected.item(), abs=2)


def test_noise_is_normal_of_the_stated_size() -> None:
    grey = np.full((200, 200, 3), 128, dtype=np.uint8)
    for severity, sigma in zip((1, 2, 3), (0.08, 0.12, 0.18), strict=True):
        noise = corrupt_image(grey, "gaussian_noise", severity, key=1).astype(float) - 128
        assert noise.mean() == pytest.approx(0, abs=0.6)
        assert noise.std() == pytest.approx(sigma * 255, rel=0.02)
        assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02


def test_blur_is_a_gaussian() -> None:
    dot = np.zeros((101, 101, 3), dtype=np.uint8)
    dot[40:61, 40:61] = 250
    blurred = corrupt_image(dot, "blur", 4, key=0)[..., 0].astype(float)
    exact = scipy.ndimage.gaussian_filter(dot[..., 0].astype(float), 0.026 * 101)
    assert np.abs(blurred - exact).max() < 5


def test_contrast_and_brightness_are_the_stated_maps() -> None:
    image = np.array([[[100, 0, 250]], [[200, 0, 250]]], dtype=np.uint8)
    np.testing.assert_array_equal(corrupt_image(image, "contrast", 2, key=0)[..., 0], [[135], [165]])
    np.testing.assert_array_equal(corrupt_image(image, "brightness", 2, key=0), [[[151, 51, 255]], [[251, 51, 255]]])


def test_jpeg_is_jpeg(photograph: Callable[..., np.ndarray]) -> None:
    image = photograph(0)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=15)
    np.testing.assert_array_equal(corrupt_image(image, "jpeg", 3, key=0), np.asarray(Image.open(buffer)))


def test_pixelation_keeps_block_means() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    coarse = corrupt_image(image, "pixelate", 2, key=0)  # to 10×10: blocks of 2×2
    blocks = image.reshape(10, 2, 10, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse[::2, ::2], blocks, atol=1.01)  # Pillow rounds twice
    np.testing.assert_array_equal(coarse[::2], coarse[1::2])


def test_rotation_turns_by_the_stated_angle_to_either_side() -> None:
    image = np.zeros((61, 61, 3), dtype=np.uint8)
    image[28:33, 45:52] = 255  # right of the centre
    angles = set()
    for key in range(12):
        turned = corrupt_image(image, "rotation", 3, key=key)[8:-8, 8:-8, 0].astype(float)
        y, x = (np.average(c, weights=turned) - 22 for c in np.indices(turned.shape))
        angles.add(round(float(np.degrees(np.arctan2(-y, x)))))
    assert angles == {20, -20}


def test_rotation_leaves_no_black_corners(photograph: Callable[..., np.ndarray]) -> None:
    white = np.full((40, 50, 3), 255, dtype=np.uint8)
    for severity in SEVERITIES:
        assert (corrupt_image(white, "rotation", severity, key=0) == 255).all()


def test_what_an_image_suffers_depends_on_its_content_alone(split: ImageSplit, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(len(split))
    for make in (
        lambda s, c: corrupt(s, "gaussian_noise", 2, cache=c),
        lambda s, c: corrupt(s, "rotation", 2, cache=c),
        lambda s, c: corrupt_mixed(s, 2, name="val-mixed", cache=c),
    ):
        whole = make(split, tmp_path / "one")
        shuffled = make(split.take(order[:10]), tmp_path / "two")
        np.testing.assert_array_equal(shuffled.batch(), whole.batch(order[:10]))
        assert shuffled.hashes == tuple(whole.hashes[i] for i in order[:10])


def test_a_corrupted_split_is_another_split(split: ImageSplit, tmp_path: Path) -> None:
    before = split.batch().clone()
    noisy = corrupt(split, "gaussian_noise", 1, cache=tmp_path / "cache")
    assert noisy.name == "shift-gaussian_noise-1"
    assert noisy.ids == split.ids
    np.testing.assert_array_equal(noisy.labels, split.labels)
    assert not set(noisy.hashes) & set(split.hashes)
    assert noisy.fingerprint != corrupt(split, "gaussian_noise", 2, cache=tmp_path / "cache").fingerprint
    np.testing.assert_array_equal(split.batch(), before)
    for row, image in zip(noisy.batch(), before, strict=True):
        assert not (row == image).all()


def test_the_mixture_uses_every_kind(split: ImageSplit, tmp_path: Path) -> None:
    mixed = corrupt_mixed(split, 3, name="val-mixed", cache=tmp_path / "cache")
    kinds = {
        kind: set(corrupt(split, kind, 3, cache=tmp_path / "cache").hashes) & set(mixed.hashes) for kind in CORRUPTIONS
    }
    assert sum(map(len, kinds.values())) == len(split)
    assert all(kinds.values())
    assert scipy.stats.chisquare([len(found) for found in kinds.values()]).pvalue > 0.001


def test_refusals(split: ImageSplit, photo_folder: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"no corruption is called 'blurr'.*did you mean 'blur'"):
        corrupt(split, "blurr", 1)
    with pytest.raises(InputError, match="a severity is 1, 2, 3, 4 or 5, got 6"):
        corrupt_mixed(split, 6, name="x")
    with pytest.raises(InputError, match="not prepared"):
        corrupt(ImageSet.open(photo_folder({"a": 3, "b": 3}, "raw"))["train"], "blur", 1)

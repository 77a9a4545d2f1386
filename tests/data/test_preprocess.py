import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.image_transforms import center_crop, get_resize_output_image_size, normalize

from headfirst.data import geometry_key, normalise, preprocess, read_image
from headfirst.data.preprocess import centre_crop, resized_size
from headfirst.errors import DataError, InputError
from headfirst.types import Preprocessing

RULES = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 300))
def test_shortest_edge_sizes_are_those_of_transformers(height: int, width: int, edge: int) -> None:
    image = np.zeros((height, width, 3), dtype=np.uint8)
    expected = get_resize_output_image_size(image, edge, default_to_square=False, input_data_format="channels_last")
    assert resized_size((height, width), edge) == expected


@settings(max_examples=200)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_centre_crop_is_that_of_transformers(height: int, width: int, crop_height: int, crop_width: int) -> None:
    image = np.random.default_rng(0).integers(1, 256, (height, width, 3), dtype=np.uint8)
    expected = center_crop(image, (crop_height, crop_width), input_data_format="channels_last")
    np.testing.assert_array_equal(centre_crop(image, (crop_height, crop_width)), expected)


@pytest.mark.parametrize("resample", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_resize_is_pillows(resample: str, photograph: Callable[..., np.ndarray]) -> None:
    image = photograph(0, 90, 130)
    rule = getattr(Image.Resampling, resample.upper())
    recipe = Preprocessing(resize=(40, 50), resample=resample, crop=None, **RULES)
    np.testing.assert_array_equal(preprocess(image, recipe), np.asarray(Image.fromarray(image).resize((50, 40), rule)))


def test_normalise_is_that_of_transformers(photograph: Callable[..., np.ndarray]) -> None:
    images = np.stack([photograph(i) for i in range(3)])
    recipe = Preprocessing(resize=None, resample="bilinear", crop=(24, 32), **RULES)
    ours = normalise(torch.from_numpy(images).permute(0, 3, 1, 2), recipe)
    for image, values in zip(images, ours, strict=True):
        theirs = normalize((image / 255).astype(np.float32), *RULES.values(), input_data_format="channels_last")
        np.testing.assert_allclose(values.permute(1, 2, 0), theirs, rtol=0, atol=2e-6)


def test_normalise_takes_augmented_floats() -> None:
    recipe = Preprocessing(resize=None, resample="bilinear", crop=(2, 2), mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 2.0))
    values = normalise(torch.full((1, 3, 2, 2), 127.5), recipe)
    np.testing.assert_allclose(values[0, :, 0, 0], [0.5, 0.0, -0.25])
    with pytest.raises(InputError, match="std must be positive"):
        normalise(torch.zeros(1, 3, 2, 2), Preprocessing(**{**vars(recipe), "std": (1.0, 0.0, 1.0)}))


def test_a_thread_thin_image_cannot_fill_the_memory() -> None:
    recipe = Preprocessing(resize=256, resample="bilinear", crop=(224, 224), **RULES)
    with pytest.raises(DataError, match="9000×1 pixels would be resized to 2304000×256"):
        preprocess(np.zeros((1, 9000, 3), dtype=np.uint8), recipe)


def test_geometry_key_follows_the_geometry_only() -> None:
    base = Preprocessing(resize=256, resample="bilinear", crop=(224, 224), **RULES)
    same = Preprocessing(**{**vars(base), "mean": (0.0, 0.0, 0.0)})
    assert geometry_key(base) == geometry_key(same)
    for change in ({"resize": 255}, {"resize": (256, 256)}, {"resample": "bicubic"}, {"crop": None}):
        assert geometry_key(Preprocessing(**{**vars(base), **change})) != geometry_key(base)


@pytest.mark.real
@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_real_photographs_equal_pillow_at_every_pixel(pacs: Path, resample: str) -> None:
    recipe = Preprocessing(resize=256, resample=resample, crop=(224, 224), **RULES)
    for path in sorted(pacs.glob("train/*/*.jpg"))[::40]:
        picture = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
        resized = np.asarray(picture.resize((256, 256), getattr(Image.Resampling, resample.upper())))
        np.testing.assert_array_equal(preprocess(read_image(path), recipe), resized[16:240, 16:240])

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from headfirst.data import Handwriting, ImageSet
from headfirst.data.handwriting import _ELASTIC, _KNOTS, _NAMES, _NOISE, _STREAM, _normals
from headfirst.errors import InputError
from headfirst.randomness import Draw, keyed_bits, keyed_uniform

SEED, EPOCH, VIEW = 3, 2, 1
OFF = Handwriting(
    degrees=0.0,
    shear=0.0,
    scale=(1.0, 1.0),
    shift=0.0,
    elastic=0.0,
    thicker_probability=0.0,
    thinner_probability=0.0,
    cells=(),
    gamma=0.0,
    contrast=(1.0, 1.0),
    noise=0.0,
)


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    sources = ImageSet.digits()["train"].sources[::13]
    pixels = [np.asarray(Image.fromarray(np.asarray(source)).resize((24, 24))) for source in sources]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def draw(samples: object) -> Draw:
    return Draw(SEED, EPOCH, np.asarray(samples))


def reference(recipe: Handwriting, image: np.ndarray, sample: int, size: tuple[int, int]) -> np.ndarray:
    """One image in float64, as the docstrings have it."""
    names = [*_NAMES, *(f"cells {i}" for i in range(len(recipe.cells)))]
    key = SEED, EPOCH, np.array(sample)
    u = {name: float(keyed_uniform(*key, _STREAM, VIEW, i)) for i, name in enumerate(names)}
    ink = reference_redrawn(recipe, image / 255.0, u, key, size)
    if u["thicker"] < recipe.thicker_probability:
        ink = ink + u["thickness"] * (ndimage.maximum_filter(ink, 3, mode="nearest") - ink)
    if u["thinner"] < recipe.thinner_probability:
        ink = ink + 0.6 * u["thinness"] * (ndimage.minimum_filter(ink, 3, mode="nearest") - ink)
    for i, (count, probability) in enumerate(recipe.cells):
        if u[f"cells {i}"] < probability:
            coarse = ink.reshape(count, size[0] // count, count, size[1] // count).mean(axis=(1, 3))
            ink = (cubic(count, size[0]) @ coarse @ cubic(count, size[1]).T).clip(0, 1)
    middle = 0.5 ** math.exp(recipe.gamma * (2 * u["gamma"] - 1))
    ink = ink / ((1 / middle - 2) * (1 - ink) + 1)
    ink = ink * (recipe.contrast[0] + (recipe.contrast[1] - recipe.contrast[0]) * u["contrast"])
    return 255 * (ink + recipe.noise * u["noise"] * coins(size[0] * size[1], *key, _NOISE, VIEW).reshape(size)).clip(
        0, 1
    )


def reference_redrawn(
    recipe: Handwriting, ink: np.ndarray, u: dict[str, float], key: tuple, size: tuple[int, int]
) -> np.ndarray:
    height, width = ink.shape
    extent = {n: recipe.scale[0] * (recipe.scale[1] / recipe.scale[0]) ** u[n] for n in ("width", "height")}
    theta = math.radians(recipe.degrees) * (2 * u["angle"] - 1)
    lean = recipe.shear * (2 * u["lean"] - 1)
    knots = coins(2 * _KNOTS**2, *key, _ELASTIC, VIEW).reshape(2, _KNOTS, _KNOTS) * recipe.elastic * u["elastic"]
    bend_x, bend_y = (cubic(_KNOTS, size[0]) @ part @ cubic(_KNOTS, size[1]).T for part in knots)
    shown = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            x = (2 * (j + 0.5) / size[1] - 1) * extent["width"] * width / 2
            y = (2 * (i + 0.5) / size[0] - 1) * extent["height"] * height / 2
            x += lean * y
            x, y = math.cos(theta) * x - math.sin(theta) * y, math.sin(theta) * x + math.cos(theta) * y
            x += (recipe.shift * (2 * u["left"] - 1) + bend_x[i, j] + 1) * width / 2 - 0.5
            y += (recipe.shift * (2 * u["top"] - 1) + bend_y[i, j] + 1) * height / 2 - 0.5
            shown[i, j] = bilinear(ink, x, y)
    return shown


def bilinear(ink: np.ndarray, x: float, y: float) -> float:
    left, top, total = math.floor(x), math.floor(y), 0.0
    for row, weight_y in ((top, top + 1 - y), (top + 1, y - top)):
        for column, weight_x in ((left, left + 1 - x), (left + 1, x - left)):
            if 0 <= row < ink.shape[0] and 0 <= column < ink.shape[1]:
                total += weight_x * weight_y * ink[row, column]
    return total


def coins(count: int, *key: object) -> np.ndarray:
    bits = keyed_bits(*key, np.arange(count))  # pyright: ignore[reportArgumentType]
    return np.array([(bin(int(each)).count("1") - 32) / 4 for each in bits])


def cubic(count: int, length: int) -> np.ndarray:
    """(length, count): Keys' cubic convolution with a = -3/4, pixel centres, ends repeated."""
    weights = np.zeros((length, count))
    for i in range(length):
        place = (i + 0.5) * count / length - 0.5
        for knot in range(math.floor(place) - 1, math.floor(place) + 3):
            t, a = abs(place - knot), -0.75
            near = (a + 2) * t**3 - (a + 3) * t**2 + 1
            far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
            weights[i, min(max(knot, 0), count - 1)] += near if t <= 1 else far if t < 2 else 0
    return weights


def test_views_are_those_of_a_plain_loop(digits: torch.Tensor) -> None:
    recipe = Handwriting(cells=((12, 0.4), (8, 0.4)), scale=(0.74, 1.15))  # no place is read twice
    samples = np.arange(30, 46)
    views = recipe(digits[:16], draw(samples), VIEW)
    for i, sample in enumerate(samples):
        expected = reference(recipe, digits[i, 0].numpy(), int(sample), (24, 24))
        np.testing.assert_allclose(views[i, 0], expected, atol=0.02)
        assert torch.equal(views[i, 0], views[i, 1])
        assert torch.equal(views[i, 0], views[i, 2])


PARTS = {
    "degrees": 40.0,
    "shear": 0.5,
    "scale": (0.8, 1.2),
    "shift": 0.3,
    "elastic": 0.2,
    "thicker_probability": 0.7,
    "thinner_probability": 0.7,
    "cells": ((6, 0.7),),
    "gamma": 0.8,
    "contrast": (0.3, 0.6),
    "noise": 0.3,
}


@pytest.mark.parametrize("part", PARTS)
def test_each_change_alone_is_that_of_a_plain_loop(part: str, digits: torch.Tensor) -> None:
    recipe = dataclasses.replace(OFF, **{part: PARTS[part]})
    views = recipe(digits[:5], draw(np.arange(5)), VIEW)
    assert (views - digits[:5]).abs().max() > 10
    for i in range(5):
        expected = reference(recipe, digits[i, 0].numpy(), i, (24, 24))
        np.testing.assert_allclose(views[i, 0], expected, atol=0.02)


def test_what_is_off_leaves_the_numbers_alone() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, 16, 16)
    assert torch.equal(OFF(levels, draw([1, 2]), 0), levels.float())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_sample_does_not_depend_on_its_batch_or_layout(threads: int, digits: torch.Tensor) -> None:
    images, recipe = digits[:201], Handwriting()
    samples = np.random.default_rng(0).permutation(10_000)[: len(images)]
    torch.set_num_threads(threads)
    try:
        for size in (None, (17, 19), (9, 9)):
            whole = recipe(images, draw(samples), VIEW, size=size)
            order = np.random.default_rng(1).permutation(len(images))
            assert torch.equal(recipe(images[order], draw(samples[order]), VIEW, size=size), whole[order])
            for rows in (slice(0, 1), slice(7, 8), slice(50, 55), slice(90, None)):
                assert torch.equal(recipe(images[rows], draw(samples[rows]), VIEW, size=size), whole[rows])
            last = recipe(images.contiguous(memory_format=torch.channels_last), draw(samples), VIEW, size=size)
            assert last.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(last, whole)
    finally:
        torch.set_num_threads(1)


def test_views_of_one_digit_differ_and_stay_the_digit(digits: torch.Tensor) -> None:
    numbers = draw(np.arange(len(digits)))
    one, other = (Handwriting()(digits, numbers, view)[:, 0].flatten(1) for view in (0, 1))
    assert (one - other).abs().mean() > 10
    near = torch.nn.functional.cosine_similarity
    assert near(one, other).mean() > near(one, other.roll(len(digits) // 2, 0)).mean() + 0.04


def test_heads_of_coins_are_normal() -> None:
    values = _normals(Draw(0, 0, np.arange(400)), 500, 7).ravel().astype(np.float64)
    assert values.mean() == pytest.approx(0, abs=0.01)
    assert values.std() == pytest.approx(1, abs=0.01)
    steps = np.arange(-3, 3.25, 0.25)
    found = [(values <= step).mean() for step in steps]
    np.testing.assert_allclose(found, stats.norm.cdf(steps + 0.125), atol=0.005)


def test_small_crops_lie_inside() -> None:
    recipe = dataclasses.replace(OFF, scale=(0.8, 1.25))
    ramp = torch.arange(64, dtype=torch.uint8).repeat(64, 1).expand(500, 3, 64, 64)
    for area in ((0.1, 0.1), (0.05, 0.3)):
        across, down = (
            recipe(image, draw(np.arange(500)), 0, size=(16, 16), area=area)[:, 0].double().numpy()
            for image in (ramp, ramp.transpose(2, 3))
        )
        sides = across[:, 8], down[:, :, 8]
        width, height = ((side[:, 10] - side[:, 5]) * 16 / 5 / 64 for side in sides)
        assert area[0] - 1e-4 <= (width * height).min() <= (width * height).max() <= area[1] + 1e-4
        assert (width * height).mean() == pytest.approx(sum(area) / 2, abs=0.01)
        ratio = np.log(width / height)
        assert np.abs(ratio).max() < 2 * np.log(1.25) + 1e-3
        assert ratio.std() == pytest.approx(2 * np.log(1.25) / np.sqrt(6), abs=0.015)  # of a difference of uniforms
        for side, extent in zip(sides, (width, height), strict=True):
            centre = (side[:, 7] + side[:, 8]) / 2 + 0.5
            assert (np.abs(centre - 32) <= 32 * (1 - extent) + 0.01).all()
            assert np.abs(centre - 32).max() > 15


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Handwriting(scale=(1.0, 0.5)), r"scale is a range \(low, high\) with 0 < low ≤ high, got"),
        (lambda: Handwriting(contrast=(0.5, 1.5)), "contrast is a range"),
        (lambda: Handwriting(degrees=200.0), r"degrees must lie in \[0, 180\], got 200"),
        (lambda: Handwriting(noise=-0.5), r"noise must lie in \[0, 1\], got -0.5"),
        (lambda: Handwriting(thicker_probability=1.5), "thicker_probability must lie"),
        (lambda: Handwriting(cells=((1, 0.5),)), "at least 2 cells a side"),
        (lambda: Handwriting(cells=((8, 1.5),)), "probability of a coarser scan must lie"),
        (lambda: Handwriting()(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), draw([1]), 0), "2 images, 1 numbers"),
        (lambda: Handwriting()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), draw([1]), 0, area=(0.0, 1.0)), "area is"),
    ],
)
def test_refusals(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()

"""Coloured digits: drawn as their styles say, alike each time, and never combined where they must not be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headfirst.data import ImageSet
from headfirst.data.coloured import (
    COLOURS,
    KINDS,
    NEVER_BACKGROUND,
    NEVER_INK,
    ColouredDigits,
    Styles,
    coloured_digits,
    draw,
    draw_styles,
)
from headfirst.data.ink import dilated, eroded, ink_of, shear, sheared_to, stroke_width, stroked_to


@pytest.fixture(scope="module")
def drawn() -> ColouredDigits:
    return coloured_digits(seed=0)


@pytest.fixture(scope="module")
def ink() -> torch.Tensor:
    return ink_of(ImageSet.digits()["val"])


def combinations(styles: Styles) -> tuple[set, set]:
    pairs = zip(styles.digit.tolist(), styles.ink.tolist(), styles.background.tolist(), strict=True)
    digit_ink, ink_background = set(), set()
    for digit, ink, background in pairs:
        digit_ink.add((digit, ink))
        ink_background.add((ink, background))
    return digit_ink, ink_background


def test_home_never_meets_what_the_shifts_show(drawn):
    never_ink = set(enumerate(NEVER_INK))
    never_background = set(enumerate(NEVER_BACKGROUND))
    for name in ("train", "val", "test"):
        digit_ink, ink_background = combinations(drawn.styles[name])
        assert not digit_ink & never_ink
        assert not ink_background & never_background
    assert len(combinations(drawn.styles["train"])[0]) == 70  # 8 inks less one, for ten digits: all others are met
    assert combinations(drawn.styles["shift-new-ink"])[0] == never_ink
    assert not combinations(drawn.styles["shift-new-ink"])[1] & never_background
    assert combinations(drawn.styles["shift-new-background"])[1] == never_background
    assert not combinations(drawn.styles["shift-new-background"])[0] & never_ink


def test_every_kind_has_something_for_every_digit():
    digits, samples = np.repeat(np.arange(10), 200), np.arange(2000)
    for kind in KINDS:
        styles = draw_styles(digits, 1, samples=samples, kind=kind)
        assert (styles.ink != styles.background).all()
        assert set(styles.digit[styles.ink < 8].tolist()) == set(range(10))


def test_splits_are_those_of_the_digits(drawn):
    digits = ImageSet.digits()
    for name in ("train", "val", "test"):
        assert drawn.images[name].ids == digits[name].ids
    for name in drawn.images.shifts():
        assert (drawn.images[name].labels == digits["test"].labels).all()
    every = [id_ for split in drawn.images.splits.values() for id_ in split.ids]
    assert len(set(every)) == len(every)


def test_the_seed_decides_and_the_batch_does_not(ink):
    digits, samples = ImageSet.digits()["val"].labels[::25], np.arange(20)
    styles, ink = draw_styles(digits, 3, samples=samples), ink[::25]
    whole = draw(ink, styles, 3, samples=samples)
    assert torch.equal(whole, draw(ink, styles, 3, samples=samples))
    assert not torch.equal(whole, draw(ink, styles, 4, samples=samples))
    for i in range(20):
        one = draw_styles(digits[i : i + 1], 3, samples=samples[i : i + 1])
        assert (one.ink, one.background) == (styles.ink[i], styles.background[i])
        difference = whole[i].int() - draw(ink[i : i + 1], one, 3, samples=samples[i : i + 1])[0].int()
        assert difference.abs().max() <= 1  # a level of rounding


def test_captions_say_what_the_pixels_show(drawn):
    """The corners have the background's colour, the darkest stroke the ink's, and the caption names both."""
    split, styles, captions = drawn.images["val"], drawn.styles["val"], drawn.captions("val")
    paints, names = np.array(list(COLOURS.values())), tuple(COLOURS)
    clean = np.flatnonzero((styles.noise == 0) & (styles.thickness == 2))
    assert len(clean) > 30
    for i in clean:
        image = split.sources[i].astype(int)
        corner = image[:2, :2].reshape(-1, 3).mean(axis=0)
        assert np.abs(paints - corner).sum(axis=1).argmin() == styles.background[i]
        farthest = image.reshape(-1, 3)[np.abs(image.reshape(-1, 3) - corner).sum(axis=1).argmax()]
        assert np.abs(paints - farthest).sum(axis=1).argmin() == styles.ink[i]
        assert f"{names[styles.ink[i]]} " in captions[i]
        assert f"{names[styles.background[i]]} background" in captions[i]


def test_shear_of_a_leaning_line_and_back(ink):
    assert shear(torch.eye(9).flip(1)[None]).item() == pytest.approx(1)
    assert shear(torch.eye(9)[None]).item() == pytest.approx(-1)
    target = torch.full((len(ink),), 0.3)
    assert (shear(sheared_to(ink, target)) - 0.3).abs().quantile(0.95) < 0.01


@pytest.mark.parametrize("width", [2, 4, 6])
def test_stroke_width_of_a_bar(width):
    """A bar across the frame: w rows of ink, w + 2 once dilated."""
    bar = torch.zeros(1, 28, 28)
    bar[:, 10 : 10 + width] = 1
    assert stroke_width(bar).item() == pytest.approx(width)


def test_strokes_end_near_their_target(ink):
    medians = [stroke_width(stroked_to(ink, torch.full((len(ink),), t))).median().item() for t in (1.3, 2.0, 3.4)]
    assert medians == pytest.approx([1.3, 2.0, 3.4], abs=0.25)


def test_dilation_is_max_pooling(ink):
    assert torch.equal(dilated(ink[:9]), torch.nn.functional.max_pool2d(ink[:9, None], 3, 1, 1)[:, 0])
    assert torch.equal(eroded(ink[:9]), -torch.nn.functional.max_pool2d(-ink[:9, None], 3, 1, 1)[:, 0])


def test_noise_has_the_deviation_it_says(ink):
    n, samples = 64, np.arange(64)
    zero = np.zeros(n, dtype=np.int64)
    style = {"digit": zero, "ink": zero + 7, "background": zero + 4, "thickness": zero - 1, "slant": zero - 1}
    clean, noisy = (draw(ink[:n], Styles(**style, noise=zero + k), 0, samples=samples).float() for k in (0, 1))
    corner = (noisy - clean)[:, 2, :6, :6] / 255  # blue 215 on blue stays inside 0 … 255 for most of the noise
    assert 0.05 < corner.std() < 0.13
    assert (clean[:, :, 0, 0] == clean[:, :, 0, 1]).all()

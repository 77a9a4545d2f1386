"""Paired translation: by name and not by order, to the same bits, alone as in company, and what it refuses."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headfirst.data import ImageSplit
from headfirst.errors import FingerprintError, InputError, Interrupted
from headfirst.generate import PairedTranslation, Translator, load_translator, paired, pictures
from headfirst.generate.translation import _translated, mean_distance

SMALL = PairedTranslation(width=4, epochs=3, batch_size=8, fewest=10)


def split(images: list[np.ndarray], *, ending: str = "") -> ImageSplit:
    ids = tuple(f"a/{i:03d}{ending}" for i in range(len(images)))
    labels = np.arange(len(images)) % 2
    return ImageSplit(name="train", ids=ids, sources=tuple(images), labels=labels, classes=("even", "odd"))


def grey(n: int = 24, side: int = 8, seed: int = 0) -> list[np.ndarray]:
    """Bright squares of some size and place on a dark ground."""
    random = np.random.default_rng(seed)
    images = np.zeros((n, side, side), dtype=np.uint8)
    for image in images:
        y, x = random.integers(0, side // 2, 2)
        image[y : y + side // 2, x : x + side // 2] = random.integers(150, 255)
    return list(np.repeat(images[..., None], 3, axis=3))


def inverted(images: list[np.ndarray]) -> list[np.ndarray]:
    return [255 - image for image in images]


SOURCE, TARGET = split(grey()), split(inverted(grey()), ending=".png")


@pytest.fixture(scope="module")
def small() -> Translator:
    return SMALL.fit(SOURCE, TARGET)


def test_it_learns_the_translation():
    recipe = replace(SMALL, width=8, epochs=30, ema_decay=0.9, lr=1e-2)
    other = grey(seed=1)
    val = (split(other), split(inverted(other)))
    made = recipe.fit(SOURCE, TARGET, val=val)
    assert made.record["pairs"] == 24
    assert len(made.record["losses"]) == 30
    assert made.record["l1"] < 0.06
    assert made.record["val_l1"] < 0.08  # what leaving them as they are costs is 0.6
    assert mean_distance(made, pictures(val[0]), pictures(val[0])) > 0.5
    apart = [np.abs(a.astype(float) - b).mean() / 255 for a, b in zip(made.translate(val[0]).images.sources,
                                                                      val[1].sources, strict=True)]  # fmt: skip
    assert made.record["val_l1"] == pytest.approx(np.mean(apart), abs=1e-9)


def test_pairs_are_found_by_name_and_not_by_order(small: Translator):
    order = np.random.default_rng(0).permutation(24)
    source, target = paired(SOURCE, TARGET.take(order))
    assert source is SOURCE
    assert target.ids == TARGET.ids
    assert SMALL.fit(SOURCE, TARGET.take(order)).fingerprint == small.fingerprint
    misnamed = replace(TARGET, sources=tuple(TARGET.sources[i] for i in order))
    assert SMALL.fit(SOURCE, misnamed).fingerprint != small.fingerprint


def test_the_same_seed_the_same_bits_another_seed_others(small: Translator):
    assert SMALL.fit(SOURCE, TARGET).fingerprint == small.fingerprint != SMALL.fit(SOURCE, TARGET, seed=1).fingerprint


def test_stopped_and_called_again_it_ends_in_the_same_bits(small: Translator, tmp_path: Path):
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "training (pairs)" and done == 5:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    with pytest.raises(Interrupted, match="step 5 of 9"):
        SMALL.fit(SOURCE, TARGET, directory=tmp_path, progress=interrupt)
    resumed = SMALL.fit(SOURCE, TARGET, directory=tmp_path)
    assert resumed.fingerprint == small.fingerprint
    assert {**resumed.record, "seconds": 0} == {**small.record, "seconds": 0}
    with pytest.raises(FingerprintError):
        SMALL.fit(SOURCE, SOURCE, directory=tmp_path)


def test_an_image_is_translated_alone_as_in_company(small: Translator):
    images = split(grey(70, seed=2))
    told = []
    made = small.translate(images, progress=lambda *now: told.append(now))
    assert told[-2:] == [("translating", 64, 70), ("translating", 70, 70)]
    assert made.images.ids == images.ids
    assert np.array_equal(made.images.labels, images.labels)
    assert made.images.classes == images.classes
    assert made.made_by == small.fingerprint
    assert made.originals.split.fingerprint == pictures(images).split.fingerprint
    for row in (0, 63, 65, 69):
        alone = small.translate(images.take([row])).images.sources[0]
        assert alone.dtype == np.uint8
        assert np.array_equal(alone, made.images.sources[row])
    x = pictures(images).batch()
    together = _translated(small.network, x[:64], "cpu")
    assert all(torch.equal(_translated(small.network, x[:n], "cpu"), together[:n]) for n in (1, 2, 5, 63))
    with torch.inference_mode():
        raw = small.network(None, x[:64])[0, 0]
    assert np.array_equal(made.images.sources[0][..., 1], (raw * 255).round().byte().numpy())


def test_round_trip(small: Translator, tmp_path: Path):
    back = load_translator(small.save(tmp_path / "made"))
    assert back.fingerprint == small.fingerprint
    assert (back.record, back.trained_on, back.recipe) == (small.record, small.trained_on, small.recipe)
    assert np.array_equal(back.translate(SOURCE).images.sources[3], small.translate(SOURCE).images.sources[3])
    with pytest.raises(InputError, match=r"holds no translator \(translator.json\)"):
        load_translator(tmp_path)
    (tmp_path / "note").touch()
    with pytest.raises(InputError, match="holds files that are no translator"):
        small.save(tmp_path)


def test_colours_shapes_and_files_that_cannot_be_read(tmp_path: Path):
    """Grey photographs of three shapes become coloured ones; one target is damaged."""
    shapes = [(12, 18), (20, 12), (16, 16)]
    random = np.random.default_rng(0)
    sources, targets = [], []
    for i in range(13):
        level = random.integers(0, 255, (*shapes[i % 3], 1), dtype=np.uint8)
        sources.append(np.repeat(level, 3, axis=2))
        targets.append(tmp_path / f"{i}.png")
        Image.fromarray(np.concatenate([level, level // 2, 255 - level], axis=2)).save(targets[-1])
    targets[4].write_bytes(b"no image")
    source = split(sources)
    target = replace(split(sources), sources=tuple(targets))
    made = replace(SMALL, size=12).fit(source, target)
    assert made.record["pairs"] == 12
    assert made.record["events"] == [
        "images are resized to 12 pixels on the shorter edge and cut to a square",
        "1 pairs have an image that cannot be read, and are left out",
    ]
    assert made.network.config["source_channels"] == 1
    shown = made.translate(source)
    assert shown.images.sources[0].shape == (12, 12, 3)
    assert not np.array_equal(shown.images.sources[0][..., 0], shown.images.sources[0][..., 2])
    with pytest.raises(InputError, match="knows grey images of 12 pixels a side, got 3 channels"):
        made.translate(target)
    with pytest.raises(InputError, match=r"'a/001' is 20 × 12 pixels and its target 12 × 20"):
        paired(source, replace(source, sources=(sources[0], np.swapaxes(sources[1], 0, 1), *sources[2:])))


def test_a_single_pair_is_enough_where_it_is_forced():
    with pytest.raises(InputError, match=r"a translation of pairs needs about 10 images .* got 1"):
        SMALL.fit(SOURCE.take([0]), TARGET.take([0]))
    made = SMALL.fit(SOURCE.take([0]), TARGET.take([0]), force=True)
    assert made.record["pairs"] == 1
    assert len(made.translate(SOURCE.take([0])).images) == 1


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (SOURCE, TARGET.take(range(21)), "^3 of 24 source images have no target of the same name, for example 'a/021'"),
        (SOURCE.take([0, 1]), TARGET, "^22 of 24 target images have no source of the same name, .* 'a/002.png'"),
        (
            replace(SOURCE, ids=("a/000.jpg", "a/000.png", *SOURCE.ids[2:])),
            TARGET,
            "2 source images are called 'a/000'",
        ),
    ],
)
def test_images_without_a_pair_are_refused(source: ImageSplit, target: ImageSplit, message: str):
    with pytest.raises(InputError, match=message):
        SMALL.fit(source, target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"l1": -1.0}, "l1, r1 and r2 must be at least 0 and finite, got -1.0"),
        ({"epochs": 0}, "epochs must be at least 1"),
    ],
)
def test_numbers_that_cannot_be(options: dict[str, float], message: str):
    with pytest.raises(InputError, match=message):
        replace(SMALL, **options)

"""The pre-flight on images whose truth is known: no upright, a give-away border, tiles that fit, copies, grey."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headfirst.data import ImageSplit, Pixels
from headfirst.data.hashing import hash_array
from headfirst.errors import InputError
from headfirst.metrics import Interval
from headfirst.report.document import plain
from headfirst.study.preflight import preflight
from headfirst.study.tile_check import CHANCE, pairs_found
from headfirst.study.turn_check import border_features, content_features

SIZE = 48


def split_of(images: np.ndarray, sources=None) -> ImageSplit:
    n = len(images)
    return ImageSplit(
        name="unlabelled",
        ids=tuple(f"{i:04d}" for i in range(n)),
        sources=tuple(images) if sources is None else tuple(sources),
        labels=np.full(n, -1),
        classes=(),
        hashes=tuple(map(hash_array, images)),
        pixels=Pixels(array=images, rows=np.arange(n), geometry="as they are"),
    )


def noise(n: int, seed: int = 0, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def smooth(n: int, seed: int = 0, size: int = SIZE) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 5, 5, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC)) for c in coarse])


def rings(n: int, seed: int = 0) -> np.ndarray:
    """Radially symmetric: whichever way up, the same."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    radius = np.sqrt(x**2 + y**2)
    wave, phase = random.uniform(0.2, 1.0, (n, 3, 1, 1)), random.uniform(0, 6.3, (n, 3, 1, 1))
    return (127.5 + 127 * np.sin(wave * radius + phase)).astype(np.uint8).transpose(0, 2, 3, 1).copy()


def said(found, start: str) -> str:
    return next(sentence for sentence in found.advice if sentence.startswith(start))


def test_what_is_radially_symmetric_has_no_upright() -> None:
    found = preflight(split_of(rings(80)), mirror=True)
    assert found.turn_told is not None
    assert found.turn_from_border is not None
    for told in (found.turn_told, found.turn_from_border):
        assert told.low <= 0.25 <= told.high
        assert told.high < 0.35
    assert "there is probably no upright to find here: don't" in said(found, "Rotation")


def test_a_bright_line_at_the_top_gives_the_turn_away() -> None:
    images = noise(90)
    images[:, :1] = 250
    found = preflight(split_of(images), mirror=True)
    assert found.turn_from_border is not None
    assert found.turn_from_border.low > 0.9
    sentence = said(found, "Rotation")
    assert "the pixels at the border alone tell the turn of 100 % [9" in sentence
    assert "the camera, not the content: don't" in sentence
    # Without the line, the border of noise says nothing.
    bare = preflight(split_of(noise(400)), mirror=True)
    assert bare.turn_from_border is not None
    assert bare.turn_from_border.high < 0.35


def test_an_upright_of_the_content_is_answerable_and_the_border_does_not_tell() -> None:
    images = noise(150)
    images[:, 8:20, 10:38] //= 3  # a dark bar in the upper half, away from the border
    keep = np.random.default_rng(1).random(150) < 0.5
    images[keep] = noise(int(keep.sum()), seed=2)  # half have none: the truth is about 0.5 + 0.25 / 2
    found = preflight(split_of(images), mirror=True)
    assert found.turn_told is not None
    assert found.turn_from_border is not None
    assert found.turn_told.low <= 1 - 0.75 * keep.mean() <= found.turn_told.high
    assert found.turn_from_border.low < 0.25  # chance
    assert said(found, "Rotation").startswith("Rotation: answerable.")


@pytest.mark.parametrize("features", [content_features, border_features])
def test_the_turns_of_a_turned_image_are_the_same_turns(features) -> None:
    images = torch.from_numpy(smooth(3)).permute(0, 3, 1, 2)
    found = features(images)
    for k in range(4):
        turned = features(torch.rot90(images, k, (2, 3)))
        assert torch.allclose(turned, found.roll(-k, dims=1), atol=1e-5)
    assert not torch.allclose(found, found.roll(1, dims=1), atol=1e-2)


def test_smooth_images_are_pieced_together_by_their_edges_and_noise_is_not() -> None:
    found = preflight(split_of(smooth(60)), mirror=True, gap=0.1)
    assert found.gap == 2
    assert found.tiles_touching is not None
    assert found.tiles_touching.low > 0.9
    assert said(found, "Jigsaw").startswith("Jigsaw: even 2 pixels apart, edges alone find ")
    far = preflight(split_of(smooth(60)), mirror=True, gap=0.7)
    assert far.tiles_apart is not None
    assert far.tiles_apart.high < 0.75
    bare = preflight(split_of(noise(100, size=60)), mirror=True)
    for share in (bare.tiles_touching, bare.tiles_apart):
        assert share is not None
        assert share.low <= CHANCE <= share.high
    assert said(bare, "Jigsaw").startswith("Jigsaw: edges give little away")


def test_tile_pairs_by_hand() -> None:
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    # Red says how far down, green how far right: each neighbour is the best match.
    image = torch.stack([20 * rows, 20 * columns, 0 * rows]).to(torch.uint8)
    assert pairs_found(image[None], 0).tolist() == [1.0]
    # One flat colour: eight fit equally well.
    assert pairs_found(torch.full((1, 3, 12, 12), 7, dtype=torch.uint8), 1).tolist() == pytest.approx([CHANCE])
    # Vertical stripes, one colour a column of tiles: downwards the two others of the column fit alike.
    stripes = torch.tensor([0, 100, 250], dtype=torch.uint8).repeat_interleave(4).expand(1, 3, 12, 12)
    by_hand = (6 * 1 / 2 + 0) / 12  # rightwards the tiles above and below, of its own colour, fit better
    assert pairs_found(stripes, 0).tolist() == pytest.approx([by_hand])


def test_copies_are_found_and_give_nothing_away() -> None:
    images = smooth(100)
    images[10:20] = images[:10]  # exact
    near = images[20:30].astype(int) + np.random.default_rng(0).integers(-3, 4, images[20:30].shape)
    images[30:40] = near.clip(0, 255)
    found = preflight(split_of(images), mirror=True)
    assert found.identical.value == 0.10
    assert found.near_duplicates.value == 0.40
    assert "10 % [5, 18] of the images are exact copies" in found.advice[1]
    # Smooth random colours have no upright; copies across folds would seem to tell one.
    copied = preflight(split_of(np.concatenate([smooth(40)] * 6)), mirror=True)
    assert copied.turn_told is not None
    assert copied.turn_told.low <= 0.25 < copied.turn_told.high < 0.5


def test_grey_images_long_images_and_mirrors(tmp_path: Path) -> None:
    images = smooth(60)
    images[:30] = images[:30, ..., :1]
    images[:30, ..., 0] += (images[:30, ..., 0] < 250) * np.uint8(5)  # as JPEG leaves a little
    sources = []
    for i in range(60):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (90, 40) if i < 6 else (60, 40)).save(path)
        sources.append(path)
    (tmp_path / "59.png").write_bytes(b"no longer an image")
    found = preflight(split_of(images, sources), mirror=False)
    assert found.grey.value == 0.5
    assert found.extreme_aspect is not None
    assert found.extreme_aspect.value == pytest.approx(6 / 59)
    assert "50 % [37, 63] of the images are grey: colour tells them from the rest" in " ".join(found.advice)
    assert "more than twice as long as wide" in " ".join(found.advice)
    assert found.advice[-1].startswith("A mirrored image means something else here")


def test_few_small_images_are_said_to_be_few_and_small() -> None:
    found = preflight(split_of(noise(4, size=5)), mirror=True)
    assert found.turn_told is None
    assert found.tiles_touching is None
    assert found.advice[0].startswith("4 images are few for pre-training")
    assert "Images of 5×5 pixels leave crops little to show" in found.advice[1]
    assert said(found, "Jigsaw").endswith("too few to show a part of anything: don't.")
    json.dumps(plain(found, "preflight"), allow_nan=False)


def test_the_same_seed_looks_at_the_same_images_and_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["headfirst.study.preflight"], "MOST_LOOKED_AT", 40)
    images = split_of(smooth(100))
    first, again = (preflight(images, mirror=True, seed=1) for _ in range(2))
    assert first == again
    assert (first.num_images, first.num_looked) == (100, 40)
    assert preflight(images, mirror=True, seed=2).turn_told != first.turn_told
    assert all(isinstance(rate, Interval) for rate in (first.grey, first.identical))


def test_refusals() -> None:
    images = split_of(noise(4))
    with pytest.raises(InputError, match="gap must be a share of a tile's cell"):
        preflight(images, mirror=True, gap=1.0)
    with pytest.raises(InputError, match="no images to look at"):
        preflight(images.take([]), mirror=True)
    bare = ImageSplit(name="a", ids=("x",), sources=(Path("x"),), labels=np.array([0]), classes=("k",))
    with pytest.raises(InputError, match="has no pixels yet"):
        preflight(bare, mirror=True)

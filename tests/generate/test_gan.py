"""A GAN on small planted images: the same bits however often it is stopped, its readings, its refusals."""

from __future__ import annotations

import os
import signal
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import headfirst.generate.gan as training
from headfirst.data import ImageSplit
from headfirst.errors import FingerprintError, HeadfirstWarning, InputError, Interrupted
from headfirst.generate import GAN, NON_SATURATING, Generator, PairedTranslation, load_generator, pictures
from headfirst.generate.adversarial_game import Game, Rules
from headfirst.generate.gan import Probe, read_game
from headfirst.nn.gan_network import ResidualDiscriminator, ResidualGenerator
from headfirst.nn.seeds import seeded

SMALL = GAN(noise_dim=4, width=4, epochs=4, batch_size=8, fewest=20, lazy=2)


def squares(n: int = 40, side: int = 8, classes: int = 2, seed: int = 0) -> ImageSplit:
    """Grey images whose class says which half is bright."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    images = random.integers(0, 60, (n, side, side, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        half = slice(0, side // 2) if label else slice(side // 2, side)
        image[half] += 150
    return split(list(np.repeat(images, 3, axis=3)), labels, classes)


def split(images: list[np.ndarray], labels: np.ndarray, classes: int = 2) -> ImageSplit:
    return ImageSplit(name="train", ids=tuple(f"{i:03d}" for i in range(len(images))), sources=tuple(images),
                      labels=labels.astype(np.int64), classes=tuple("abcd"[:classes]))  # fmt: skip


def fit(recipe: GAN = SMALL, images: ImageSplit | None = None, **options: Any) -> Generator:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HeadfirstWarning)  # so short a training has learnt nothing
        return recipe.fit(images or squares(), **options)


def test_the_recipe_is_what_the_game_is_played_by():
    about: dict[str, Any] = {"losses": NON_SATURATING, "r1": 2.0, "r2": 3.0, "anneal": 0.5, "lazy": 4, "lr": 0.1,
                             "lr_discriminator": 0.2, "betas": (0.1, 0.2), "ema_decay": 0.3}  # fmt: skip
    assert GAN(**about).rules == Rules(**about)
    assert PairedTranslation(l1=7.0, lazy=3).rules == Rules(losses=NON_SATURATING, l1=7.0, r1=0.5, lazy=3,
                                                            betas=(0.5, 0.999))  # fmt: skip


def test_what_comes_out(tmp_path: Path):
    seen: list[tuple[int, Generator]] = []
    made = fit(val=squares(seed=1), watch=lambda epoch, now: seen.append((epoch, now)))
    assert made.classes == ("a", "b")
    assert made.shares == (0.5, 0.5)
    assert [epoch for epoch, _ in seen] == [1, 2, 3, 4]
    assert [len(now.record["readings"]) for _, now in seen] == [1, 2, 3, 4]
    assert torch.equal(seen[-1][1].sample(5).pixels, made.sample(5).pixels)
    assert not torch.equal(seen[0][1].sample(5).pixels, made.sample(5).pixels)
    assert seen[1][1].record["losses"] == made.record["losses"][:2]
    reading = made.record["readings"][-1]
    assert reading["real"] + reading["fake"] == pytest.approx(1)  # of pairs
    assert reading["alike_real"] >= 1e-3
    back = load_generator(made.save(tmp_path / "made"))
    assert torch.equal(back.sample(3, seed=2).pixels, made.sample(3, seed=2).pixels)
    assert back.record == made.record


def test_it_learns_what_the_classes_look_like():
    recipe = replace(SMALL, epochs=60, width=8, batch_size=20, lr=3e-3, r1=0.1, r2=0.1, ema_decay=0.9)
    made = fit(recipe)
    assert made.record["readings"][-1]["agreement"] > 0.6
    assert made.record["readings"][-1]["classes"] == 2
    for label in range(2):
        pixels = made.sample(20, label=label).pixels.float()
        top, bottom = pixels[:, :, :4].mean(), pixels[:, :, 4:].mean()
        assert (top - bottom if label else bottom - top) > 75


def test_the_same_seed_the_same_bits_another_seed_others():
    assert fit(seed=1).fingerprint == fit(seed=1).fingerprint != fit(seed=2).fingerprint


@pytest.mark.parametrize("spectral", [False, True])
def test_stopped_and_called_again_it_ends_in_the_same_bits(tmp_path: Path, spectral: bool):
    recipe = replace(SMALL, spectral=spectral)

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "training (GAN)" and done == 12:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    with pytest.raises(Interrupted, match="step 12 of 20"):
        fit(recipe, directory=tmp_path / "cut", progress=interrupt)
    resumed, whole = fit(recipe, directory=tmp_path / "cut"), fit(recipe)
    assert resumed.fingerprint == whole.fingerprint
    assert {**resumed.record, "seconds": 0} == {**whole.record, "seconds": 0}
    assert fit(recipe, directory=tmp_path / "cut").record == resumed.record  # finished: only read
    with pytest.raises(FingerprintError):
        fit(replace(recipe, lr=0.5), directory=tmp_path / "cut")


def test_the_player_that_collapses_is_seen(monkeypatch: pytest.MonkeyPatch):
    """A generator that ignores its noise, planted for the one that learns."""

    class Deaf(ResidualGenerator):
        def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
            return super().forward(torch.zeros_like(noise), labels)

    monkeypatch.setattr(training, "ResidualGenerator", Deaf)
    with pytest.warns(HeadfirstWarning, match=r"GAN, epoch 1: mode collapse: two generated images are alike in \d+ %"):
        made = replace(SMALL, conditional=False).fit(squares())
    assert made.record["events"][0].startswith("epoch 1: mode collapse: two generated images are alike in 100 %")
    assert len(made.record["readings"]) == 4  # it went on


def test_a_reading_looks_and_leaves_everything_as_it_was():
    shown = pictures(squares())
    with seeded(0):
        about = {"size": 8, "width": 4, "num_classes": 2}
        game = Game(ResidualGenerator(**about), ResidualDiscriminator(**about, spectral=True)).train()
    before = {k: v.clone() for k, v in game.state_dict().items()}
    probe = Probe.of(shown, ("a", "b"), noise_dim=64, seed=0)
    one = read_game(game, probe, NON_SATURATING, epoch=3)
    assert one == read_game(game, probe, NON_SATURATING, epoch=3)
    assert game.training
    assert game.discriminator.training
    assert all(torch.equal(v, before[k]) for k, v in game.state_dict().items())
    with torch.no_grad():
        logits = game.eval().discriminator(probe.images, probe.labels)
    assert one.real == pytest.approx(logits.sigmoid().mean().item(), abs=1e-6)
    other = read_game(game, probe, NON_SATURATING, epoch=3, features=lambda images: images[:, 0, 0])
    assert other.real == one.real
    assert other.agreement != one.agreement


def test_without_classes_and_in_colour():
    images = squares()
    for label in (-1, 0):
        made = fit(SMALL, replace(images, labels=np.full(40, label), classes=("a",)))
        assert (made.classes, made.shares) == ((), ())
        assert made.record["readings"][0]["classes"] is None
    assert fit(replace(SMALL, conditional=False, epochs=1)).classes == ()
    coloured = [np.random.default_rng(i).integers(0, 256, (12, 8, 3), dtype=np.uint8) for i in range(24)]
    made = fit(replace(SMALL, size=8, epochs=1), split(coloured, np.arange(24) % 2))
    assert made.sample(2).pixels.shape == (2, 3, 8, 8)
    assert "resized to 8 pixels on the shorter edge" in made.record["events"][0]


def test_images_that_are_all_the_same_are_learned_and_raise_no_alarm():
    same = split([np.full((8, 8, 3), 90, dtype=np.uint8)] * 24, np.arange(24) % 2)
    made = fit(replace(SMALL, epochs=2), same)
    assert not any("two generated images are alike" in event for event in made.record["events"])
    assert made.sample(3).pixels.float().isfinite().all()


def test_a_class_without_images_is_named_and_not_made():
    images = squares(classes=2)
    made = fit(SMALL, replace(images, classes=("a", "b", "c")))
    assert made.record["events"][0] == "no image of c: it cannot be generated"
    with pytest.raises(InputError, match="class 'c' had no training image"):
        made.sample(1, label=2)
    assert set(made.sample(200).labels.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("change", "images", "message"),
    [
        ({}, squares(19), r"a GAN needs about 20 images .* got 19; .* force"),
        ({"fewest": 1}, squares(6), "readings compare with at least 7 images, got 6"),
        ({"conditional": True}, replace(squares(), labels=np.full(40, -1)), "conditional=True needs a class"),
        ({"size": 10}, squares(), "size must be a multiple of 4"),
        ({"size": 68}, squares(), "size must be a multiple of 4 in 8 … 64, got 68"),
    ],
)
def test_refusals(change: dict[str, Any], images: ImageSplit, message: str):
    with pytest.raises(InputError, match=message):
        fit(replace(SMALL, **change), images)


def test_force_and_val():
    assert fit(replace(SMALL, epochs=1), squares(8), force=True).classes == ("a", "b")
    with pytest.raises(InputError, match="val must have the classes of the images, a, b, got none"):
        fit(val=replace(squares(), labels=np.full(40, -1)))
    with pytest.raises(InputError, match="noise_dim and width must be at least 1, got 4 and 0"):
        GAN(noise_dim=4, width=0)


def test_the_recipe_stays_and_the_global_generator_too():
    before, state = repr(SMALL), torch.random.get_rng_state()
    fit(replace(SMALL, epochs=1))
    assert repr(SMALL) == before
    assert torch.equal(state, torch.random.get_rng_state())

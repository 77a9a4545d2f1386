"""How long an epoch takes is told from a few steps, on a clock that a made-up recipe moves."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

import headfirst.study.generator_training as training
from headfirst.generate import Generator
from headfirst.study.generator_training import MOST_READINGS, epochs_within, measure
from tiny import make_split


def made() -> Generator:
    return Generator(kind="none", network=None, classes=(), shares=(), trained_on="", recipe="")


@dataclass(frozen=True)
class Recipe:
    """Setting up takes 3 s, a step 2 s (each eighth one 9 s), a reading 5 s with what it shows."""

    clock: list[float]
    epochs: int = 60
    batch_size: int = 10

    def fit(self, images, *, watch, progress, force, **_) -> None:
        assert force
        self.clock[0] += 3
        steps = len(images) // self.batch_size
        for epoch in range(self.epochs):
            for step in range(steps):
                self.clock[0] += 9 if step % 8 == 7 else 2
                progress("training (made up)", epoch * steps + step + 1, self.epochs * steps)
            progress("looking", 1, 2)
            watch(epoch + 1, made())


def test_an_epoch_and_a_reading(monkeypatch: pytest.MonkeyPatch):
    clock = [100.0]
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(training, "rows_of", lambda *_, **__: clock.__setitem__(0, clock[0] + 5) or ())
    epoch, reading = measure(Recipe(clock), make_split("train", 400, seed=0), None, seed=0, device="cpu")
    assert epoch == pytest.approx(2 * (400 / 10))
    assert reading == pytest.approx(5, abs=2)


@pytest.mark.parametrize("seconds", [9.9, 25.0, 210.0, 1000.0, 5000.0])
def test_the_epochs_fit_and_one_more_would_not(seconds: float):
    def takes(epochs: int) -> float:
        return 9 * epochs + min(epochs, MOST_READINGS)

    found = epochs_within(seconds, 9.0, 1.0)
    assert takes(found) <= seconds < takes(found + 1)


def test_growth_is_kept_and_thinned(tmp_path):
    rows = (training.Row(name="a", pixels=torch.zeros(12, 3, 8, 8, dtype=torch.uint8)),)
    for epochs in range(1, 31):
        training._Grown(tmp_path / "grown.json").add(epochs, rows)
    shown = [int(strip.name) for strip in training._Grown(tmp_path / "grown.json").shown()]
    assert len(shown) == training.MOST_GROWN
    assert (shown[0], shown[-1]) == (1, 30)
    assert shown == sorted(shown)

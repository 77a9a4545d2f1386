"""A plan in minutes takes the largest network that can look often enough, and ends on time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headfirst.errors import InputError
from headfirst.pretrain import Pretraining, Rotation, plan_time
from headfirst.pretrain import time_plan as module
from tiny import make_split

POOL = make_split("unlabelled", 100, seed=0)
RECIPE = Pretraining(pretext=Rotation(), batch_size=10)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Steps of 1, 0.1 and 0.01 seconds, readings of half a second; what was measured, in order."""
    asked: list[str] = []

    def measure(backbone, *_, **__):
        asked.append(backbone)
        return {"large": 1.0, "middle": 0.1, "small": 0.01}[backbone], 0.5

    monkeypatch.setattr(module, "measure", measure)
    return asked


def plan(minutes: float):
    return plan_time([lambda: "large", lambda: "middle", lambda: "small"], POOL, RECIPE, minutes=minutes)


def test_the_first_that_sees_the_images_often_enough_is_taken(measured):
    found = plan(10.0)  # 540 seconds: 52 epochs of 10 seconds, less the readings
    assert (found.choice, found.epochs, measured) == (0, 51, ["large"])
    measured.clear()
    found = plan(2.0)  # 108 seconds: 10 of the large network, 87 of the middle one
    assert (found.choice, found.epochs, found.tried) == (1, 87, (10, 87))


def test_the_smallest_does_what_it_can(measured):
    found = plan(0.2)
    assert (found.choice, found.tried) == (2, (0, 6, 17))


def test_time_for_less_than_an_epoch_is_refused_with_what_it_takes(measured):
    with pytest.raises(InputError, match=r"not enough for one pass over 100 images, which takes about 0.02 here"):
        plan(0.005)
    with pytest.raises(InputError, match="minutes must be positive"):
        plan(-1.0)


def test_decoding_is_not_taken_for_a_look_at_the_signals(monkeypatch):
    from headfirst.nn import untrained_backbone

    given = []

    def train(backbone, images, recipe, *, labelled, progress, **_):
        given.extend([images, labelled])
        for step in range(6):
            progress("pre-training", step, 6)

    monkeypatch.setattr(module, "train_backbone", train)
    raw = replace(POOL, hashes=None, pixels=None)
    module.measure(untrained_backbone("small-resnet", seed=0, size=16, width=32), raw, RECIPE, labelled=raw, seed=0,
                   device="cpu")  # fmt: skip
    assert [images.pixels is not None for images in given] == [True, True]


def test_a_step_is_measured(monkeypatch):
    from headfirst.nn import untrained_backbone

    backbone = untrained_backbone("small-resnet", seed=0, size=16, width=32)
    step, reading = module.measure(backbone, POOL, RECIPE, labelled=None, seed=0, device="cpu")
    assert 0 < step < 5
    assert 0 <= reading < 5

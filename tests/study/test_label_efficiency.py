"""Which pre-training helps with few labels: Gaussian features of known separability, planted faults, refusals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from headfirst.adapt import LinearProbe
from headfirst.data import ImageSet, ImageSplit, few_shot, prepare
from headfirst.errors import DataError, InputError
from headfirst.report.document import plain
from headfirst.study.label_arms import raw_pixels
from headfirst.study.label_efficiency import LabelEfficiency, label_efficiency
from headfirst.types import Features, Preprocessing

CLASSES = ("a", "b", "c", "d")
NUM = {"train": 80, "test": 400}


def split_of(name: str, labels: np.ndarray) -> ImageSplit:
    ids = tuple(f"{name}/{i:04d}" for i in range(len(labels)))
    return ImageSplit(
        name=name, ids=ids, sources=tuple(Path(i) for i in ids), labels=labels.astype(np.int64), classes=CLASSES
    )


def gaussian(distance: float, *, seed: int, noise: int | None = None, dim: int = 16) -> dict[str, Features]:
    """Unit noise around class means `distance` apart; `noise` seeds the noise alone (features that share it are
    pairs)."""
    random = np.random.default_rng(seed if noise is None else noise)
    found = {}
    for name, n in NUM.items():
        labels = np.arange(n) % len(CLASSES)
        x = random.normal(size=(n, dim))
        x[np.arange(n), labels] += distance / 2**0.5
        found[name] = Features(
            values=torch.from_numpy(x).float(),
            labels=torch.from_numpy(labels),
            classes=CLASSES,
            ids=split_of(name, labels).ids,
            split=name,
            source="",
        )
    return found


TRAIN = split_of("train", np.arange(NUM["train"]) % len(CLASSES))


def compare(arms, **options) -> LabelEfficiency:
    return label_efficiency(arms, TRAIN, **{"draws": 4, "start": None, **options})


def with_shift(home: float, away: float, *, seed: int) -> dict[str, Features]:
    """Class means 3 apart in training, `home` apart at home and `away` apart on the shift, along the same axes."""
    shifted = gaussian(away, seed=seed + 100)["test"]
    at_home = gaussian(home, seed=seed)["test"]
    return {"train": gaussian(3.0, seed=seed)["train"], "test": at_home,
            "shift": dataclasses.replace(shifted, split="shift")}  # fmt: skip


@pytest.mark.parametrize(
    ("home", "away", "said"),
    [
        (0.5, 6.0, "x is worse than raw pixels here, at 5 labels a class -"),
        (6.0, 0.5, "x helps: at 5 labels a class +"),
        (3.0, 6.0, "x: no difference to raw pixels can be told, at 5 labels a class "),
    ],
)
def test_a_verdict_says_where_another_split_says_otherwise(home: float, away: float, said: str) -> None:
    arms = {"raw pixels": with_shift(3.0, 3.0, seed=1), "x": with_shift(home, away, seed=1 if home == 3.0 else 2)}
    found = compare(arms, shots=(5,), splits=("test", "shift"))
    gap = found.difference("x", "raw pixels", "shift", 5)
    (verdict,) = found.verdicts()
    assert verdict.startswith(said)
    assert f"; away it is otherwise: {100 * gap.value:+.1f} points" in verdict
    assert "don't" not in verdict
    assert "otherwise" not in compare(arms, shots=(5,)).verdicts()[0]


def test_the_better_features_win_and_the_verdict_says_by_how_much() -> None:
    found = compare(
        {
            "raw pixels": gaussian(2.5, seed=1),
            "starting backbone": gaussian(2.0, seed=2),
            "SimCLR": gaussian(6.0, seed=3),
            "rotation": gaussian(0.0, seed=4),
        },
        start="starting backbone",
        shots=(1, 3, 5),
        draws=5,
    )
    for k in (1, 3, 5):
        assert found.difference("SimCLR", "starting backbone", "test", k).sign > 0
    simclr, rotation = found.verdicts()
    d = found.difference("SimCLR", "starting backbone", "test", 3)
    assert simclr.startswith(
        f"SimCLR helps: at 3 labels a class {100 * d.value:+.1f} points [{100 * d.low:.1f}, {100 * d.high:.1f}] on "
        "test over starting backbone; so at 1 and 5."
    )
    assert "Starting backbone needs at least 5 labels a class for as much." in simclr
    assert rotation.startswith("rotation is worse than raw pixels here, at 3 labels a class -")
    assert rotation.endswith(": don't.")
    table = found.as_markdown().splitlines()
    assert len(table) == 2 + 4
    a = found.accuracy("SimCLR", "test", 5)
    assert table[4].endswith(f"| {100 * a.value:.1f} [{100 * a.low:.1f}, {100 * a.high:.1f}] |")
    document = json.loads(json.dumps(plain(found, "efficiency"), allow_nan=False))
    assert document["accuracies"][0]["value"] == found.accuracies[0].value


def test_accuracy_is_that_of_a_probe_on_the_drawn_labels() -> None:
    x = gaussian(2.0, seed=9)
    found = compare({"raw pixels": x}, shots=(5,), draws=2, seed=3)
    by_hand = []
    for draw in (3, 4):
        ids = few_shot(TRAIN, 5, seed=draw).ids
        few = x["train"].take([x["train"].ids.index(i) for i in ids])
        by_hand.append(LinearProbe(seed=draw).fit(few).score(x["test"]))
    assert found.accuracy("raw pixels", "test", 5).value == pytest.approx(np.mean(by_hand))


def test_equal_arms_are_undecided_in_most_trials() -> None:
    signs = [
        compare({"raw pixels": gaussian(1.5, seed=2 * i), "x": gaussian(1.5, seed=2 * i + 1)}, shots=(1,), seed=i)
        .difference("x", "raw pixels", "test", 1)
        .sign
        for i in range(20)
    ]
    # The features of a trial's train split are a draw too, which no interval covers: some error is expected.
    assert signs.count(0) >= 15
    same = gaussian(1.5, seed=0)
    found = compare({"raw pixels": same, "x": same}, shots=(5,))
    d = found.difference("x", "raw pixels", "test", 5)
    assert d.value == 0
    assert d.high == pytest.approx(1 - 0.025 ** (1 / 400))
    assert found.verdicts()[0].startswith("x: no difference to raw pixels can be told, at 5 labels a class +0.0 points")


def test_draws_are_paired() -> None:
    better = compare({"raw pixels": gaussian(1.5, seed=0), "x": gaussian(1.8, seed=0)}, shots=(1,), draws=8)
    paired = better.difference("x", "raw pixels", "test", 1)
    apart = [better.accuracy(arm, "test", 1) for arm in better.arms]
    width = sum((a.high - a.low) ** 2 for a in apart) ** 0.5
    assert paired.high - paired.low < 0.6 * width
    assert paired.sign > 0


def test_pretraining_seeds_widen_the_interval() -> None:
    several = [gaussian(distance, seed=7) for distance in (1.5, 2.5, 3.5)]
    found = compare({"raw pixels": gaussian(1.0, seed=1), "one": several[1], "three": several}, shots=(2,))
    one, three = (found.accuracy(arm, "test", 2) for arm in ("one", "three"))
    assert (one.pretrainings, three.pretrainings) == (1, 3)
    assert three.high - three.low > 2 * (one.high - one.low)


def test_a_classifier_of_its_own_may_be_an_arm() -> None:
    x = gaussian(2.0, seed=5)
    asked: list[tuple[int, int]] = []

    def tuned(k: int, seed: int):
        asked.append((k, seed))
        few = x["train"].take([x["train"].ids.index(i) for i in few_shot(TRAIN, k, seed=seed).ids])
        return {"test": LinearProbe(seed=seed).fit(few).predictions(x["test"])}

    found = compare({"raw pixels": x, "tuned": tuned}, shots=(2, 4), draws=3)
    assert asked == [(k, seed) for k in (2, 4) for seed in (0, 1, 2)]
    for k in (2, 4):
        assert found.difference("tuned", "raw pixels", "test", k).value == 0
    alone = label_efficiency({"tuned": tuned}, TRAIN, shots=(2,), draws=2)
    assert alone.verdicts() == ()


def test_labels_saved_are_read_off_the_baselines_curve() -> None:
    base, arm = gaussian(1.5, seed=0), gaussian(2.0, seed=0)
    found = compare({"raw pixels": base, "x": arm}, shots=(1, 2, 4, 8), draws=4, decisive=2)
    curve = [found.accuracy("raw pixels", "test", k).value for k in found.shots]
    saved = next(s for s in found.saved if s.labels == 2)
    reached = found.accuracy("x", "test", 2).value
    risen = np.maximum.accumulate(curve)
    assert np.interp(np.log(saved.value), np.log(found.shots), risen) == pytest.approx(reached)
    assert 2 < saved.value < 8
    assert saved.low <= saved.value <= saved.high
    beyond = next(s for s in found.saved if s.labels == 8)
    assert beyond.value == beyond.most == 8
    assert f"needs about {saved.value:.1f} labels a class for as much" in found.verdicts()[0]


def test_a_collapsed_network_scores_chance_and_unlabelled_images_do_not_count() -> None:
    base = gaussian(2.0, seed=0)
    dead = {name: dataclasses.replace(f, values=torch.full_like(f.values, 0.25)) for name, f in base.items()}
    found = compare({"raw pixels": base, "dead": dead}, shots=(5,))
    assert found.accuracy("dead", "test", 5).value == 0.25
    assert found.verdicts()[0].startswith("dead is worse than raw pixels here")
    some = torch.where(torch.arange(400) < 100, base["test"].labels, -1)
    partly = {**base, "test": dataclasses.replace(base["test"], labels=some)}
    assert compare({"raw pixels": partly}, shots=(5,)).accuracy("raw pixels", "test", 5).n == 100


def test_refusals() -> None:
    x = gaussian(2.0, seed=0)
    with pytest.raises(InputError, match="'raw' is to be compared with, but is no arm"):
        compare({"raw pixels": x}, raw="raw")
    with pytest.raises(InputError, match="rising numbers of labels"):
        compare({"raw pixels": x}, shots=(5, 5))
    with pytest.raises(InputError, match="draws must be at least 2"):
        compare({"raw pixels": x}, draws=1)
    with pytest.raises(InputError, match="decisive must be one of shots, 1, 5, got 3"):
        compare({"raw pixels": x}, shots=(1, 5), decisive=3)
    with pytest.raises(InputError, match="the arm 'x' has no features of 'shift-a'"):
        compare({"x": x}, splits=("shift-a",))
    other = {**x, "test": x["test"].take(range(399, -1, -1))}
    with pytest.raises(InputError, match="same labelled images of 'test' in the same order, but 'y'"):
        compare({"raw pixels": x, "y": other})
    with pytest.raises(InputError, match="no features of the training image"):
        compare({"raw pixels": {**x, "train": x["train"].take(range(8))}}, shots=(5,))
    with pytest.raises(DataError, match="21 shots need 21 images"):
        compare({"raw pixels": x}, shots=(21,))


def test_raw_pixels(images: ImageSet, tiny: Preprocessing) -> None:
    split = prepare(images, tiny)["train"]
    found = raw_pixels(split)
    assert torch.equal(found.values, split.batch().float().reshape(len(split), -1) / 255)
    assert found.source == "raw pixels, 16×16"
    assert found.ids == split.ids
    large = prepare(images, dataclasses.replace(tiny, resize=(64, 64), crop=None))["train"]
    small = raw_pixels(large)
    # 64 → 32: the mean of each 2×2 block.
    blocks = large.batch().double().reshape(len(large), 3, 32, 2, 32, 2).mean(dim=(3, 5)) / 255
    assert torch.allclose(small.values.double(), blocks.flatten(1), atol=1e-6)
    assert small.source == "raw pixels, 32×32"

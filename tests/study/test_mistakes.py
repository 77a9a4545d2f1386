"""Training images beside a mistake: planted features with known cosines."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from headfirst.data import ImageSet
from headfirst.study.mistakes import mistakes, with_neighbours
from headfirst.types import Features, Mistake, Predictions


def features(values: list[list[float]], ids: tuple[str, ...], split: str) -> Features:
    return Features(
        values=torch.tensor(values, dtype=torch.float32),
        labels=torch.zeros(len(ids), dtype=torch.int64),
        classes=("a",),
        ids=ids,
        split=split,
        source="none",
    )


def wrong(*ids: str) -> tuple[Mistake, ...]:
    return tuple(
        Mistake(split="test", id=i, label="red", predicted="blue", confidence=0.9, thumbnail="data:") for i in ids
    )


def test_the_most_similar_stand_beside_each_with_label_and_picture(images: ImageSet) -> None:
    train = images["train"].take([0, 1, 2, 3, 4])
    trained = features([[1, 0], [0, 2], [3, 3], [-1, 0], [0, -5]], train.ids, "train")
    found = with_neighbours(wrong("x", "y"), features([[0.1, 0.0], [-2, -2]], ("x", "y"), "test"), train, trained)
    x, y = found
    assert [near.id for near in x.neighbours] == [train.ids[0], train.ids[2], train.ids[1]]  # 90° ties: the first
    assert [near.similarity for near in x.neighbours] == pytest.approx([1, 0.5**0.5, 0], abs=1e-6)
    assert [near.id for near in y.neighbours] == [train.ids[3], train.ids[4], train.ids[0]]
    assert [near.label for near in x.neighbours] == [train.classes[train.labels[i]] for i in (0, 2, 1)]
    assert replace(x, neighbours=()) == wrong("x")[0]
    picture = Image.open(io.BytesIO(base64.b64decode(x.neighbours[0].thumbnail.split(",")[1])))
    assert max(picture.size) <= 48
    # Coloured noise through JPEG: the channel that the class brightens is still the brightest.
    assert np.asarray(picture).mean(axis=(0, 1)).argmax() == train.labels[0]


def test_few_training_images_and_dead_features(images: ImageSet) -> None:
    train = images["train"].take([0, 1])
    trained = features([[1.0, 0.0], [0.0, 0.0]], train.ids, "train")
    asked = features([[0.0, 0.0], [1.0, 1.0]], ("x", "y"), "test")
    x, y = with_neighbours(wrong("x", "y"), asked, train, trained)
    assert x.neighbours == ()
    assert [near.id for near in y.neighbours] == [train.ids[0]]
    assert with_neighbours((), asked.take([]), train, trained) == ()
    dead = features([[0.0, 0.0], [0.0, 0.0]], train.ids, "train")
    assert with_neighbours(wrong("x", "y"), asked, train, dead) == wrong("x", "y")


def test_the_surest_mistakes_come_first(images: ImageSet) -> None:
    test = images["test"].take(range(6))
    logits = torch.full((6, 3), 0.0)
    called = (torch.from_numpy(test.labels) + torch.tensor([1, 0, 1, 1, 0, 1])) % 3
    logits[torch.arange(6), called] = torch.tensor([1.0, 5.0, 3.0, 2.0, 4.0, 0.5])
    predictions = Predictions(values=logits, kind="logits", labels=torch.from_numpy(test.labels), classes=test.classes,
                              ids=test.ids, split="test", method="probe", seed=0, chosen_on="train")  # fmt: skip
    assert [m.id for m in mistakes(predictions, test, most=3)] == [test.ids[i] for i in (2, 3, 0)]
    assert all(m.neighbours == () for m in mistakes(predictions, test))

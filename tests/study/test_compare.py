"""Runs compared: differences known by hand, images in another order, and everything that must not be subtracted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from headfirst.errors import DataError, InputError
from headfirst.evaluation import report_rows, save_predictions
from headfirst.metrics import paired_difference
from headfirst.study import FinishedRun, compare, reported_predictions
from headfirst.study.compare import ABSENT
from headfirst.types import DataSummary, Predictions, Report

N = 10
CLASSES = ("cat", "dog")


def said(right: list[int], *, split: str = "test", method: str = "probe", seed: int = 0, n: int = N) -> Predictions:
    """Predictions on n images, alternately cat and dog, that are right on the images listed."""
    labels = torch.arange(n) % 2
    correct = torch.zeros(n, dtype=torch.bool)
    correct[right] = True
    predicted = torch.where(correct, labels, 1 - labels)
    return Predictions(
        values=torch.nn.functional.one_hot(predicted, 2).float(), kind="logits", labels=labels, classes=CLASSES,
        ids=tuple(f"{split}/{i}" for i in range(n)), split=split, method=method, seed=seed, chosen_on="fixed",
    )  # fmt: skip


def finished(name: str, *predictions: Predictions, recipe: dict | None = None, torch_version: str = "2") -> FinishedRun:
    report = Report(
        rows=report_rows(predictions),
        data=DataSummary(name="pets", classes=CLASSES, counts={"train": {"cat": 5, "dog": 5}}),
        recipe={"backbone": "net", "models": {"probe": {"seconds": len(name)}}, **(recipe or {})},
        versions={"torch": torch_version},
    )
    return FinishedRun(name=name, report=report, predictions=predictions)


def test_the_difference_is_the_one_counted_by_hand() -> None:
    a = finished("a", said([0, 1, 2, 3, 4]), said([0, 1, 2, 3], seed=1))
    b = finished("b", said([0, 1, 2, 3, 4, 5, 6]), said([1, 2, 3, 4, 5], seed=1))
    found = compare([a, b])
    (one,) = found.differences
    assert (one.run, one.baseline, one.method, one.split) == ("b", "a", "probe", "test")
    assert one.value == pytest.approx(((7 - 5) + (5 - 4)) / 20)
    assert (one.n, one.seeds) == (N, (0, 1))
    right = [torch.stack([p.values.argmax(dim=1) == p.labels for p in run.predictions]) for run in (b, a)]
    expected = paired_difference(*right, seed=0)
    assert (one.low, one.high) == (expected.low, expected.high)
    assert found.unpaired == ()
    assert [run.rows[0].value for run in found.runs] == pytest.approx([9 / 20, 12 / 20])


def test_another_order_of_the_images_changes_nothing() -> None:
    p = said([0, 1, 2, 5])
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    shuffled = dataclasses.replace(
        p, values=p.values[order], labels=p.labels[order], ids=tuple(p.ids[i] for i in order)
    )
    straight, turned = (compare([finished("a", said([1, 2, 3])), finished("b", b)]).differences for b in (p, shuffled))
    assert turned == straight
    assert straight[0].value == pytest.approx(0.1)


def test_classes_in_another_order_are_the_same_classes() -> None:
    p = said([0, 1, 2, 5])
    turned = dataclasses.replace(p, classes=("dog", "cat"), labels=1 - p.labels, values=p.values.flip(1))
    (one,) = compare([finished("a", said([1, 2, 3])), finished("b", turned)]).differences
    assert one.value == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (said([0, 1], n=8), "the images differ: 8 and 10, of which 8 bear the same name"),
        (
            dataclasses.replace(said([0, 1]), labels=torch.zeros(N, dtype=torch.int64)),
            "the images differ: 10 and 10, of which 10 bear the same name and 5 of those another label",
        ),
    ],
)
def test_other_images_are_never_subtracted(other: Predictions, reason: str) -> None:
    found = compare([finished("a", said([0, 1, 2])), finished("b", other)])
    assert found.differences == ()
    (left,) = found.unpaired
    assert (left.run, left.baseline, left.split, left.method, left.reason) == ("b", "a", "test", None, reason)
    assert all(len(run.rows) == 1 for run in found.runs)  # their own intervals stand


def test_seeds_are_paired_with_their_like() -> None:
    a = finished("a", said([0], seed=0), said([0, 1], seed=1), said([0, 1, 2], seed=2))
    b = finished("b", said([0, 1, 2, 3, 4], seed=1), said([], seed=5))
    (one,) = compare([a, b]).differences
    assert one.value == pytest.approx(0.3)  # of seed 1 alone
    assert one.seeds == (1,)
    none = compare([a, finished("c", said([0], seed=7))])
    assert none.differences == ()
    assert [(left.method, left.reason) for left in none.unpaired] == [("probe", "no training seed in common")]


def test_the_mean_over_shifts_is_paired_where_every_shift_is() -> None:
    shifts = ("shift-x", "shift-y")
    a = finished("a", *(said([0, 1], split=s) for s in shifts))
    b = finished("b", said([0, 1, 2, 3], split="shift-x"), said([0], split="shift-y"))
    means = [d for d in compare([a, b]).differences if d.split == "mean over shifts"]
    assert [d.value for d in means] == pytest.approx([(0.2 - 0.1) / 2])
    assert means[0].n == 2 * N
    more = finished("c", *b.predictions, said([0], split="shift-z"))
    splits = {d.split for d in compare([a, more]).differences}
    assert splits == set(shifts)


def test_methods_of_one_run_alone_are_left_out_and_every_run_meets_the_first() -> None:
    a = finished("a", said([0]), said([1], method="knn"))
    found = compare([a, finished("b", said([0, 1])), finished("c", said([2]), said([3], method="lp-ft"))])
    assert [(d.run, d.baseline, d.method) for d in found.differences] == [("b", "a", "probe"), ("c", "a", "probe")]


def test_settings_that_differ_are_listed_and_outcomes_are_not() -> None:
    a = finished("a", said([0]), recipe={"shots": 8, "tuning": {"epochs": 10, "grid": (0.1, 0.2)}})
    b = finished("bb", said([0]), recipe={"shots": None, "tuning": {"epochs": 20, "grid": (0.1, 0.2)}, "new": 1},
                 torch_version="3")  # fmt: skip
    found = {s.name: s.values for s in compare([a, b]).settings}
    assert found == {
        "shots": ("8", "None"),
        "tuning.epochs": ("10", "20"),
        "new": (ABSENT, "1"),
        "version of torch": ("2", "3"),
    }


def test_only_reported_splits_are_read(tmp_path: Path) -> None:
    held = [said([0]), said([1], split="val")]
    save_predictions(held, tmp_path / "work" / "predictions" / "probe-0.safetensors", record={"num_reported": 1})
    assert [p.split for p in reported_predictions(tmp_path)] == ["test"]


def test_refusals(tmp_path: Path) -> None:
    a = finished("a", said([0]))
    with pytest.raises(InputError, match=r"two or more different runs, got a$"):
        compare([a])
    with pytest.raises(InputError, match="two or more different runs, got a, a"):
        compare([a, a])
    other = finished("b", dataclasses.replace(said([0]), classes=("cat", "horse")))
    with pytest.raises(DataError, match="b alone knows horse and a alone knows dog"):
        compare([a, other])
    with pytest.raises(DataError, match="not the folder of a finished run"):
        reported_predictions(tmp_path)

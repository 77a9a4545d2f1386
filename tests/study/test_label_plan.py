"""The plan from end to end on tiny images: what it says, what it does not ask, what it does with little."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from headfirst.data import ImageSet, prepare
from headfirst.errors import InputError
from headfirst.features import embed
from headfirst.nn import PretrainedBackbone
from headfirst.study import LabelBudget, LabelPlan, plan_labels
from headfirst.study.typical import most_typical
from tiny import make_split

ASKED = LabelBudget(budget=5, more=10, seeds=3)


@pytest.fixture(scope="module")
def pool(images: ImageSet, tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    from headfirst.nn import load_backbone

    split = make_split("unlabelled", 40, seed=9)
    split = dataclasses.replace(split, labels=np.full(40, -1))
    both = dataclasses.replace(images, splits={**images.splits, "unlabelled": split})
    return prepare(both, load_backbone(tiny_directory).preprocessing, cache=tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="module")
def planned(pool: ImageSet, tiny_directory: Path) -> LabelPlan:
    from headfirst.nn import load_backbone

    return plan_labels(pool, load_backbone(tiny_directory), ASKED)


def test_curve_classes_and_images_are_there(planned: LabelPlan) -> None:
    assert planned.curve is not None
    assert [point.labels for point in planned.curve.measured] == [1, 2, 3, 4, 6, 8]
    assert planned.curve.law[-1].labels == pytest.approx(18)
    assert {worth.class_name for worth in planned.classes} == {"red", "green", "blue"}
    values = [worth.value for worth in planned.classes]
    assert values == sorted(values, reverse=True)
    assert [pick.rank for pick in planned.picks] == [1, 2, 3, 4, 5]
    assert all(pick.thumbnail.startswith("data:image/jpeg;base64,") for pick in planned.picks)
    assert planned.notes == ()


def test_intervals_hold_their_values(planned: LabelPlan) -> None:
    curve = planned.curve
    assert curve is not None
    for one in (*curve.measured, *curve.law, curve.worth, *planned.classes):
        assert one.low <= one.value <= one.high
        assert one.low < one.high
    law = [curve.a - curve.b * point.labels**-curve.c for point in curve.law]
    np.testing.assert_allclose([point.value for point in curve.law], np.maximum(law, 0), atol=1e-9)


def test_sentences_say_what_the_numbers_say(planned: LabelPlan) -> None:
    assert planned.curve is not None
    assert len(planned.sentences) == 4
    assert planned.sentences[0].startswith("10 more labels of every class are worth +")
    for worth, text in zip(planned.classes, planned.sentences[1:], strict=True):
        assert f"of “{worth.class_name}” are worth {100 * worth.value:+.1f} ± " in text


def test_the_images_are_typiclusts(planned: LabelPlan, pool: ImageSet, backbone: PretrainedBackbone) -> None:
    x, labelled = (embed(backbone, pool[name]).values for name in ("unlabelled", "train"))
    expected = most_typical(x, labelled, budget=5, seed=0)
    assert [pick.id for pick in planned.picks] == [pool["unlabelled"].ids[choice.row] for choice in expected]


def test_neither_test_nor_shifts_are_asked(planned: LabelPlan, pool: ImageSet, backbone: PretrainedBackbone) -> None:
    without = plan_labels(pool.only("train", "val", "unlabelled"), backbone, ASKED)
    assert without == planned


def test_without_unlabelled_images_the_curve_is_given(images: ImageSet, backbone: PretrainedBackbone) -> None:
    found = plan_labels(images, backbone, ASKED)
    assert found.curve is not None
    assert found.picks == ()
    assert found.notes == (
        "There is no unlabelled/ folder: put images without labels there, and the plan says which to label.",
    )


def test_without_labels_the_list_is_given(pool: ImageSet, backbone: PretrainedBackbone) -> None:
    found = plan_labels(pool.only("unlabelled"), backbone, dataclasses.replace(ASKED, budget=50))
    assert found.curve is None
    assert found.sentences == ()
    assert len(found.picks) == 40
    assert found.notes == (
        "There are no labels, so no learning curve; label the images listed and ask again.",
        "unlabelled/ holds 40 images, fewer than asked for: all are listed.",
    )


def test_few_labels_are_too_few_and_it_says_so(images: ImageSet, backbone: PretrainedBackbone) -> None:
    found = plan_labels(images, backbone, dataclasses.replace(ASKED, shots=3))
    assert found.curve is None
    assert found.classes == ()
    assert found.notes[0] == "A learning curve needs 4 labels a class."
    assert "Fewer than 4 labels" in found.notes[1]
    assert "“red” (3)" in found.notes[1]


def test_with_many_classes_the_hardest_are_looked_at(images: ImageSet, backbone: PretrainedBackbone) -> None:
    found = plan_labels(images, backbone, dataclasses.replace(ASKED, most_classes=1))
    everyone = plan_labels(images, backbone, ASKED)
    assert len(found.classes) == 1
    assert found.classes[0].recall == min(worth.recall for worth in everyone.classes)
    assert found.notes[0] == "Of 3 classes, the 1 with the lowest recall on val were valued alone."


@pytest.mark.parametrize(("name", "value"), [("budget", 0), ("more", 0), ("shots", 0), ("seeds", 1), ("seed", -1)])
def test_refusals(name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{name} must be at least {value + 1}, got {value}"):
        LabelBudget(**{name: value})

"""The gate on images: who is shown what, what comes out, and where each image comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stand_in_generators import StandInRecipe, pixels_of

from headfirst.adapt import LinearProbe
from headfirst.augment import KEPT, MEMORISED, OFF_MANIFOLD, WRONG_CLASS, summed
from headfirst.data import ImageSet
from headfirst.errors import DataError, InputError
from headfirst.generate import Diffusion, Sampling
from headfirst.nn import PretrainedBackbone, UNetShape
from headfirst.study import Augmentation, Augmented, augment_images, save_added
from headfirst.study.augmentation_report import CROSS_VALIDATION
from tiny import make_split

RECIPE = Augmentation(ratios=(1.0, 3.0), seeds=2, probe=LinearProbe(l2=1.0))


def asked(images: ImageSet, backbone: PretrainedBackbone, where: Path, fault: str = "new", **options) -> Augmented:
    return augment_images(images, backbone, StandInRecipe(fault=fault), RECIPE, directory=where, **options)


def test_test_and_held_out_images_never_reach_the_generator(
    images: ImageSet, backbone: PretrainedBackbone, tmp_path: Path
) -> None:
    recipe = StandInRecipe(fault="new")
    done = augment_images(images, backbone, recipe, RECIPE, directory=tmp_path)
    train = set(images["train"].ids)
    assert len(recipe.given) == 3 * 2 + 1
    assert all(set(ids) <= train for _, ids in recipe.given)
    for seed in (0, 1):
        folds = [set(ids) for s, ids in recipe.given[:-1] if s == seed]
        out = [train - ids for ids in folds]
        assert sorted(id_ for ids in out for id_ in ids) == sorted(train)
    assert set(recipe.given[-1][1]) == train
    assert done.report.splits == (CROSS_VALIDATION, "test", "shift-dim")
    assert dict(done.report.num) == {CROSS_VALIDATION: 24, "test": 30, "shift-dim": 21}


@pytest.mark.parametrize(("fault", "verdict"), [("copies", MEMORISED), ("noise", OFF_MANIFOLD), ("wrong", WRONG_CLASS)])
def test_planted_faults_are_thrown_out_and_nothing_is_added(
    images: ImageSet, backbone: PretrainedBackbone, tmp_path: Path, fault: str, verdict: str
) -> None:
    done = asked(images, backbone, tmp_path, fault)
    counts = summed(done.report.verdicts)
    assert counts[verdict] > 0.5 * sum(counts.values())
    assert counts[KEPT] < 0.05 * sum(counts.values())
    assert (done.report.chosen, len(done.added)) == (0, 0)
    assert done.report.sentences()[0].startswith("Synthetic images do not help here: none are added.")
    assert not any(row.used for row in done.provenance)


def test_a_diffusion_model_passes_the_same_gate(images: ImageSet, backbone: PretrainedBackbone, tmp_path: Path) -> None:
    """Hardly trained: what it makes is thrown out, each image can be made again, and none is added."""
    maker = Diffusion(shape=UNetShape(widths=(8, 8), head_dim=8), epochs=1, sampling=Sampling(num_steps=2))
    done = augment_images(images, backbone, maker, replace(RECIPE, ratios=(1.0,)), directory=tmp_path)
    assert done.generator.kind == "diffusion"
    assert (done.report.chosen, len(done.added)) == (0, 0)
    counts = summed(done.report.verdicts)
    assert counts[KEPT] < 0.2 * sum(counts.values())
    first = done.provenance[0]
    label = done.generator.label_of(first.class_name)
    assert done.generator.sample(1, seed=first.seed, start=first.index, label=label).source == first.generator


def test_numbers_agree_with_each_other(images: ImageSet, backbone: PretrainedBackbone, tmp_path: Path) -> None:
    report = (done := asked(images, backbone, tmp_path)).report
    assert [row.ratio for row in report.rows] == [0.0, 1.0, 3.0]
    assert report.rows[0].gain == {}
    for row in report.rows[1:]:
        for split in report.splits:
            gain = row.accuracy[split].value - report.rows[0].accuracy[split].value
            assert row.gain[split].value == pytest.approx(gain, abs=1e-12)
    kept = summed(report.verdicts)[KEPT]
    assert kept > 0.4 * len(done.provenance)
    assert report.rows[1].added == min(24, kept)
    assert [c.num for c in report.coverage] == [6, 6, 6]
    assert report.memorisation is not None
    assert report.memorisation.expected == pytest.approx(24 / 42)
    assert len(done.provenance) == 3 * 8 * 3 * 2  # classes, images, the largest ratio, twice as many as it asks for
    assert {shown.verdict for shown in report.shown} == {row.verdict for row in done.provenance}


def test_provenance_makes_every_image_again(images: ImageSet, backbone: PretrainedBackbone, tmp_path: Path) -> None:
    done = asked(images, backbone, tmp_path)
    generator = done.generator
    for row in done.provenance[:: len(done.provenance) // 9]:
        again = generator.sample(1, seed=row.seed, start=row.index, label=generator.label_of(row.class_name))
        assert row.generator == again.source
        assert f"{row.class_name}/{row.generator[:8]}-{row.seed}-{row.index}" in row.id
        assert row.nearest in images["train"].ids
    assert len({row.id for row in done.provenance}) == len(done.provenance)


def test_what_is_chosen_is_added_and_written(
    images: ImageSet, backbone: PretrainedBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headfirst.study import augmentation

    chosen = augmentation.choose_ratio
    monkeypatch.setattr(augmentation, "choose_ratio", lambda *a, **k: replace(chosen(*a, **k), ratio=1.0))
    done = asked(images, backbone, tmp_path / "work")
    used = {row.id: row for row in done.provenance if row.used}
    assert set(done.added.ids) == set(used)
    assert all(row.verdict == KEPT for row in used.values())
    assert sum(row.used for row in used.values()) == 24
    assert save_added(done, tmp_path / "synthetic") == len(used)
    files = sorted((tmp_path / "synthetic").rglob("*.png"))
    assert len(files) == len(used)
    for id_, pixels in zip(done.added.ids, pixels_of(done.added), strict=True):
        _, name, file = id_.split("/")
        assert np.asarray(Image.open(tmp_path / "synthetic" / name / f"{file}.png")).tobytes() == pixels
    assert done.report.sentences()[0].startswith("1 synthetic images for each real one are added")
    nothing = replace(done, added=done.added.take([]))
    assert save_added(nothing, tmp_path / "synthetic") == 0
    assert not (tmp_path / "synthetic").exists()
    (tmp_path / "synthetic").mkdir()
    (tmp_path / "synthetic" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes\.txt"):
        save_added(done, tmp_path / "synthetic")
    unsafe = replace(done, added=replace(done.added, classes=("..", "a", "b")))
    with pytest.raises(InputError, match="cannot be a folder's name"):
        save_added(unsafe, tmp_path / "elsewhere")


def test_a_stopped_run_goes_on_to_the_same_end(images: ImageSet, backbone: PretrainedBackbone, tmp_path: Path) -> None:
    stopping = StandInRecipe(fault="new", stop_at=4)
    with pytest.raises(KeyboardInterrupt):
        augment_images(images, backbone, stopping, RECIPE, directory=tmp_path / "a")
    done = augment_images(images, backbone, stopping, RECIPE, directory=tmp_path / "a")
    assert len(stopping.given) == 4 + 4
    fresh = asked(images, backbone, tmp_path / "b")
    assert done.report == fresh.report
    assert done.provenance == fresh.provenance
    left = [path.name for path in (tmp_path / "a").iterdir() if path.name.startswith("generator-")]
    assert len(left) == 1  # of the last generator; a fold that is kept needs none


def test_copies_among_training_images_are_on_no_two_sides(
    images: ImageSet, backbone: PretrainedBackbone, tmp_path: Path
) -> None:
    train = images["train"]
    doubled = train.take([*range(24), *range(6)])
    doubled = replace(doubled, ids=(*train.ids, *(f"{id_}-copy" for id_ in train.ids[:6])))
    recipe = StandInRecipe(fault="new")
    found = augment_images(replace(images, splits={**images.splits, "train": doubled}), backbone, recipe, RECIPE,
                           directory=tmp_path)  # fmt: skip
    assert "6 training images are copies of others" in " ".join(found.report.notes)
    assert all(not id_.endswith("-copy") for _, ids in recipe.given for id_ in ids)


def test_refusals(images: ImageSet, backbone: PretrainedBackbone, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no split 'test'"):
        asked(images.only("train", "val"), backbone, tmp_path)
    with pytest.raises(DataError, match="has 2 training images, but 3 of each"):
        asked(images, backbone, tmp_path, shots=2)
    unlabelled = make_split("train", 12, seed=77)
    unlabelled.labels[:2] = -1
    with pytest.raises(DataError, match="2 images of train have no label"):
        asked(replace(images, splits={**images.splits, "train": unlabelled}), backbone, tmp_path)

    class Nameless(StandInRecipe):
        def fit(self, *args, **options):
            return replace(super().fit(*args, **options), classes=(), shares=())

    with pytest.raises(InputError, match="knows no classes"):
        augment_images(images, backbone, Nameless(fault="new"), RECIPE, directory=tmp_path)


def test_without_val_coverage_is_not_made_up(images: ImageSet, backbone: PretrainedBackbone, tmp_path: Path) -> None:
    report = asked(images.only("train", "test"), backbone, tmp_path).report
    assert (report.coverage, report.memorisation) == ((), None)
    assert "no val split" in " ".join(report.notes)
    assert report.splits == (CROSS_VALIDATION, "test")
    assert torch.isfinite(torch.tensor([row.accuracy["test"].value for row in report.rows])).all()

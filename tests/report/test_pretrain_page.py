"""The page of a pre-training: every number is the report's, parts are optional, nothing foreign runs or is fetched."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_page import HOSTILE, Reader

from headfirst.data import ImageSplit, Pixels
from headfirst.errors import InputError
from headfirst.metrics import Interval
from headfirst.report import numbers, pretrain_json, write_pretrain
from headfirst.report.pretrain_curves import curves_figure, marked_epochs
from headfirst.report.pretrain_page import pretrain_page
from headfirst.study.label_efficiency import ArmAccuracy, ArmDifference, LabelEfficiency, LabelsSaved
from headfirst.study.preflight import Preflight
from headfirst.study.pretrain_report import (
    Depth,
    Neighbourhood,
    Outlier,
    PretrainReport,
    Reconstruction,
    neighbours_of,
    outliers_of,
)
from headfirst.types import Features, Neighbour

PIXEL = "data:image/png;base64,iVBORw0KGgo="
ARMS = {"raw pixels": 0.42, "starting backbone": 0.55, "SimCLR": 0.67, "rotation": 0.36}
SHOTS = (1, 5, 10)


def efficiency(names: tuple[str, ...] = tuple(ARMS)) -> LabelEfficiency:
    level = dict(zip(names, ARMS.values(), strict=True))
    at = {(arm, k): level[arm] + 0.02 * k for arm in names for k in SHOTS}
    raw, start = names[:2]
    pairs = [(a, b, k) for b in (raw, start) for a in names if a != b for k in SHOTS]
    return LabelEfficiency(
        arms=names,
        shots=SHOTS,
        splits=("test",),
        decisive=5,
        raw=raw,
        start=start,
        accuracies=tuple(
            ArmAccuracy(arm=a, split="test", labels=k, value=x, low=x - 0.031, high=x + 0.029, n=280, draws=5,
                        pretrainings=3 if a == names[2] else 1)
            for (a, k), x in at.items()
        ),
        differences=tuple(
            ArmDifference(arm=a, baseline=b, split="test", labels=k, value=(d := at[a, k] - at[b, k]), low=d - 0.023,
                          high=d + 0.023)
            for a, b, k in pairs
        ),
        saved=tuple(
            LabelsSaved(arm=a, baseline=b, split="test", labels=k, value=8.0, low=6.5, high=10.0, least=1.0, most=10.0)
            for a, b, k in pairs
        ),
    )  # fmt: skip


def before(advice: tuple[str, ...] = ("Rotation: answerable.", "Jigsaw: keep the gap.")) -> Preflight:
    return Preflight(
        num_images=5120, num_looked=2000, height=64, width=64, mirror=True, identical=Interval(0.0123, 0.01, 0.02),
        near_duplicates=Interval(0.034, 0.03, 0.04), turn_told=Interval(0.614, 0.57, 0.66),
        turn_from_border=Interval(0.517, 0.47, 0.56), tiles_touching=Interval(0.98, 0.97, 0.99), tiles_apart=None,
        gap=3, grey=Interval(0.0, 0.0, 0.002), extreme_aspect=None, advice=advice,
    )  # fmt: skip


def readings() -> tuple[dict[str, float | int | None], ...]:
    forward = [*range(1, 13), *range(11, 41)]
    return tuple(
        {"epoch": e, "loss": 5.1 * 0.97**e + (1.5 if i == 11 else 0), "rankme": 40 - 30 * 0.93**e,
         "knn": 0.7 - 0.4 * 0.95**e, "feature_std": 0.003 if i == 11 else 0.06 - 0.03 * 0.9**e,
         "probe": None if e % 2 else 0.8 - 0.4 * 0.95**e,
         "teacher_entropy": 3.0 - 0.02 * e}
        for i, e in enumerate(forward)
    )  # fmt: skip


def example(names: tuple[str, str, str] | None = None, picture: str = PIXEL) -> PretrainReport:
    a, b, c = names or ("dog", "horse", "person")
    neighbour = Neighbour(id=f"folder/{b}", label=b, similarity=0.8764, thumbnail=picture)
    return PretrainReport(
        name=a,
        method="simclr",
        seconds=754.0,
        readings=readings(),
        events=(
            "epoch 12: collapsed (feature std 0.003); rolled back to epoch 10, learning rate halved",
            f"stopped: {c}",
        ),
        preflight=before((f"Rotation: {a}.", "Jigsaw: keep the gap.")),
        label_efficiency=efficiency() if names is None else efficiency((a, b, c, "x")),
        neighbours=(Neighbourhood(id=f"folder/{a}", label=a, thumbnail=picture, neighbours=(neighbour,) * 3),) * 4,
        outliers=(Outlier(id=f"folder/{c}", label=c, distance=0.4321, thumbnail=picture),) * 2,
        reconstructions=(Reconstruction(id=f"folder/{b}", image=picture, masked=picture, reconstruction=picture),),
        depths=(Depth(name=a, value=0.51, low=0.48, high=0.54), Depth(name="end", value=0.623, low=0.59, high=0.65)),
        about={"epochs": 40, "data": a},
        versions={"headfirst": b},
    )  # fmt: skip


def test_every_number_on_the_page_is_the_reports() -> None:
    report = example()
    text = " ".join(" ".join(Reader(pretrain_page(report)).text).split())
    assert report.label_efficiency is not None
    for verdict in report.label_efficiency.verdicts():
        assert verdict in text
    for a in report.label_efficiency.accuracies:
        assert f"{numbers.percent(a.value)} {numbers.percent(a.low)}–{numbers.percent(a.high)}" in text
    for d in report.label_efficiency.differences:
        assert f"{numbers.points(d.value)} {numbers.points(d.low)} to {numbers.points(d.high)}" in text
    assert "3 pre-trainings" in text
    assert "pre-training, simclr , 40 epochs in 12 min 34 s" in text
    assert "Epoch 12: collapsed (feature std 0.003); rolled back to epoch 10, learning rate halved." in text
    assert "61.4 57.0–66.0" in text
    assert "end 62.3 59.0–65.0" in text
    assert "0.432, person" in text
    assert text.index("Will it help?") < text.index("What the images said beforehand") < text.index("How training went")


def test_each_part_may_be_missing() -> None:
    bare = PretrainReport(name="photos", method="masked", seconds=3.0)
    html = pretrain_page(bare)
    assert "Pre-trained with" in html
    full = example()
    whole = pretrain_page(full)
    parts = {"preflight": "before", "label_efficiency": "worth", "neighbours": "neighbours", "outliers": "outliers",
             "reconstructions": "reconstructions", "depths": "depths", "readings": "training"}  # fmt: skip
    for field, section in parts.items():
        without = pretrain_page(dataclasses.replace(full, **{field: getattr(bare, field)}))
        assert f'id="{section}"' in whole
        assert f'id="{section}"' not in without
        assert f'id="{section}"' not in html


@pytest.mark.parametrize("start", range(0, len(HOSTILE) - 2, 3))
def test_the_page_is_one_file_that_fetches_and_runs_nothing(start: int) -> None:
    html = pretrain_page(example((HOSTILE[start], HOSTILE[start + 1], HOSTILE[start + 2])))
    reader = Reader(html)
    assert {"script", "link", "iframe", "object"}.isdisjoint(reader.tags)
    sources = [value for _, name, value in reader.attributes if name in ("src", "href")]
    assert len([value for value in sources if value.startswith("data:image/")]) == 4 * 4 + 2 + 3
    assert all(value.startswith(("data:image/", "#")) for value in sources)
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    assert "<script>alert(1)" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_pictures_must_lie_in_the_page() -> None:
    report, bad = example(), "https://example.org/a.png"
    near, triple = report.neighbours[0], report.reconstructions[0]
    other = dataclasses.replace(near.neighbours[0], thumbnail=bad)
    for changed in (
        {"neighbours": (dataclasses.replace(near, thumbnail=bad),)},
        {"neighbours": (dataclasses.replace(near, neighbours=(other,)),)},
        {"outliers": (dataclasses.replace(report.outliers[0], thumbnail=bad),)},
        {"reconstructions": (dataclasses.replace(triple, masked=bad),)},
    ):  # fmt: skip
        with pytest.raises(InputError, match="thumbnail of folder/"):
            pretrain_page(dataclasses.replace(report, **changed))


def test_json_has_every_number_the_verdicts_and_no_picture(tmp_path: Path) -> None:
    report = example()
    assert write_pretrain(report, tmp_path / "out") == tmp_path / "out" / "pretrain.html"
    document = json.loads((tmp_path / "out" / "pretrain.json").read_text())
    assert document == json.loads(pretrain_json(report))
    assert document["schema_version"] == 1
    assert document["readings"] == [dict(reading) for reading in report.readings]
    assert report.label_efficiency is not None
    assert document["verdicts"] == list(report.label_efficiency.verdicts())
    assert document["neighbours"][0]["neighbours"][0]["similarity"] == 0.8764
    assert document["preflight"]["tiles_apart"] is None
    assert "base64" not in json.dumps(document)
    assert set(document) == {"schema_version", "verdicts"} | {f.name for f in dataclasses.fields(PretrainReport)}


def test_curves_have_a_panel_for_what_was_read_and_mark_events() -> None:
    figure = curves_figure(readings(), ("epoch 12: collapsed", "stopped"))
    assert figure is not None
    for title in (
        "Loss",
        "RankMe (effective rank)",
        "Standard deviation",
        "Accuracy without",
        "Entropy of the teacher",
    ):
        assert title in figure
    assert figure.count("var(--alarm)") == 5  # one mark in each panel
    assert "var(--alarm)" not in (curves_figure(readings(), ()) or "")
    little = curves_figure([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": float("nan")}], ())
    assert little is not None
    assert "RankMe" not in little
    assert curves_figure([{"epoch": 1, "loss": None}], ()) is None
    assert marked_epochs(("epoch 3: a", "at epoch 4: b", "epoch 5: c")) == [3, 5]
    assert figure == curves_figure(readings(), ("epoch 12: collapsed", "stopped"))


def planted() -> tuple[Features, ImageSplit]:
    """Three groups of six, each around an axis, and one image like none."""
    random = np.random.default_rng(0)
    values = np.repeat(np.eye(5)[:3], 6, axis=0) + 0.05 * random.normal(size=(18, 5))
    values = np.concatenate([values, [[0, 0, 0, 0, 3.0]], [[0, 0, 0, 0, 0]]])
    n = len(values)
    split = ImageSplit(
        name="train",
        ids=tuple(f"{i:02d}.png" for i in range(n)),
        sources=tuple(Path(f"{i}") for i in range(n)),
        labels=np.array([*np.repeat([0, 1, 2], 6), -1, -1]),
        classes=("a", "b", "c"),
        pixels=Pixels(array=np.zeros((n, 4, 4, 3), dtype=np.uint8), rows=np.arange(n), geometry=""),
    )
    features = Features(
        values=torch.from_numpy(values).float(),
        labels=torch.from_numpy(split.labels),
        classes=split.classes,
        ids=split.ids,
        split="train",
        source="",
    )
    return features, split


def test_neighbours_are_of_the_same_group_and_never_the_image_itself() -> None:
    features, split = planted()
    found = neighbours_of(features, split, count=30, most=5)
    assert len(found) == 19  # the one without a direction is left out
    for near in found:
        row = split.ids.index(near.id)
        others = [split.ids.index(other.id) for other in near.neighbours]
        assert row not in others
        if row < 18:
            assert {other // 6 for other in others} == {row // 6}
            v = features.values.double()
            cosine = (v[row] @ v[others[0]] / v[row].norm() / v[others[0]].norm()).item()
            assert near.neighbours[0].similarity == pytest.approx(cosine, abs=1e-6)
    assert neighbours_of(features, split, count=3) == neighbours_of(features, split, count=3)
    assert [n.id for n in neighbours_of(features, split, count=3, seed=1)] != [n.id for n in found[:3]]


def test_the_image_like_no_other_comes_first() -> None:
    features, split = planted()
    found = outliers_of(features, split, count=4)
    assert found[0].id == "18.png"
    assert found[0].label == ""
    v = torch.nn.functional.normalize(features.values[:19].double(), dim=1)
    by_hand = (1 - v @ v.T).sort(dim=1).values[:, 5]  # itself, then four, then the fifth other
    assert [o.distance for o in found] == pytest.approx(by_hand.sort(descending=True).values[:4].tolist(), abs=1e-6)
    assert outliers_of(features.take(range(5)), split.take(range(5))) == ()
    with pytest.raises(InputError, match="same 'train' images in the same order"):
        outliers_of(features.take(range(5)), split)

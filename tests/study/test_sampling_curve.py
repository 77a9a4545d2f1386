"""Quality against evaluations: what is asked, what is shown, and a page that needs no script."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from headfirst.augment import as_split
from headfirst.data import ImageSet
from headfirst.errors import InputError
from headfirst.features import embed
from headfirst.generate import Generator
from headfirst.generate.diffusion import ConsistencyDistillation, Diffusion, Sampling
from headfirst.metrics import binomial_interval, density_coverage, frechet_distance, kernel_distance
from headfirst.nn import PretrainedBackbone, UNetShape, load_backbone
from headfirst.report import speed_lines, write_generate
from headfirst.study import sampling_curve
from headfirst.study.distillation_quality import (
    TEACHER_STEPS,
    Quality,
    SpeedUp,
    _ways,
    quality_of,
    quality_table,
    speed_ups,
)
from headfirst.study.generator_data import at_size
from headfirst.study.generator_report import COLUMNS, GeneratorReport
from headfirst.study.picture_grid import inline_png, picture_grid
from headfirst.study.sampling_curve import _drawn


@pytest.fixture(scope="module")
def teacher(images: ImageSet) -> Generator:
    recipe = Diffusion(shape=UNetShape(widths=(8,), head_dim=8), size=8, epochs=1, fewest=1, conditional=False)
    return recipe.fit(images["train"])


@pytest.fixture(scope="module")
def student(teacher: Generator, images: ImageSet) -> Generator:
    return ConsistencyDistillation(num_levels=3, epochs=1).fit(teacher, images["train"])


@pytest.fixture(scope="module")
def report(teacher: Generator, student: Generator, images: ImageSet, tiny_directory: Path) -> GeneratorReport:
    ways = {"students": {"<quick>": student}, "samplers": ("heun", "dpm_pp_2m")}
    told = []
    found = sampling_curve(teacher, images, load_backbone(tiny_directory), evaluations=(1, 2, 4), num=16,
                           progress=lambda *of: told.append(of), **ways)  # fmt: skip
    assert [of for of in told if of[0] == "ways to draw images"] == [("ways to draw images", n, 8) for n in range(9)]
    assert [of for of in told if of[0] == "distances"] == [("distances", n, 8) for n in range(1, 9)]
    return found


def test_every_way_takes_the_evaluations_that_it_may(report: GeneratorReport):
    asked = [(row.model, row.method, row.steps, row.evaluations) for row in report.quality]
    assert asked == [
        ("teacher", "heun", 1, 1),
        ("teacher", "heun", 2, 3),
        *(("teacher", "dpm_pp_2m", n, n) for n in (1, 2, 4)),
        *(("<quick>", "consistency", n, n) for n in (1, 2, 4)),
    ]
    assert all(row.frechet.low is not None and row.frechet.low < row.frechet.high for row in report.quality)
    shown = {step.evaluations: [strip.name for strip in step.strips] for step in report.by_evaluations}
    assert shown == {
        1: ["heun, 1", "dpm_pp_2m, 1", "<quick>, 1"],
        2: ["heun, 1", "dpm_pp_2m, 2", "<quick>, 2"],
        4: ["heun, 3", "dpm_pp_2m, 4", "<quick>, 4"],
    }


def test_the_images_are_those_of_the_same_noises(report: GeneratorReport, teacher: Generator):
    for most in (1, 2, 4):
        made = teacher.sample(COLUMNS, seed=0, sampling=Sampling(method="dpm_pp_2m", num_steps=most)).pixels
        strips = next(step for step in report.by_evaluations if step.evaluations == most).strips
        assert strips[1].picture == inline_png(picture_grid(made, columns=COLUMNS))
    assert not torch.equal(
        made, teacher.sample(COLUMNS, seed=1, sampling=Sampling(method="dpm_pp_2m", num_steps=4)).pixels
    )


def test_a_row_is_the_distance_of_its_images_and_their_time(
    report: GeneratorReport, teacher: Generator, images: ImageSet, tiny_directory: Path
):
    backbone = load_backbone(tiny_directory)
    real = embed(backbone, at_size(images["test"], 8)).values
    how = Sampling(method="dpm_pp_2m", num_steps=4)
    made = teacher.sample(16, sampling=how)
    row = quality_of(made, "teacher", teacher, how, real, backbone, seconds=2.0)
    assert row.milliseconds == 125
    assert row.frechet == next(r.frechet for r in report.quality if (r.method, r.steps) == ("dpm_pp_2m", 4))
    found = frechet_distance(embed(backbone, as_split(made, name="made")).values, real)
    assert (row.frechet.value, row.frechet.low, row.frechet.high) == (found.corrected, found.low, found.high)


def test_the_table_has_the_fewest_steps_first_and_the_guidance_of_the_last_student():
    def model(name: str, **how: Any) -> Generator:
        network: Any = SimpleNamespace(sampling=Sampling(**how))
        return Generator(kind="diffusion", network=network, classes=(), shares=(), trained_on="", recipe=name)

    teacher, eight = model("teacher", method="heun"), model("eight", method="euler", num_steps=8)
    last = model("last", method="consistency", num_steps=1, guidance=3.0)
    ways = [
        (kind, each.recipe, how.method, how.num_steps, how.guidance)
        for kind, each, how in _ways(teacher, [eight, last])
    ]
    assert ways == [
        *(("student", "last", "consistency", n, 3.0) for n in (1, 2, 4)),
        ("student", "eight", "euler", 8, 1.0),
        *(("teacher", "teacher", "heun", n, 3.0) for n in TEACHER_STEPS),
    ]


def test_guidance_costs_two_evaluations(images: ImageSet, backbone: PretrainedBackbone):
    recipe = Diffusion(shape=UNetShape(widths=(8,), head_dim=8), size=8, epochs=1, fewest=1)
    found = sampling_curve(recipe.fit(images["train"]), images, backbone, samplers=("dpm_pp_2m",),
                           evaluations=(1, 2, 5), guidance=2.0, num=16)  # fmt: skip
    assert [(row.steps, row.evaluations) for row in found.quality] == [(1, 2), (2, 4)]
    assert [len(step.strips) for step in found.by_evaluations] == [0, 1, 1]


def test_what_was_drawn_is_kept_and_yardsticks_go_further(
    teacher: Generator, images: ImageSet, tiny_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = {"samplers": ("ddpm", "ddim", "heun"), "evaluations": (1, 2), "yardstick": (3,), "num": 16}
    backbone = load_backbone(tiny_directory)
    first = sampling_curve(teacher, images, backbone, directory=tmp_path, **asked)
    assert [(row.method, row.evaluations) for row in first.quality] == [
        *(("ddpm", n) for n in (1, 2, 3)), *(("ddim", n) for n in (1, 2, 3)), ("heun", 1)
    ]  # fmt: skip
    assert [step.evaluations for step in first.by_evaluations] == [1, 2, 3]
    monkeypatch.setattr(Generator, "sample", None)  # nothing is drawn again
    assert sampling_curve(teacher, images, backbone, directory=tmp_path, **asked) == first
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}
    monkeypatch.undo()
    plain = sampling_curve(teacher, images, backbone, **asked)  # and nothing of it is kept
    assert [replace(row, milliseconds=0.0) for row in plain.quality] == [
        replace(row, milliseconds=0.0) for row in first.quality
    ]


def test_what_is_kept_is_of_its_model_seed_number_and_device(teacher: Generator, student: Generator, tmp_path: Path):
    how = Sampling(num_steps=1)
    asked = [(teacher, how, 16, 0, "cpu"), (teacher, how, 17, 0, "cpu"), (teacher, how, 16, 1, "cpu"),
             (teacher, Sampling(num_steps=2), 16, 0, "cpu"),
             (student, student.network.sampling, 16, 0, "cpu")]  # fmt: skip
    paths = [_drawn(*of, tmp_path) for of in asked]
    assert len(set(paths)) == len(asked)
    other = replace(teacher, network=copy.deepcopy(teacher.network))
    with torch.no_grad():
        next(other.network.parameters()).add_(1.0)
    assert _drawn(other, how, 16, 0, "cpu", tmp_path) not in paths
    assert _drawn(*asked[0], tmp_path) == paths[0]
    with pytest.raises(RuntimeError):  # is not read from what the CPU drew
        _drawn(teacher, how, 16, 0, "meta:nowhere", tmp_path)


def test_a_row_is_what_the_metrics_say(report: GeneratorReport, teacher: Generator, images: ImageSet, tiny_directory):
    backbone = load_backbone(tiny_directory)
    made = teacher.sample(16, seed=0, sampling=Sampling(method="dpm_pp_2m", num_steps=4))
    fake = embed(backbone, as_split(made, name="generated")).values
    test = at_size(images["test"], 8)
    real = embed(backbone, test).values
    row = next(row for row in report.quality if (row.method, row.steps) == ("dpm_pp_2m", 4))
    assert row.frechet.value == pytest.approx(frechet_distance(fake, real).corrected)
    assert row.kernel.value == pytest.approx(kernel_distance(fake, real).value)
    covered = density_coverage(real, fake, 5)
    assert (row.coverage.value, row.coverage.expected) == (covered.coverage, covered.expected_coverage)
    interval = binomial_interval(round(covered.coverage * len(real)), len(real))
    assert (row.coverage.low, row.coverage.high) == (interval.low, interval.high)


def test_the_table_of_a_student_is_of_its_own_images(
    teacher: Generator, student: Generator, images: ImageSet, tiny_directory: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("headfirst.study.distillation_quality.TEACHER_STEPS", (2,))
    backbone = load_backbone(tiny_directory)
    rows = quality_table(teacher, [student], images, backbone, num=16)
    assert [row.model for row in rows] == ["student"] * 3 + ["teacher"]
    real = embed(backbone, at_size(images["test"], 8)).values
    for row, made_by in ((rows[0], student), (rows[-1], teacher)):
        sampling = replace(made_by.network.sampling, num_steps=row.steps)
        fake = embed(backbone, as_split(made_by.sample(16, sampling=sampling), name="generated")).values
        assert row.frechet.value == pytest.approx(frechet_distance(fake, real).corrected)


def test_speed_ups_are_over_the_slowest_ddpm(report: GeneratorReport):
    assert report.speed_ups == ()  # DDPM was not asked

    def row(model: str, method: str, evaluations: int, distance: float) -> Quality:
        frechet = replace(report.quality[0].frechet, value=distance)
        return replace(report.quality[0], model=model, method=method, evaluations=evaluations, frechet=frechet)

    found = speed_ups((
        row("teacher", "ddpm", 1000, 1.0), row("teacher", "ddpm", 10, 0.5), row("teacher", "ddpm", 4, 2.0),
        row("teacher", "ddim", 8, 1.11), row("pupil", "consistency", 4, 1.09), row("pupil", "consistency", 8, 0.2),
    ))  # fmt: skip
    assert [(each.way, each.evaluations, each.times) for each in found] == [
        ("ddpm", 10, 100.0), ("ddim", None, None), ("pupil", 4, 250.0)
    ]  # fmt: skip
    assert {each.over for each in found} == {1000}
    below = speed_ups(
        (row("teacher", "ddpm", 64, -0.1), row("teacher", "heun", 7, -0.05), row("teacher", "plms", 9, 0.1))
    )
    assert [each.evaluations for each in below] == [64, 7, None]
    assert speed_lines(found) == (("ddpm", "10", "100"), ("ddim", "none tried", "–"), ("pupil", "4", "250"))


def test_the_page(report: GeneratorReport, tmp_path: Path):
    page = write_generate(report, tmp_path)
    assert page.name == "curve.html"
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count('type="radio"') == 3
    assert text.count(" checked") == 1
    assert "&lt;quick&gt;, 4" in text
    assert "<quick>" not in text
    assert "Speed-up" not in text
    fast = replace(report, speed_ups=(SpeedUp(way="<heun>", evaluations=5, over=1000),))
    told = write_generate(fast, tmp_path / "fast").read_text(encoding="utf-8")
    assert "within 10&nbsp;% of the Fréchet distance of ddpm's with 1,000" in told
    assert '<th scope="row">&lt;heun&gt;</th><td>5</td><td>200</td>' in told
    rows = json.loads((tmp_path / "curve.json").read_text())["quality"]
    assert [row["evaluations"] for row in rows] == [row.evaluations for row in report.quality]
    fetched = replace(report.by_evaluations[0].strips[0], picture="https://example.org/a.png")
    step = replace(report.by_evaluations[0], strips=(fetched,))
    with pytest.raises(InputError, match="must be data:image"):
        write_generate(replace(report, by_evaluations=(step,)), tmp_path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"num": 3}, "at least 16.* got 3"),
        ({"evaluations": (4, 2)}, "rise .* 4, 2"),
        ({"evaluations": ()}, "got 500, 0 and none"),
        ({"evaluations": (0, 2)}, "rise from 1"),
        ({"yardstick": (8,)}, "after them"),
        ({"yardstick": (80,), "samplers": ("heun",)}, "ddpm and ddim; name one"),
        ({"seed": -1}, "seed at least 0"),
        ({"guidance": 2.0}, "trained without any"),
        ({"guidance": 2.0, "evaluations": (1,)}, "two evaluations or more, got at most 1"),
        ({"samplers": ("huen",)}, "did you mean"),
    ],
)
def test_what_cannot_be_is_refused(
    teacher: Generator, images: ImageSet, backbone: PretrainedBackbone, monkeypatch: pytest.MonkeyPatch, wrong, said
):
    monkeypatch.setattr(sys.modules["headfirst.study.sampling_curve"], "real_images", None)  # before any work
    with pytest.raises(InputError, match=said):
        sampling_curve(teacher, images, backbone, **wrong)


@pytest.mark.parametrize("name", ["teacher", "ddim"])
def test_a_student_is_not_called_like_a_sampler(
    teacher: Generator, student: Generator, images: ImageSet, backbone: PretrainedBackbone, name: str
):
    with pytest.raises(InputError, match=f"cannot be called {name}"):
        sampling_curve(teacher, images, backbone, students={name: student})


def test_a_student_is_no_teacher(student: Generator, images: ImageSet, backbone: PretrainedBackbone):
    with pytest.raises(InputError):
        sampling_curve(student, images, backbone)

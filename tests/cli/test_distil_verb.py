"""`generate distil`: from a diffusion model to a student, its page and its table of quality; stopped, wrong, odd."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from test_generate_verbs import square_photos

from headfirst.data import ImageSet
from headfirst.errors import Interrupted
from headfirst.generate import VAE, Diffusion, Generator, Sampling, load_generator
from headfirst.generate.diffusion import ConsistencyDistillation, ConsistencyTraining, course
from headfirst.nn import UNetShape, load_backbone
from headfirst.study import distil
from headfirst.study.distillation_quality import evaluations
from headfirst.study.distilling import Taught

QUICK = ("--epochs", 3, "--batch-size", 16, "--num", 12, "--quiet")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = {"train": 20, "test": 10}
    return square_photos(
        tmp_path_factory.mktemp("data"), {f"{s}/{c}": n for s, n in counts.items() for c in ("red", "blue")}
    )


@pytest.fixture(scope="module")
def teacher(photos: Path) -> Generator:
    recipe = Diffusion(shape=UNetShape(widths=(8,), patch=4, head_dim=8), epochs=1, batch_size=16, fewest=10, size=8)
    return recipe.fit(ImageSet.from_folder(photos)["train"])


@pytest.fixture(scope="module")
def model(teacher: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teacher.save(tmp_path_factory.mktemp("model") / "teacher")


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(course, "NUM_COMPARED", 8)
    monkeypatch.setattr("headfirst.study.distillation_quality.TEACHER_STEPS", (1, 2))


def test_it_ends_in_a_table_of_quality(headfirst, model: Path, photos: Path, tiny_directory: Path, tmp_path: Path):
    out = tmp_path / "student"
    ask = (model, "--data", photos, "--method", "progressive", "--steps", 4, "--backbone", tiny_directory)
    called = headfirst("generate", "distil", *ask, *QUICK, "--out", out)
    assert "progressive, 3 epochs in" in called.stdout
    assert "images of 4 steps differ from those of 8 by" in called.stdout
    lines = [line.split() for line in called.stdout.splitlines() if line.startswith("  ")]
    assert [(line[0], line[1], line[2]) for line in lines] == [
        ("student", "euler,", "4"), ("student", "euler,", "8"), ("teacher", "dpm_pp_2m,", "1"),
        ("teacher", "dpm_pp_2m,", "2"),
    ]  # fmt: skip
    rows = json.loads((out / "generate.json").read_text())["quality"]
    assert [row["evaluations"] for row in rows] == [4, 8, 1, 2]
    assert all(row["frechet"]["low"] < row["frechet"]["value"] < row["frechet"]["high"] for row in rows)
    assert (out / "generate.html").read_text().count('<th scope="row">student</th>') == 2
    student = load_generator(out)
    assert student.network.sampling == Sampling(method="euler", num_steps=4)
    sampled = headfirst("generate", "sample", out, "-n", 4, "--quiet", "--out", tmp_path / "made")
    assert "4 images of" in sampled.stdout


def test_stopped_it_goes_on_to_the_same_student(teacher: Generator, photos: Path, tiny_directory: Path, tmp_path: Path):
    images, backbone = ImageSet.from_folder(photos), load_backbone(tiny_directory)
    recipe = ConsistencyDistillation(epochs=2, num_levels=4, batch_size=16, guidance=(1.0, 3.0))

    def kill(stage: str, done: int, total: int) -> None:
        if "training" in stage and done == 4:
            signal.raise_signal(signal.SIGTERM)

    def run(out: Path, **rest: Any):
        return distil(teacher, images, recipe, out, backbone=backbone, num=12, **rest)

    with pytest.raises(Interrupted):
        run(tmp_path / "a", progress=kill)
    again, whole = run(tmp_path / "a"), run(tmp_path / "b")
    assert again.generator.fingerprint == whole.generator.fingerprint
    assert [(r.model, r.steps, r.evaluations, r.guidance) for r in again.report.quality] == [
        ("student", 1, 1, 2), ("student", 2, 2, 2), ("student", 4, 4, 2), ("teacher", 1, 2, 2), ("teacher", 2, 4, 2)
    ]  # fmt: skip
    assert [r.frechet for r in again.report.quality] == [r.frechet for r in whole.report.quality]


@pytest.mark.parametrize("recipe", [ConsistencyDistillation(epochs=9), ConsistencyTraining(epochs=9)])
def test_a_recipe_is_told_its_teacher_and_the_epochs_that_were_chosen(
    recipe: ConsistencyDistillation | ConsistencyTraining,
    teacher: Generator,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    told: list[tuple[object, ...]] = []

    def fit(self: ConsistencyDistillation | ConsistencyTraining, *images: object, **rest: object) -> Generator:
        told.append((self.epochs, rest.get("start", images[0])))
        return teacher

    monkeypatch.setattr(type(recipe), "fit", fit)
    taught = Taught(recipe=recipe, teacher=teacher, epochs=4)
    assert taught.fit(ImageSet.from_folder(photos)["train"], watch=lambda *_: None) is teacher
    assert told == [(4, teacher)]
    assert teacher.fingerprint in repr(taught)  # of which the identity of a training is made


def test_evaluations_are_counted(teacher: Generator):
    ways = [Sampling(method="heun", num_steps=4), Sampling(num_steps=4), Sampling(num_steps=4, guidance=2.0)]
    assert [evaluations(teacher, way) for way in ways] == [7, 4, 8]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--method", "progresive"), "none of progressive, consistency, latent-consistency, consistency-training"),
        (("--method", "progressive", "--steps", 3), "num_steps must be one of 1, 2, 4, 8, 16, got 3"),
        (("--steps", 0), "num_steps must be a whole number of at least 1, got 0"),
        (("--method", "latent-consistency", "--guidance", 1), "learns guidance from 1 up to --guidance, got 1"),
        (("--method", "consistency-training", "--guidance", 2), "has no teacher to guide"),
        (("--minutes", 1, "--epochs", 2), "--minutes chooses the epochs"),
        (("--num", 3), "--num must be at least 10"),
        (("--split", "train"), "split 'train' is learned from"),
    ],
)
def test_what_cannot_be(
    headfirst, model: Path, photos: Path, tiny_directory: Path, tmp_path: Path, wrong: tuple, message: str
):
    ask = ("generate", "distil", model, "--data", photos, "--backbone", tiny_directory, "--out", tmp_path / "x")
    assert message in headfirst(*ask, *wrong, "--quiet", code=2).stderr
    assert not (tmp_path / "x" / "generator.json").exists()


def test_what_is_no_diffusion_model(headfirst, photos: Path, tmp_path: Path):
    vae = VAE(epochs=1, fewest=1, width=8, hidden=8, latent_dim=2, size=8)
    vae.fit(ImageSet.from_folder(photos)["train"]).save(tmp_path / "vae")
    ask = ("generate", "distil", tmp_path / "vae", "--data", photos, "--out", tmp_path / "x", "--quiet")
    assert (
        "only a diffusion model of pixels can be distilled, and this generator is a vae"
        in headfirst(*ask, code=2).stderr
    )

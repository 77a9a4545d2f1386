"""Distilling: to the same bits after a stop, each halving measured, students that are drawn from and kept as any
generator is, and what is refused."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_diffusion_training import LITTLE as UNET
from test_diffusion_training import little_split, same

from headfirst.errors import FingerprintError, InputError, Interrupted
from headfirst.generate import VAE, Diffusion, Generator, Sampling, load_generator
from headfirst.generate.diffusion import (
    ConsistencyDistillation,
    ConsistencyTraining,
    ProgressiveDistillation,
    relative_error,
)
from headfirst.generate.diffusion import course as course_file
from headfirst.nn import MLPShape

LITTLE: dict[str, Any] = {**UNET, "shape": MLPShape(dim=32, depth=1)}
PROGRESSIVE = ProgressiveDistillation(num_steps=2, start=8, epochs=3, batch_size=16)
CONSISTENCY = ConsistencyDistillation(num_levels=5, guidance=(1.0, 3.0), epochs=2, batch_size=16)
TRAINING = ConsistencyTraining(epochs=2, batch_size=16, coarsest=2, finest=8)


@pytest.fixture(scope="module", autouse=True)
def few_images():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course_file, "NUM_COMPARED", 24)
        yield


@pytest.fixture(scope="module")
def teacher() -> Generator:
    return Diffusion(**LITTLE, epochs=20, lr=1e-2).fit(little_split())


@pytest.fixture(scope="module")
def halved(teacher: Generator) -> tuple[Generator, list[tuple[int, int]]]:
    seen = []
    watch = lambda epochs, student: seen.append((epochs, student.network.sampling.num_steps))  # noqa: E731
    return PROGRESSIVE.fit(teacher, little_split(), watch=watch), seen


@pytest.fixture(scope="module")
def finished(teacher: Generator, halved: tuple[Generator, list[tuple[int, int]]]) -> dict[Any, Generator]:
    """The student of each recipe."""
    return {PROGRESSIVE: halved[0], **{recipe: fitted(recipe, teacher) for recipe in (CONSISTENCY, TRAINING)}}


def fitted(recipe: Any, teacher: Generator, **rest: Any) -> Generator:
    if isinstance(recipe, ConsistencyTraining):
        return recipe.fit(little_split(), start=teacher, **rest)
    return recipe.fit(teacher, little_split(), **rest)


class TestResuming:
    @pytest.mark.parametrize(("recipe", "step"), [(PROGRESSIVE, 2), (CONSISTENCY, 4), (TRAINING, 4)])
    def test_stopped_anywhere_it_ends_in_the_same_bits(
        self, teacher: Generator, finished: dict[Any, Generator], tmp_path: Path, recipe: Any, step: int
    ):
        stops = 0

        def kill(stage: str, done: int, total: int) -> None:
            nonlocal stops
            if "training" in stage and done == step:
                stops += 1
                if stops == (2 if recipe is PROGRESSIVE else 1):  # in the second halving
                    signal.raise_signal(signal.SIGTERM)

        with pytest.raises(Interrupted):
            fitted(recipe, teacher, directory=tmp_path, progress=kill)
        again, whole = fitted(recipe, teacher, directory=tmp_path), finished[recipe]
        assert same(again, whole)
        assert again.fingerprint == whole.fingerprint
        timeless = [{**g.record, "seconds": 0} for g in (again, whole)]
        assert timeless[0] == timeless[1]
        if recipe is not PROGRESSIVE:
            with pytest.raises(FingerprintError):
                fitted(replace(recipe, lr=1e-4), teacher, directory=tmp_path)

    def test_another_recipe_does_not_take_what_this_one_finished(self, teacher: Generator, tmp_path: Path):
        one = replace(PROGRESSIVE, num_steps=4, epochs=1)
        one.fit(teacher, little_split(), directory=tmp_path)
        with pytest.raises(FingerprintError):
            replace(one, lr=1e-4).fit(teacher, little_split(), directory=tmp_path)


class TestProgressive:
    def test_every_halving_is_measured(self, teacher: Generator, halved: tuple[Generator, list[tuple[int, int]]]):
        student, seen = halved
        assert seen == [(1, 4), (3, 2)]
        readings = student.record["readings"]
        assert [(r["epoch"], r["steps"]) for r in readings] == seen
        assert len(student.record["losses"]) == 3
        first = Sampling(method="euler", num_steps=8)
        by_teacher = teacher.sample(24, sampling=first).pixels
        found = relative_error(student.sample(24).pixels, by_teacher)
        assert readings[1]["error_to_first"] == found.value
        assert (readings[1]["error_to_first_low"], readings[1]["error_to_first_high"]) == (found.low, found.high)
        assert readings[0]["error"] == readings[0]["error_to_first"]
        assert student.record["events"][1].startswith("images of 2 steps differ from those of 4 by ")

    def test_the_student_comes_nearer_to_its_teacher(self, teacher: Generator):
        recipe = ProgressiveDistillation(num_steps=4, start=8, epochs=60, batch_size=16, memory=0.2)
        mine = recipe.fit(teacher, little_split()).record["readings"][-1]
        untaught = replace(recipe, epochs=1, lr=1e-9).fit(teacher, little_split()).record["readings"][-1]
        assert mine["error_high"] < untaught["error_low"]

    def test_its_levels_are_every_second_of_the_teachers(self, halved: tuple[Generator, list[tuple[int, int]]]):
        network = halved[0].network
        levels = network.sampling.sigmas(network.sigma_min, network.sigma_max)
        whole = Sampling(num_steps=8).sigmas(0.002, 80.0)
        assert torch.allclose(levels, whole[::4], rtol=1e-12, atol=0)

    def test_epochs_are_shared_out(self):
        recipe = ProgressiveDistillation(num_steps=1, epochs=16)
        assert recipe.halvings == (16, 8, 4, 2, 1)
        assert [recipe.epochs_of(steps) for steps in recipe.halvings] == [2, 2, 2, 4, 6]

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"num_steps": 3}, "so num_steps must be one of 1, 2, 4, 8, 16, got 3"),
            ({"num_steps": 32}, "halves 32 steps, so num_steps must be one of 1, 2, 4, 8, 16, got 32"),
            ({"start": 20}, "start must be a power of two from 2 on, got 20"),
            ({"epochs": 2}, "epochs must be at least 3, for so long the halvings from 32 to 4 steps last"),
            ({"lr": 0.0}, "lr must be positive"),
            ({"memory": 1.0}, r"memory lie in \[0, 1\)"),
            ({"batch_size": 0}, "batch_size must be at least 1"),
        ],
    )
    def test_numbers_that_cannot_be(self, wrong: dict[str, Any], says: str):
        with pytest.raises(InputError, match=says):
            ProgressiveDistillation(**wrong)


class TestStudents:
    @pytest.mark.parametrize("recipe", [PROGRESSIVE, CONSISTENCY, TRAINING])
    def test_it_is_drawn_from_and_kept_as_any_generator_is(
        self, teacher: Generator, finished: dict[Any, Generator], tmp_path: Path, recipe: Any
    ):
        student = finished[recipe]
        back = load_generator(student.save(tmp_path / "student"))
        assert back.fingerprint == student.fingerprint
        assert (back.kind, back.classes) == ("diffusion", teacher.classes)
        many, few = back.sample(20, seed=1), student.sample(3, seed=1, start=16)
        assert torch.equal(many.pixels[16:19], few.pixels)
        more = replace(back.network.sampling, num_steps=4)
        assert not torch.equal(back.sample(3, sampling=more).pixels, student.sample(3).pixels)

    def test_guidance_is_an_input(self, teacher: Generator):
        student = fitted(replace(CONSISTENCY, epochs=6, lr=3e-3), teacher)
        ways = [Sampling(method="consistency", num_steps=1, guidance=w) for w in (1.0, 3.0)]
        plain, strong = (student.sample(24, sampling=way).pixels for way in ways)
        assert not torch.equal(plain, strong)
        assert student.network.sampling.guidance == 2
        with pytest.raises(InputError, match="distilled for guidance from 1 to 3, got 4"):
            student.sample(2, sampling=replace(ways[0], guidance=4.0))

    def test_training_needs_no_teacher(self):
        recipe = replace(TRAINING, model=Diffusion(**LITTLE, conditional=False))
        student = recipe.fit(little_split())
        assert student.classes == ()
        assert "error" not in student.record["readings"][-1]
        assert student.sample(2).pixels.shape == (2, 3, 8, 8)
        with pytest.raises(InputError, match="a consistency model needs about 500 images"):
            ConsistencyTraining().fit(little_split())


class TestRefusals:
    def test_what_is_no_teacher(self, teacher: Generator, halved: tuple[Generator, list[tuple[int, int]]]):
        vae = VAE(epochs=1, fewest=1, width=8, hidden=8, latent_dim=2).fit(little_split())
        with pytest.raises(InputError, match="and this generator is a vae"):
            PROGRESSIVE.fit(vae, little_split())
        with pytest.raises(InputError, match="a student already"):
            CONSISTENCY.fit(halved[0], little_split())

    def test_images_that_do_not_fit(self, teacher: Generator):
        other = replace(little_split(), classes=("one", "two", "three"))
        with pytest.raises(InputError, match="the model knows the classes red, green, blue, and the images have one"):
            PROGRESSIVE.fit(teacher, other)

    def test_guidance_of_a_model_without_classes(self):
        plain = Diffusion(**LITTLE, epochs=1, conditional=False).fit(little_split())
        with pytest.raises(InputError, match="the model was trained without any"):
            CONSISTENCY.fit(plain, little_split())
        with pytest.raises(InputError, match="the model was trained without any"):
            replace(PROGRESSIVE, guidance=2.0).fit(plain, little_split())

    @pytest.mark.parametrize(
        ("recipe", "wrong", "says"),
        [
            (ConsistencyDistillation, {"num_levels": 1}, "num_levels must be at least 2"),
            (ConsistencyDistillation, {"target_decay": 1.0}, r"target_decay lie in \[0, 1\)"),
            (ConsistencyDistillation, {"num_steps": 0}, "num_steps must be a whole number of at least 1, got 0"),
            (ConsistencyDistillation, {"guidance": (3.0, 1.0)}, "the first not above the second"),
            (ConsistencyTraining, {"coarsest": 9, "finest": 4}, "1 <= coarsest <= finest must hold"),
        ],
    )
    def test_numbers_that_cannot_be(self, recipe: Any, wrong: dict[str, Any], says: str):
        with pytest.raises(InputError, match=says):
            recipe(**wrong)

"""Quality against evaluations: every sampler of a diffusion model and its students, beside real images.

What enters: a model, students, real images that none of them saw, a backbone. What leaves: a report with a row for each
way of drawing images, and the same images of each. Kept in the folder: what was drawn, so that a stopped curve goes on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from headfirst.data import ImageSet
from headfirst.errors import InputError
from headfirst.evaluation import versions
from headfirst.features import embed, side_by_side
from headfirst.generate import Generator
from headfirst.generate.diffusion import Sampling, require_teacher
from headfirst.generate.diffusion.sampling import METHODS
from headfirst.nn import PretrainedBackbone
from headfirst.study.distillation_quality import Quality, quality_of, speed_ups
from headfirst.study.generator_data import at_size
from headfirst.study.generator_evaluation import real_images
from headfirst.study.generator_report import COLUMNS, GeneratorReport, Step, Strip
from headfirst.study.picture_grid import inline_png, picture_grid
from headfirst.train import join_world, training_folder
from headfirst.types import Progress, Samples, silent

SAMPLERS = ("ddpm", "ddim", "pndm", "heun", "dpm_pp_2m", "dpm_pp_3m")
EVALUATIONS = (1, 2, 4, 8, 16, 32, 64)
YARDSTICKS = ("ddpm", "ddim")
"""Samplers of the original papers, which took a thousand evaluations."""
_FEWEST = 16  # images, for there to be something to measure


def sampling_curve(
    teacher: Generator,
    images: ImageSet,
    backbone: PretrainedBackbone,
    *,
    students: Mapping[str, Generator] | None = None,
    samplers: Sequence[str] = SAMPLERS,
    evaluations: Sequence[int] = EVALUATIONS,
    yardstick: Sequence[int] = (),
    guidance: float = 1.0,
    num: int = 500,
    split: str = "test",
    seed: int = 0,
    directory: Path | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> GeneratorReport:
    """Rows of the same noises: each sampler with as many steps as the evaluations allow, then the students.

    Args:
        teacher: a diffusion model that is no student.
        students: by the names that they are to be shown under.
        evaluations: of the network for an image, at most; rising.
        yardstick: more of them, rising, of `YARDSTICKS` alone; with many evaluations each takes its time.
        guidance: w of every sampler; a student keeps its own.
        num: images of each row, at least 16.
        split: of the real images, one that none learned from.
        directory: keeps the images of each row, so that a stopped curve goes on; None keeps nothing.

    Raises:
        InputError: numbers that cannot be, an unknown sampler, a teacher that is a student, a student called like a
            sampler, guidance without classes, a split that was learned from.
        DataError: no such split, or too few images in it.
    """
    asked, students = (*evaluations, *yardstick), students or {}
    if num < _FEWEST or seed < 0 or not evaluations or list(asked) != sorted(set(asked)) or asked[0] < 1:
        raise InputError(
            f"num must be at least {_FEWEST}, seed at least 0, and evaluations rise from 1 or more, those of the "
            f"yardsticks after them, got {num}, {seed} and {', '.join(map(str, asked)) or 'none'}"
        )
    if yardstick and not set(samplers) & set(YARDSTICKS):
        raise InputError(f"a yardstick is of {' and '.join(YARDSTICKS)}; name one of them among the samplers")
    if taken := sorted(set(students) & {"teacher", *METHODS}):
        raise InputError(f"a student cannot be called {', '.join(taken)}, which is a sampler or the teacher; rename it")
    require_teacher(teacher)
    by_sampler = {name: asked if name in YARDSTICKS else evaluations for name in samplers}
    ways = [
        *(("teacher", teacher, how) for name, of in by_sampler.items() for how in _of_sampler(name, of, guidance)),
        *((name, model, how) for name, model in students.items() for how in _of_student(model, evaluations)),
    ]
    if not ways:
        raise InputError(f"with guidance an image takes two evaluations or more, got at most {asked[-1]}; allow more")
    for _, model, how in ways:
        model.require_sampling(how)
    size = teacher.network.size
    held_out = at_size(real_images(teacher, images, split, size, progress), size, progress=progress)
    real = embed(backbone, held_out, device=device, progress=progress).values
    with training_folder(directory, join_world(torch.device("cpu"))) as folder:
        slowest_first = sorted(ways, key=lambda way: -way[2].num_evaluations)
        _all([partial(_drawn, model, how, num, seed, device, folder) for _, model, how in slowest_first], device,
             progress)  # fmt: skip
        rows: list[Quality] = []
        shown: list[Tensor] = []
        for i, (name, model, how) in enumerate(ways):
            made, seconds = _read(_drawn(model, how, num, seed, device, folder), model, seed)
            rows.append(quality_of(made, name, model, how, real, backbone, seconds=seconds, device=device))
            shown.append(made.pixels[:COLUMNS])
            progress("distances", i + 1, len(ways))
    return GeneratorReport(
        name=images.name,
        kind=teacher.kind,
        quality=tuple(rows),
        by_evaluations=tuple(_step(most, rows, shown) for most in asked),
        speed_ups=speed_ups(rows),
        about={
            "recipe": teacher.recipe,
            "generator (sha256)": teacher.fingerprint,
            **{f"{name} (sha256)": student.fingerprint for name, student in students.items()},
            "backbone": backbone.name,
            "backbone and preprocessing (sha256)": backbone.fingerprint,
            "images of each row": num,
            "real images": split,
            "guidance": guidance,
            "seed": seed,
            "device": device,
        },
        versions=versions(),
    )


def _all(jobs: Sequence[Callable[[], Path]], device: str, progress: Progress) -> None:
    """Of the CPU each core draws by itself."""
    if device == "cpu":
        side_by_side(jobs, stage="ways to draw images", progress=progress)
        return
    for i, job in enumerate(jobs):
        job()
        progress("ways to draw images", i + 1, len(jobs))


def _drawn(generator: Generator, how: Sampling, num: int, seed: int, device: str, folder: Path) -> Path:
    """The file of a way's images and of the seconds they took, made where it is not there."""
    about = repr((generator.fingerprint, how, num, seed, device, versions()["headfirst"]))
    path = folder / f"{how.method}-{how.num_steps}-{hashlib.sha256(about.encode()).hexdigest()[:16]}.safetensors"
    if not path.is_file():
        began = time.perf_counter()
        made = generator.sample(num, seed=seed, sampling=how, device=device)
        seconds = torch.tensor(time.perf_counter() - began, dtype=torch.float64)
        part = path.with_suffix(".part")
        save_file({"pixels": made.pixels, "labels": made.labels, "seconds": seconds}, part)
        part.replace(path)  # whole, or not there
    return path


def _read(path: Path, generator: Generator, seed: int) -> tuple[Samples, float]:
    held = load_file(path)
    made = Samples(
        pixels=held["pixels"],
        labels=held["labels"],
        classes=generator.classes,
        seed=seed,
        indices=torch.arange(len(held["labels"])),
        source=generator.fingerprint,
    )
    return made, held["seconds"].item()


def _of_sampler(name: str, evaluations: Sequence[int], guidance: float) -> Iterator[Sampling]:
    """With as many steps as each number of evaluations allows, where it allows one."""
    each = 1 if guidance == 1 else 2
    steps: dict[int, Sampling] = {}
    for most in evaluations:
        how = Sampling(method=name, num_steps=1, guidance=guidance)
        while (more := replace(how, num_steps=how.num_steps + 1)).num_evaluations * each <= most:
            how = more
        if how.num_evaluations * each <= most:
            steps[how.num_steps] = how
    yield from steps.values()


def _of_student(student: Generator, evaluations: Sequence[int]) -> Iterator[Sampling]:
    """Of a consistency function a few numbers of steps, of others their own."""
    own = student.network.sampling
    if own.method == "consistency":
        yield from (replace(own, num_steps=n) for n in evaluations if n <= 8)
    else:
        yield own


def _step(most: int, rows: Sequence[Quality], shown: Sequence[Tensor]) -> Step:
    """Of each way the images with the most evaluations that are allowed."""
    best: dict[str, int] = {}
    for i, row in enumerate(rows):
        if row.evaluations <= most and (row.way not in best or rows[best[row.way]].evaluations < row.evaluations):
            best[row.way] = i
    return Step(
        evaluations=most,
        strips=tuple(
            Strip(name=f"{name}, {rows[i].evaluations}", picture=inline_png(picture_grid(shown[i], columns=COLUMNS)),
                  num=len(shown[i]))
            for name, i in best.items()
        ),
    )  # fmt: skip

"""How good a student's images are beside its teacher's, against how often each asks its network.

What enters: a teacher, students, real images none of them saw, a backbone. What leaves: a row for each way of drawing
images, with the Fréchet distance and its interval.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.augment import as_split
from headfirst.data import ImageSet
from headfirst.features import embed
from headfirst.generate import Generator
from headfirst.generate.diffusion import Sampling
from headfirst.metrics import density_coverage, frechet_distance, kernel_distance
from headfirst.nn import PretrainedBackbone
from headfirst.study.generator_data import at_size
from headfirst.study.generator_evaluation import K_COVERAGE, real_images
from headfirst.study.generator_scores import Score, share
from headfirst.types import Progress, Samples, silent

TEACHER_STEPS = (1, 2, 4, 8, 32)
STUDENT_STEPS = (1, 2, 4)
"""Of a student that takes any number of steps."""
EQUAL = 1.1
"""How many times DDPM's distance still counts as equal quality."""
LEAST = 0.01
"""A distance that counts as equal to any: without its bias it may be estimated below 0."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """A model drawn from in one way.

    Attributes:
        model: teacher or student.
        method, steps, guidance: as of `Sampling`.
        evaluations: of the network, for an image; guidance by two evaluations counts both.
        frechet, kernel: distance to real images, without the bias of few images.
        coverage: share of the real images with a made one near, beside what as many real ones would cover.
        milliseconds: an image, where it was measured.
    """

    model: str
    method: str
    steps: int
    guidance: float
    evaluations: int
    frechet: Score
    kernel: Score
    coverage: Score
    milliseconds: float

    @property
    def way(self) -> str:
        """What it is called: a sampler of the teacher, or a student."""
        return self.method if self.model == "teacher" else self.model


@dataclass(frozen=True, kw_only=True)
class SpeedUp:
    """How many times fewer evaluations a way needs than DDPM with the most, at equal quality.

    Attributes:
        evaluations: the fewest that were tried whose Fréchet distance is no more than `EQUAL` times that of DDPM, or
            than `LEAST`, as estimated; None where none is.
        over: DDPM's evaluations.
    """

    way: str
    evaluations: int | None
    over: int

    @property
    def times(self) -> float | None:
        """Over / evaluations."""
        return self.over / self.evaluations if self.evaluations else None


def quality_table(
    teacher: Generator,
    students: Sequence[Generator],
    images: ImageSet,
    backbone: PretrainedBackbone,
    *,
    num: int = 1000,
    split: str = "test",
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> tuple[Quality, ...]:
    """Students by steps, the fewest first, then the teacher by its own method with the guidance of the last student.

    Args:
        num: images of each row, of the same noises.
        split: of the real images, one that neither learned from.

    Raises:
        InputError: a split that was learned from.
        DataError: no such split, or too few images in it.
    """
    size = teacher.network.size
    held_out = at_size(real_images(teacher, images, split, size, progress), size, progress=progress)
    real = embed(backbone, held_out, device=device, progress=progress).values
    rows = []
    for model, generator, sampling in _ways(teacher, students):
        began = time.perf_counter()
        made = generator.sample(num, seed=seed, sampling=sampling, device=device, progress=progress)
        seconds = time.perf_counter() - began
        rows.append(quality_of(made, model, generator, sampling, real, backbone, seconds=seconds, device=device,
                               progress=progress))  # fmt: skip
    return tuple(rows)


def quality_of(
    made: Samples,
    model: str,
    generator: Generator,
    sampling: Sampling,
    real: Float[Tensor, "n d"],
    backbone: PretrainedBackbone,
    *,
    seconds: float,
    device: str = "cpu",
    progress: Progress = silent,
) -> Quality:
    """The row of images that were made in so many seconds; real: features of real images."""
    features = embed(backbone, as_split(made, name="generated"), device=device, progress=progress).values
    found, kernel, covered = (
        frechet_distance(features, real), kernel_distance(features, real), density_coverage(real, features, K_COVERAGE)
    )  # fmt: skip
    return Quality(
        model=model,
        method=sampling.method,
        steps=sampling.num_steps,
        guidance=sampling.guidance,
        evaluations=evaluations(generator, sampling),
        frechet=Score(value=found.corrected, low=found.low, high=found.high, expected=0.0),
        kernel=Score(value=kernel.corrected, low=kernel.low, high=kernel.high, expected=0.0),
        coverage=share(round(covered.coverage * len(real)), len(real), covered.expected_coverage),
        milliseconds=1000 * seconds / len(made.pixels),
    )


def speed_ups(rows: Sequence[Quality]) -> tuple[SpeedUp, ...]:
    """Of each way over DDPM with the most evaluations that it was given; nothing where DDPM was not drawn from."""
    if not (slow := [row for row in rows if row.way == "ddpm"]):
        return ()
    last = max(slow, key=lambda row: row.evaluations)
    near = [row for row in rows if row.frechet.value <= max(EQUAL * last.frechet.value, LEAST)]
    return tuple(
        SpeedUp(
            way=way,
            evaluations=min((row.evaluations for row in near if row.way == way), default=None),
            over=last.evaluations,
        )
        for way in dict.fromkeys(row.way for row in rows)
    )


def evaluations(generator: Generator, sampling: Sampling) -> int:
    """How often the network is asked for an image."""
    network, asked = generator.network, 0

    def count(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal asked
        asked += 1
        return x

    sigmas = sampling.sigmas(network.sigma_min, network.sigma_max)
    sampling.run(count, torch.zeros(1, 1, dtype=torch.float64), sigmas)
    return asked * (2 if sampling.guidance != 1 and not network.distilled else 1)


def _ways(teacher: Generator, students: Sequence[Generator]) -> Iterator[tuple[str, Generator, Sampling]]:
    ways = [
        (student, sampling)
        for student in students
        for own in [student.network.sampling]
        for sampling in ([replace(own, num_steps=n) for n in STUDENT_STEPS] if own.method == "consistency" else [own])
    ]
    for student, sampling in sorted(ways, key=lambda way: way[1].num_steps):
        yield "student", student, sampling
    own, guidance = teacher.network.sampling, students[-1].network.sampling.guidance
    for steps in TEACHER_STEPS:
        yield "teacher", teacher, replace(own, num_steps=steps, guidance=guidance)

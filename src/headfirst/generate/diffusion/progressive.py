"""Progressive distillation: a student whose one step lands where two of its teacher's do; then that is the teacher.

What enters: a diffusion model and images. What leaves: a student of half as many steps, halved again down to 4, 2 or 1,
and for each halving how far the student's images are from the teacher's.

Shape letters: N images.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.data import ImageSplit
from headfirst.errors import InputError
from headfirst.features import kept_threads, torch_threads
from headfirst.generate.diffusion.course import (
    Course,
    compared_images,
    error_reading,
    relative_error,
    require_guidance,
    require_numbers,
    shown_error,
    teach,
    teaching,
)
from headfirst.generate.diffusion.network import DiffusionNetwork, Distilled
from headfirst.generate.diffusion.one_step import LevelledDenoiser, along
from headfirst.generate.diffusion.sampling import Sampling
from headfirst.generate.diffusion.weighting import EDMWeighting
from headfirst.generate.generator import Generator, load_generator
from headfirst.nn.allocator import keep_freed_memory
from headfirst.train import Batch, join_world, training_folder
from headfirst.types import Progress, silent

_LONGER = 2
"""Halvings to two steps and to one last so many times as long as the others."""


def progressive_target(
    teacher: LevelledDenoiser,
    x: Float[Tensor, n * d],
    s: Float[Tensor, "*n"],
    m: Float[Tensor, "*n"],
    t: Float[Tensor, "*n"],
) -> Float[Tensor, n * d]:
    """The x₀ that a student must see in x at s for its step to t to land where the teacher's two, over m, land.

    x̃ = (x_t - t/s x) / (1 - t/s) of x_m = D_s + m/s (x - D_s) and x_t = D_m + t/m (x_m - D_m); that is
    D_s + a (D_m - D_s), a = s (m - t) / (m (s - t)) in (0, 1], which nothing is lost in where the steps are short.

    Args:
        teacher: D(x; σ).
        s, m, t: (N,) or scalars, s > m > t >= 0.

    Source: Salimans & Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", ICLR 2022, algorithm 2 and
    appendix G, in x = x₀ + σ ε.
    """
    first = teacher(x, s)
    second = teacher(first.lerp(x, along(m / s, x)), m)
    return first.lerp(second, along(s * (m - t) / (m * (s - t)), x))


def progressive_loss(
    student: LevelledDenoiser,
    teacher: LevelledDenoiser,
    x: Float[Tensor, n * d],
    s: Float[Tensor, " n"],
    m: Float[Tensor, " n"],
    t: Float[Tensor, " n"],
    *,
    sigma_data: float,
) -> Float[Tensor, " n"]:
    """w(s) |D_student(x; s) - x̃|², the mean over pixels; w of `EDMWeighting`, the paper's SNR + 1 where σ_d = 1."""
    with torch.no_grad():
        target = progressive_target(teacher, x, s, m, t)
    error = (student(x, s) - target).square().flatten(1).mean(dim=1)
    return EDMWeighting()(s, sigma_data).to(error.dtype) * error


@dataclass(frozen=True, kw_only=True)
class ProgressiveDistillation:
    """Halve the steps of a diffusion model, again and again.

    Attributes:
        num_steps: of the student, a power of two.
        start: steps of Euler's method that the teacher takes, a larger power of two.
        guidance: w of `guided`, which the student then does in one evaluation.
        epochs: passes over the images, over all halvings; those to two steps and to one last twice as long.
        batch_size: images a step.
        lr, weight_decay: of AdamW in each halving; the rate rises for a twentieth of the steps, then falls as a cosine.
        memory: share of a halving's steps that the moving average of the weights looks back on; 0 ends on the last
            weights.

    Raises:
        InputError: a number that cannot be.

    Source: Salimans & Ho, ICLR 2022, algorithm 2.
    """

    num_steps: int = 4
    start: int = 32
    guidance: float = 1.0
    epochs: int = 30
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.0
    memory: float = 0.1

    def __post_init__(self) -> None:
        if not _is_power_of_two(self.start) or self.start < 2:
            raise InputError(f"start must be a power of two from 2 on, got {self.start}; 32 is usual")
        if not _is_power_of_two(self.num_steps) or not self.num_steps < self.start:
            can = ", ".join(str(2**k) for k in range(self.start.bit_length() - 1))
            raise InputError(
                f"progressive distillation halves {self.start} steps, so num_steps must be one of {can}, got "
                f"{self.num_steps}"
            )
        if self.epochs < self.fewest_epochs:
            raise InputError(
                f"epochs must be at least {self.fewest_epochs}, for so long the halvings from {self.start} to "
                f"{self.num_steps} steps last at the least, got {self.epochs}"
            )
        _ = Distilled(guidance=(self.guidance, self.guidance))  # checks that it is finite
        require_numbers(self)

    @property
    def halvings(self) -> tuple[int, ...]:
        """Steps after each."""
        return tuple(2**k for k in range(self.start.bit_length() - 2, self.num_steps.bit_length() - 2, -1))

    @property
    def fewest_epochs(self) -> int:
        """Of all halvings."""
        return sum(map(_shares, self.halvings))

    def epochs_of(self, steps: int) -> int:
        """Of the halving to so many steps; what is left over goes to the last."""
        each = self.epochs // self.fewest_epochs
        rest = self.epochs - each * self.fewest_epochs if steps == self.num_steps else 0
        return each * _shares(steps) + rest

    def fit(
        self,
        teacher: Generator,
        images: ImageSplit,
        *,
        seed: int = 0,
        directory: Path | None = None,
        device: str = "cpu",
        watch: Callable[[int, Generator], None] | None = None,
        progress: Progress = silent,
    ) -> Generator:
        """Distil.

        Args:
            teacher: a diffusion model.
            images: what it learned from, or others like them.
            directory: keeps checkpoints and finished halvings; the same call resumes from them, to the same bits.
            device: "cpu" or "cuda".
            watch: called after each halving with the epochs done and the student so far, whose
                `network.sampling.num_steps` says how many steps it takes.

        Returns:
            The student; its record holds, of each halving, how far its images are from those of its teacher and of the
            first, of the same noise (`relative_error`).

        Raises:
            InputError: a teacher or images that do not fit, see `Course.of`.
            FingerprintError: `directory` belongs to another run.
            DivergenceError: a loss or gradient became non-finite.
        """
        keep_freed_memory()
        course, network = Course.of(teacher, images, seed=seed, device=device, progress=progress)
        require_guidance(teacher, self.guidance, self.guidance)
        with training_folder(directory, join_world(course.device)) as work, torch_threads(kept_threads(work)):
            first = Sampling(method="euler", num_steps=self.start, guidance=self.guidance)
            shown = compared_images(teacher, course, first)
            run = _Run(self, course, teacher.fingerprint, shown, work)
            student, before, done = None, _Before(network, first, shown), 0
            for steps in self.halvings:
                student = _halved(run, before, steps, student)
                done += self.epochs_of(steps)
                own = copy.deepcopy(student.network).to(device)
                before = _Before(own, own.sampling, compared_images(student, course))
                (watch or (lambda epochs, generator: None))(done, student)
            assert student is not None  # there is at least one halving
            return student


@dataclass(frozen=True, eq=False)
class _Run:
    recipe: ProgressiveDistillation
    course: Course
    teacher: str
    shown: Tensor
    work: Path


@dataclass(frozen=True, eq=False)
class _Before:
    """The teacher of a halving, how it is drawn from, and its images."""

    network: DiffusionNetwork
    sampling: Sampling
    shown: Tensor

    @property
    def levels(self) -> Float[Tensor, " m"]:
        return self.sampling.sigmas(self.network.sigma_min, self.network.sigma_max)


def _halved(run: _Run, teacher: _Before, steps: int, last: Generator | None) -> Generator:
    """The student of so many steps, trained, or as it was kept."""
    recipe, course = run.recipe, run.course
    kept, work = run.work / f"student-{steps}", run.work / f"halving-{steps}"
    fingerprint = course.identity("progressive", recipe, run.teacher, steps)
    if (kept / "generator.json").is_file() and (found := load_generator(kept)).record["run"] == fingerprint:
        return found
    levels = teacher.levels
    own = halved_levels(levels)
    student = teacher.network.student(
        sampling=Sampling(method="euler", num_steps=steps, guidance=recipe.guidance),
        distilled=Distilled(guidance=(recipe.guidance, recipe.guidance)),
        sigma_min=own[-2].item() if steps > 1 else teacher.network.sigma_min,
    ).to(course.device)
    weight = 1.0 if teacher.network.distilled else recipe.guidance

    def loss(batch: Batch) -> Tensor:
        student.train()
        lot = course.lot(batch, steps)
        i = 2 * (lot.for_level * steps).long()
        s, m, t = (levels[i + k].float().to(course.device) for k in range(3))
        return progressive_loss(
            lambda x, sigma: student.denoise(x, sigma, lot.labels),
            teaching(teacher.network, lot.labels, weight),
            lot.images + along(s, lot.images) * lot.noise,
            s,
            m,
            t,
            sigma_data=student.sigma_data,
        ).mean()

    record = teach(
        course,
        student,
        student,
        loss,
        recipe,
        epochs=recipe.epochs_of(steps),
        fingerprint=fingerprint,
        work=work,
        stage=f"training ({2 * steps} to {steps} steps)",
    )
    generator = course.generator(student, recipe, work)
    generator = _certified(run, generator, record.losses, record.seconds, fingerprint, teacher, last)
    generator.save(kept)
    return generator


def halved_levels(levels: Float[Tensor, " m"]) -> Float[Tensor, " h"]:
    """Every second level, from the first on; of an even number of steps, so that the last stays.

    Of `karras_sigmas` with a 0 they are again such levels, down to the last but one.

    Raises:
        InputError: an odd number of steps.
    """
    if len(levels) % 2 == 0:
        raise InputError(f"only an even number of steps can be halved, got {len(levels) - 1}")
    return levels[::2]


def _certified(
    run: _Run,
    student: Generator,
    losses: tuple[float, ...],
    seconds: float,
    fingerprint: str,
    teacher: _Before,
    last: Generator | None,
) -> Generator:
    """With the record of all halvings so far."""
    steps = student.network.sampling.num_steps
    shown = compared_images(student, run.course)
    error = relative_error(shown, teacher.shown, seed=run.course.seed)
    whole = relative_error(shown, run.shown, seed=run.course.seed)
    before: dict[str, Any] = dict(last.record) if last else {"losses": [], "readings": [], "events": [], "seconds": 0.0}
    of_first = "" if last is None else f", and from those of its {run.recipe.start} by {shown_error(whole)}"
    reading = {
        "epoch": len(before["losses"]) + len(losses),
        "steps": steps,
        "loss": losses[-1],
        **error_reading("error", error),
        **error_reading("error_to_first", whole),
    }
    said = (
        f"images of {steps} step{'s' * (steps > 1)} differ from those of {2 * steps} by {shown_error(error)} of their "
        f"spread{of_first}"
    )
    return replace(
        student,
        record={
            "losses": [*before["losses"], *losses],
            "readings": [*before["readings"], reading],
            "events": [*before["events"], said],
            "seconds": round(before["seconds"] + seconds, 3),
            "seed": run.course.seed,
            "images": len(run.course.pool),
            "teacher": run.teacher,
            "run": fingerprint,
        },
    )


def _is_power_of_two(number: int) -> bool:
    return number >= 1 and number & (number - 1) == 0


def _shares(steps: int) -> int:
    """Of the epochs."""
    return _LONGER if steps <= 2 else 1

"""`headfirst generate distil`: from a diffusion model to a student of few steps, with its quality table.

What enters: a model, images, a recipe of `headfirst.generate.diffusion`. What leaves: in one folder the student, grids
of its images as they came about, and a report; the same call goes on where a stopped one was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headfirst.data import ImageSet, ImageSplit
from headfirst.generate import Generator
from headfirst.generate.diffusion import ConsistencyTraining
from headfirst.nn import PretrainedBackbone
from headfirst.study.distillation_quality import quality_table
from headfirst.study.generator_evaluation import real_images
from headfirst.study.generator_report import GeneratorReport
from headfirst.study.generator_training import GeneratorTraining, train_generator
from headfirst.types import Progress, silent

MOST_STEPS = 8
"""Of the halvings' students that the quality table shows."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Taught:
    """A recipe with its teacher, so that it is trained as any generator is.

    Attributes:
        recipe: `ProgressiveDistillation`, `ConsistencyDistillation` or `ConsistencyTraining`.
        epochs: in place of the recipe's.
        students: every student that came about; the last of each number of steps counts.
    """

    recipe: Any
    teacher: Generator
    epochs: int
    students: dict[int, Generator] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"{self.recipe!r} of {self.teacher.fingerprint}"

    @property
    def batch_size(self) -> int:
        """Images a step."""
        return self.recipe.batch_size

    @property
    def size(self) -> int:
        """Side of the images."""
        return self.teacher.network.size

    @property
    def fewest_epochs(self) -> int:
        """Below which the recipe refuses."""
        return getattr(self.recipe, "fewest_epochs", 1)

    def fit(
        self,
        images: ImageSplit,
        *,
        val: ImageSplit | None = None,
        watch: Callable[[int, Generator], None],
        force: bool = False,
        **rest: Any,
    ) -> Generator:
        """As every recipe's; held-out images are not looked at."""

        def seen(epochs: int, student: Generator) -> None:
            self.students[student.network.sampling.num_steps] = student
            watch(epochs, student)

        recipe = replace(self.recipe, epochs=self.epochs)
        if isinstance(recipe, ConsistencyTraining):
            return recipe.fit(images, start=self.teacher, watch=seen, **rest)
        return recipe.fit(self.teacher, images, watch=seen, **rest)


def distil(
    teacher: Generator,
    images: ImageSet,
    recipe: Any,
    out: Path,
    *,
    backbone: PretrainedBackbone,
    minutes: float | None = None,
    num: int = 1000,
    split: str = "test",
    seed: int = 0,
    device: str = "cpu",
    told: Callable[[str], None] = lambda _: None,
    written: Callable[[GeneratorReport], object] = lambda _: None,
    progress: Progress = silent,
) -> GeneratorTraining:
    """Distil, and hold student and teacher against real images.

    Args:
        recipe: `ProgressiveDistillation`, `ConsistencyDistillation` or `ConsistencyTraining`.
        backbone: whose features the Fréchet distances are of.
        num: images of each row of the quality table.
        split: of the real images.

    The rest and errors as `train_generator`; errors of the recipe's `fit` too.
    """
    real_images(teacher, images, split, teacher.network.size, progress)  # refuses a split before any work
    taught = Taught(recipe=recipe, teacher=teacher, epochs=recipe.epochs)

    def finished(report: GeneratorReport, student: Generator) -> GeneratorReport:
        others = [s for steps, s in taught.students.items() if steps <= MOST_STEPS and s.network is not student.network]
        quality = quality_table(teacher, [*others, student], images, backbone, num=num, split=split, seed=seed,
                                device=device, progress=progress)  # fmt: skip
        about = {**report.about, "teacher (sha256)": teacher.fingerprint, "backbone": backbone.name,
                 "backbone and preprocessing (sha256)": backbone.fingerprint,
                 "images of each row": num, "real images": split}  # fmt: skip
        return replace(report, quality=quality, about=about)

    return train_generator(images, taught, out, minutes=minutes, with_classes=bool(teacher.classes), seed=seed,
                           device=device, force=True, told=told, written=written, finished=finished,
                           progress=progress)  # fmt: skip

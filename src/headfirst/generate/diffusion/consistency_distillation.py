"""Consistency distillation: a student that jumps from anywhere on a path of its teacher's to the path's end.

What enters: a diffusion model and images. What leaves: a student that makes images in one to a few evaluations; with a
range of guidance scales it is told the scale and imitates the guided teacher (latent consistency, in whatever space the
teacher denoises).

Shape letters: N images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.data import ImageSplit
from headfirst.errors import InputError
from headfirst.features import kept_threads, torch_threads
from headfirst.generate.diffusion.consistency_course import Pair, consistency_function, taught
from headfirst.generate.diffusion.consistency_function import consistency_loss, usual_huber
from headfirst.generate.diffusion.course import Course, require_guidance, require_numbers, teaching
from headfirst.generate.diffusion.levels import karras_sigmas
from headfirst.generate.diffusion.network import Distilled
from headfirst.generate.diffusion.one_step import LevelledDenoiser, Step, along, heun_step
from headfirst.generate.diffusion.sampling import Sampling
from headfirst.generate.generator import Generator
from headfirst.nn.allocator import keep_freed_memory
from headfirst.train import Batch, join_world, training_folder
from headfirst.types import Progress, silent


def consistency_distillation_loss(
    student: LevelledDenoiser,
    target: LevelledDenoiser,
    teacher: LevelledDenoiser,
    x: Float[Tensor, n * d],
    s: Float[Tensor, " n"],
    t: Float[Tensor, " n"],
    *,
    huber: float,
    step: Step = heun_step,
) -> Float[Tensor, " n"]:
    """‖f(x; s) - f⁻(x_t; t)‖, x_t where one step of the teacher's ODE from (x, s) lands (see `consistency_loss`).

    The consistency function of the teacher's ODE has loss 0 where the step is exact.

    Args:
        student, target: f and f⁻.
        teacher: D(x; σ).
        s, t: (N,) neighbouring levels, s > t > 0.
        step: `heun_step`, or another.

    Source: Song et al., "Consistency Models", ICML 2023, algorithm 2.
    """
    with torch.no_grad():
        ahead = step(teacher, x, s, t)
    return consistency_loss(student, target, x, s, ahead, t, huber=huber)


@dataclass(frozen=True, kw_only=True)
class ConsistencyDistillation:
    """Teach a student the ends of its teacher's paths.

    Attributes:
        num_steps: evaluations of an image where nothing else is asked; the student takes any number of them.
        num_levels: N of the grid, Karras et al.'s, whose neighbours it compares.
        guidance: least and greatest w of `guided`. Where they differ the student is told w, as in latent consistency
            distillation; where they are alike it learns that one.
        target_decay: μ of the target f⁻, an average of the student over the steps; 0 is the student itself.
        epochs, batch_size: passes over the images, images a step.
        lr, weight_decay: of AdamW; the rate rises for a twentieth of the steps, then falls as a cosine.
        memory: share of the steps that the moving average of the weights looks back on; 0 ends on the last weights.

    Raises:
        InputError: a number that cannot be.

    Source: Song et al., ICML 2023, algorithm 2; Luo et al., "Latent Consistency Models", 2023, algorithm 1, with Heun's
    step for their DDIM's; pseudo-Huber distance: Song & Dhariwal, ICLR 2024.
    """

    num_steps: int = 1
    num_levels: int = 18
    guidance: tuple[float, float] = (1.0, 1.0)
    target_decay: float = 0.95
    epochs: int = 30
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.0
    memory: float = 0.1

    def __post_init__(self) -> None:
        if self.num_levels < 2 or not 0 <= self.target_decay < 1:
            raise InputError(
                "num_levels must be at least 2 and target_decay lie in [0, 1), got "
                f"{self.num_levels} and {self.target_decay}"
            )
        _ = Sampling(num_steps=self.num_steps), Distilled(guidance=self.guidance)  # these check the rest
        require_numbers(self)

    @property
    def default_guidance(self) -> float:
        """w of an image where nothing else is asked: the middle of the range."""
        return sum(self.guidance) / 2

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
        """Distil; arguments and errors as `ProgressiveDistillation.fit`.

        Returns:
            The student; its record holds, at each reading, how far its images of one evaluation are from the teacher's
            of the same noise (`relative_error`).
        """
        keep_freed_memory()
        course, network = Course.of(teacher, images, seed=seed, device=device, progress=progress)
        require_guidance(teacher, *self.guidance)
        distilled = Distilled(boundary=network.sigma_min, guidance=self.guidance)
        sampling = Sampling(method="consistency", num_steps=self.num_steps, guidance=self.default_guidance)
        pair = Pair(network.student(sampling=sampling, distilled=distilled)).to(device)
        levels = karras_sigmas(self.num_levels, network.sigma_min, network.sigma_max)
        low, high = self.guidance

        def loss(batch: Batch) -> Tensor:
            pair.network.train()
            if batch.step:  # after the step before
                pair.follow(self.target_decay)
            lot = course.lot(batch)
            i = (lot.for_level * (self.num_levels - 1)).long()
            s, t = levels[i].float().to(device), levels[i + 1].float().to(device)
            weight = (low + (high - low) * lot.for_guidance).float().to(device) if distilled.told else low
            told = distilled.share(weight) if isinstance(weight, Tensor) else None
            return consistency_distillation_loss(
                consistency_function(pair.network, lot.labels, told),
                consistency_function(pair.target, lot.labels, told),
                teaching(network, lot.labels, weight),
                lot.images + along(s, lot.images) * lot.noise,
                s,
                t,
                huber=usual_huber(network.noise_dim),
            ).mean()

        with training_folder(directory, join_world(course.device)) as work, torch_threads(kept_threads(work)):
            return taught(course, pair, pair.network, loss, self, teacher=teacher, guidance=self.default_guidance,
                          work=work, name="consistency distillation", watch=watch)  # fmt: skip

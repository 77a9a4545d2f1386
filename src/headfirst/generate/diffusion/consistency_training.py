"""Consistency training: the consistency function learned from images alone, without a teacher.

What enters: images, and perhaps a diffusion model to start from. What leaves: a model that makes images in one to a few
evaluations.

Shape letters: N images, M levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.data import ImageSplit
from headfirst.errors import InputError
from headfirst.features import kept_threads, torch_threads
from headfirst.generate.diffusion.consistency_course import consistency_function, taught
from headfirst.generate.diffusion.consistency_function import consistency_loss, usual_huber
from headfirst.generate.diffusion.course import Course, require_numbers
from headfirst.generate.diffusion.levels import karras_sigmas
from headfirst.generate.diffusion.network import Distilled
from headfirst.generate.diffusion.one_step import LevelledDenoiser, along
from headfirst.generate.diffusion.recipe import Diffusion
from headfirst.generate.diffusion.sampling import Sampling
from headfirst.generate.diffusion.training_levels import LogNormalLevels
from headfirst.generate.generator import Generator, require_enough
from headfirst.generate.pictures import pictures
from headfirst.nn.allocator import keep_freed_memory
from headfirst.train import Batch, Optimisation, join_world, training_folder
from headfirst.types import Progress, silent


def consistency_training_loss(
    student: LevelledDenoiser,
    target: LevelledDenoiser,
    images: Float[Tensor, n * d],
    noise: Float[Tensor, n * d],
    s: Float[Tensor, " n"],
    t: Float[Tensor, " n"],
    *,
    huber: float,
) -> Float[Tensor, " n"]:
    """‖f(x₀ + s z; s) - f⁻(x₀ + t z; t)‖ / (s - t): both points share image and noise (see `consistency_loss`).

    (x - x₀) / s is an unbiased guess of the ODE's slope (x - D) / s, so that the step needs no teacher.

    Args:
        student, target: f and f⁻.
        s, t: (N,) neighbouring levels, s > t > 0.

    Source: Song et al., ICML 2023, algorithm 3; the weight: Song & Dhariwal, ICLR 2024, section 3.1.
    """
    x_s, x_t = images + along(s, images) * noise, images + along(t, images) * noise
    return consistency_loss(student, target, x_s, s, x_t, t, huber=huber) / (s - t)


def curriculum(step: int, num_steps: int, coarsest: int, finest: int) -> int:
    """How many intervals the levels have at a step: doubled at equal times, N(k) = min(s₀ 2^⌊k / K'⌋, s₁).

    K' = ⌊K / (log₂⌊s₁ / s₀⌋ + 1)⌋, at least 1.

    Source: Song & Dhariwal, ICLR 2024, section 3.4.

    >>> [curriculum(k, 90, 10, 40) for k in (0, 29, 30, 60, 89)]
    [10, 10, 20, 40, 40]
    """
    times = max(1, int(num_steps / (math.log2(finest // coarsest) + 1)))
    return min(coarsest * 2 ** (step // times), finest)


def drawn_intervals(sigmas: Float[Tensor, " m"], levels: LogNormalLevels, u: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Index i of the interval from σ_i to σ_(i+1), as likely as ln σ is to lie there, for u uniform in [0, 1).

    Source: Song & Dhariwal, ICLR 2024, section 3.5: their erf weights.
    """
    z = (sigmas.double().log() - levels.mean) / levels.std
    weights = -torch.special.ndtr(z).diff()
    edges = weights.cumsum(0)
    return torch.searchsorted(edges, u.double() * edges[-1], right=True).clamp(max=len(sigmas) - 2)


@dataclass(frozen=True, kw_only=True)
class ConsistencyTraining:
    """Learn to jump to images, from images.

    Attributes:
        model: the network that is trained where no other is started from: shape, levels, classes and size.
        num_steps: evaluations of an image where nothing else is asked.
        coarsest, finest: intervals of the levels at the beginning and the end, see `curriculum`.
        levels: which of them it sees more often.
        epochs, batch_size: passes over the images, images a step.
        lr, weight_decay: of AdamW; the rate rises for a twentieth of the steps, then falls as a cosine.
        memory: share of the steps that the moving average of the weights looks back on; 0 ends on the last weights.

    Raises:
        InputError: a number that cannot be.

    Source: Song & Dhariwal, "Improved Techniques for Training Consistency Models", ICLR 2024: the target is the student
    itself, the distance pseudo-Huber. From a diffusion model: Geng et al., "Consistency Models Made Easy", ICLR 2025.
    """

    model: Diffusion = field(default_factory=Diffusion)
    num_steps: int = 1
    coarsest: int = 10
    finest: int = 160
    levels: LogNormalLevels = field(default_factory=lambda: LogNormalLevels(mean=-1.1, std=2.0))
    epochs: int = 60
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.0
    memory: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.coarsest <= self.finest:
            raise InputError(f"1 <= coarsest <= finest must hold, got {self.coarsest} and {self.finest}")
        _ = Sampling(num_steps=self.num_steps)  # checks it
        require_numbers(self)

    def fit(
        self,
        images: ImageSplit,
        *,
        start: Generator | None = None,
        seed: int = 0,
        directory: Path | None = None,
        device: str = "cpu",
        force: bool = False,
        watch: Callable[[int, Generator], None] | None = None,
        progress: Progress = silent,
    ) -> Generator:
        """Train.

        Args:
            start: a diffusion model whose weights are the first; None begins with untrained ones.
            force: without `start`, go on with fewer images than `model.fewest`.

        The rest and errors as `ProgressiveDistillation.fit` and `Diffusion.fit`.
        """
        keep_freed_memory()
        first = start or _untrained(self.model, images, seed=seed, force=force, progress=progress)
        course, network = Course.of(first, images, seed=seed, device=device, progress=progress)
        distilled = Distilled(boundary=network.sigma_min)
        sampling = Sampling(method="consistency", num_steps=self.num_steps)
        student = network.student(sampling=sampling, distilled=distilled).to(device)
        per_epoch = Optimisation(epochs=1, batch_size=self.batch_size).steps_per_epoch(len(course.pool))
        num_steps = self.epochs * per_epoch

        def loss(batch: Batch) -> Tensor:
            student.train()
            lot = course.lot(batch)
            intervals = curriculum(batch.step, num_steps, self.coarsest, self.finest)
            sigmas = karras_sigmas(intervals + 1, network.sigma_min, network.sigma_max)
            i = drawn_intervals(sigmas, self.levels, lot.for_level)
            own = consistency_function(student, lot.labels, None)
            return consistency_training_loss(
                own,
                own,
                lot.images,
                lot.noise,
                sigmas[i].float().to(device),
                sigmas[i + 1].float().to(device),
                huber=usual_huber(network.noise_dim),
            ).mean()

        with training_folder(directory, join_world(course.device)) as work, torch_threads(kept_threads(work)):
            return taught(course, student, student, loss, self, teacher=start, guidance=1.0, work=work,
                          name="consistency training", watch=watch)  # fmt: skip


def _untrained(model: Diffusion, images: ImageSplit, *, seed: int, force: bool, progress: Progress) -> Generator:
    """The model before its first step."""
    pool = pictures(images, size=model.size, progress=progress)
    require_enough(len(pool), model.fewest, "a consistency model", force=force)
    if model.conditional and not pool.classes:
        raise InputError("a model with classes needs every image's label; label them, or conditional=False")
    if model.conditional is False:
        pool = replace(pool, split=replace(pool.split, labels=np.full(len(pool), -1)))
    return Generator(
        kind="diffusion",
        network=model.network(pool, seed=seed),
        classes=pool.classes,
        shares=pool.shares,
        trained_on=pool.split.fingerprint,
        recipe=repr(model),
    )

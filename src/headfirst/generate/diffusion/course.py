"""What every distillation does alike: a student is made of a teacher, taught, and asked how near it comes.

What enters: a trained diffusion model and images. What leaves: batches, each row's draws its own; a student as a
`Generator`; the error between two models' images of the same noise.

Shape letters: N images, C channels, S pixels a side.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from headfirst.data import ImageSplit
from headfirst.errors import InputError
from headfirst.generate.diffusion.network import DiffusionNetwork
from headfirst.generate.diffusion.one_step import LevelledDenoiser, along
from headfirst.generate.diffusion.sampling import Sampling
from headfirst.generate.generator import Generator
from headfirst.generate.pictures import Pictures, as_pictures
from headfirst.metrics import Interval, bootstrap_statistic
from headfirst.randomness import keyed_normal, keyed_uniform
from headfirst.train import Batch, Optimisation, TrainRecord, decay_groups, load_checkpoint, train
from headfirst.types import Progress

NUM_COMPARED = 128
"""Images by which a student is held against its teacher."""
_NOISE, _LEVEL, _GUIDANCE = range(91, 94)  # streams of the keyed generator


@runtime_checkable
class Optimised(Protocol):
    """What a recipe says of its steps."""

    @property
    def epochs(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def lr(self) -> float: ...

    @property
    def weight_decay(self) -> float: ...

    @property
    def memory(self) -> float: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Lot:
    """A batch: images in [-1, 1], their labels, noise like them, and two uniform numbers of each, float64."""

    images: Float[Tensor, "n c s s"]
    labels: Int[Tensor, " n"] | None
    noise: Float[Tensor, "n c s s"]
    for_level: Float[Tensor, " n"]
    for_guidance: Float[Tensor, " n"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Course:
    """Images to learn on, with the classes of the model that is taught.

    Attributes:
        classes, shares: as of `Generator`.
    """

    pool: Pictures
    classes: tuple[str, ...]
    shares: tuple[float, ...]
    seed: int
    device: torch.device
    progress: Progress

    @classmethod
    def of(
        cls, teacher: Generator, images: ImageSplit, *, seed: int, device: str, progress: Progress
    ) -> tuple[Course, DiffusionNetwork]:
        """The course, and the teacher's network on the device.

        Raises:
            InputError: the teacher is no diffusion model or a student already; the images are of another kind or lack
                its classes.
        """
        network = require_teacher(teacher)
        pool = as_pictures(images, size=network.size, channels=network.channels)
        if teacher.classes and pool.classes != teacher.classes:
            raise InputError(
                f"the model knows the classes {', '.join(teacher.classes)}, and the images have "
                f"{', '.join(pool.classes) or 'none'}; give labelled images of the same"
            )
        course = cls(
            pool=pool,
            classes=teacher.classes,
            shares=teacher.shares,
            seed=seed,
            device=torch.device(device),
            progress=progress,
        )
        return course, copy.deepcopy(network).to(device).eval().requires_grad_(False)

    def lot(self, batch: Batch, *stage: int) -> Lot:
        """What the rows of a batch draw depends on the seed, stage, epoch and row alone."""
        key = (self.seed, *stage, batch.epoch)
        rows = batch.indices
        images = 2 * self.pool.batch(rows) - 1
        noise = keyed_normal(_NOISE, *key, rows[:, None], np.arange(images[0].numel()))
        labels = torch.from_numpy(self.pool.labels[rows]).to(self.device) if self.classes else None
        return Lot(
            images=images.to(self.device),
            labels=labels,
            noise=torch.from_numpy(noise).float().view_as(images).to(self.device),
            for_level=torch.from_numpy(keyed_uniform(_LEVEL, *key, rows)),
            for_guidance=torch.from_numpy(keyed_uniform(_GUIDANCE, *key, rows)),
        )

    def identity(self, *parts: object) -> str:
        """Names a run: what it learns from, and how."""
        text = "|".join(map(str, ("distil-1", self.seed, self.pool.split.fingerprint, self.pool.size, *parts)))
        return hashlib.sha256(text.encode()).hexdigest()

    def generator(self, network: DiffusionNetwork, recipe: object, work: Path, **record: Any) -> Generator:
        """What to keep of a student if its training ended here: a copy, with averaged weights where there are some."""
        return Generator(
            kind="diffusion",
            network=averaged_copy(network, work).requires_grad_(False),
            classes=self.classes,
            shares=self.shares,
            trained_on=self.pool.split.fingerprint,
            recipe=repr(recipe),
            record=record,
        )


def require_teacher(teacher: Generator) -> DiffusionNetwork:
    """The network of a model that can be distilled.

    Raises:
        InputError: it is no diffusion model, or a student already.
    """
    network = teacher.network
    if not isinstance(network, DiffusionNetwork):
        raise InputError(
            f"only a diffusion model of pixels can be distilled, and this generator is a {teacher.kind}; give one"
        )
    if network.distilled:
        raise InputError("the model is a student already; give the diffusion model that it was distilled from")
    return network


def teaching(
    network: DiffusionNetwork, labels: Int[Tensor, " n"] | None, weight: Float[Tensor, "*n"] | float = 1.0
) -> LevelledDenoiser:
    """D of these classes guided by w, which each image may have its own of; one evaluation where all w are 1."""
    plain = not isinstance(weight, Tensor) and weight == 1

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        of_class = network.denoise(x, sigma, labels)
        if plain:
            return of_class
        w = torch.as_tensor(weight, device=x.device)
        return network.denoise(x, sigma, None).lerp(of_class, along(w, x))

    return denoise


def require_guidance(teacher: Generator, low: float, high: float) -> None:
    """Refuse guidance of a model without classes.

    Raises:
        InputError: so.
    """
    if (low, high) != (1, 1) and not teacher.classes:
        raise InputError("guidance goes towards a class, and the model was trained without any: it must be 1")


def require_numbers(recipe: Optimised) -> None:
    """Refuse what cannot be optimised with.

    Raises:
        InputError: naming the number.
    """
    if not 0 < recipe.lr < math.inf or not 0 <= recipe.weight_decay < math.inf or not 0 <= recipe.memory < 1:
        raise InputError(
            "lr must be positive, weight_decay at least 0 and memory lie in [0, 1), got "
            f"{recipe.lr}, {recipe.weight_decay} and {recipe.memory}"
        )
    _ = Optimisation(epochs=recipe.epochs, batch_size=recipe.batch_size)  # checks the rest


def teach(
    course: Course,
    module: nn.Module,
    network: DiffusionNetwork,
    loss: Callable[[Batch], Tensor],
    recipe: Optimised,
    *,
    epochs: int,
    fingerprint: str,
    work: Path,
    until_epoch: int | None = None,
    stage: str,
) -> TrainRecord:
    """Train the network, a part of the module, by the mean of the loss over each batch; goes on where `work` is."""
    plain = Optimisation(epochs=epochs, batch_size=recipe.batch_size, warmup=0.05)
    back = recipe.memory * epochs * plain.steps_per_epoch(len(course.pool))
    return train(
        module,
        loss,
        decay_groups(network, lr=recipe.lr, weight_decay=recipe.weight_decay),
        replace(plain, ema_decay=1 - 1 / max(1.0, back)) if recipe.memory else plain,
        num_samples=len(course.pool),
        seed=course.seed,
        fingerprint=fingerprint,
        directory=work,
        until_epoch=None if until_epoch == epochs else until_epoch,
        optimiser=lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=course.device.type == "cpu"),
        progress=course.progress,
        stage=stage,
    )


def averaged_copy(network: DiffusionNetwork, work: Path) -> DiffusionNetwork:
    """On the CPU, in eval mode, with the averaged weights of the checkpoint in `work` where it has some."""
    found = copy.deepcopy(network).cpu().eval()
    kept = load_checkpoint(work)
    parameters = [p for group in decay_groups(found, lr=1.0, weight_decay=0.0) for p in group["params"]]
    if kept is not None and "ema.0" in kept.tensors:
        with torch.no_grad():
            for i, parameter in enumerate(parameters):
                parameter.copy_(kept.tensors[f"ema.{i}"])
    return found


def compared_images(generator: Generator, course: Course, sampling: Sampling | None = None) -> UInt8[Tensor, "n 3 s s"]:
    """The images by which models are compared: those of the first noises of the run's seed."""
    return generator.sample(NUM_COMPARED, seed=course.seed, sampling=sampling, device=str(course.device)).pixels


def relative_error(made: UInt8[Tensor, "n 3 s s"], reference: UInt8[Tensor, "m 3 r r"], *, seed: int = 0) -> Interval:
    """√(mean squared difference / variance of the reference's pixels), with a 95 % bootstrap interval over images.

    0 for the same images, about √2 for images that have nothing to do with each other.

    Raises:
        InputError: another number or size of images, or a reference whose pixels are all alike.

    >>> a = torch.tensor([0, 100], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 2, 2)
    >>> relative_error(a, a).value, relative_error(100 - a, a).value
    (0.0, 2.0)
    """
    if made.shape != reference.shape:
        raise InputError(f"images must be as many and as large, got {tuple(made.shape)} and {tuple(reference.shape)}")
    spread = reference.double().var(correction=0)
    if spread == 0:
        raise InputError("all pixels of the reference are alike, so that nothing can be compared with it")
    squared = (made.double() - reference.double()).square().flatten(1).mean(dim=1) / spread
    n = len(squared)

    def statistic(weights: Tensor) -> Tensor:
        return (weights @ squared / n).sqrt()

    ones = torch.ones(1, n, dtype=torch.float64)
    return bootstrap_statistic(statistic, statistic(ones), n, seed=seed, bounds=(0.0, math.inf))


def error_reading(name: str, error: Interval) -> dict[str, float | None]:
    """As a reading: three numbers, of which JSON can hold every one."""
    high = error.high if math.isfinite(error.high) else None
    return {name: error.value, f"{name}_low": error.low, f"{name}_high": high}


def shown_error(error: Interval) -> str:
    """As a sentence has it."""
    return f"{100 * error.value:.3g} % [{100 * error.low:.3g}, {100 * error.high:.3g}]"

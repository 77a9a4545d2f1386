"""The recipe of a diffusion model.

What enters: images. What leaves: a `Generator`, whose record says how it came about.

Shape letters: N images, C channels, S pixels a side, Z = C · S · S, A numbers of an augmentation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from headfirst.data import ImageSplit, shuffled_by_name
from headfirst.errors import InputError
from headfirst.features import kept_threads, torch_threads
from headfirst.generate.diffusion.leakage_guard import NUM_TOLD, Augmentation
from headfirst.generate.diffusion.network import DiffusionNetwork
from headfirst.generate.diffusion.sampling import Sampling
from headfirst.generate.diffusion.training import Run, Trained, trained
from headfirst.generate.diffusion.training_levels import LogNormalLevels
from headfirst.generate.diffusion.weighting import EDMWeighting, Weighting
from headfirst.generate.generator import Generator, require_enough
from headfirst.generate.pictures import Pictures, as_pictures, pictures
from headfirst.nn import DiTShape, MLPShape, UNetShape
from headfirst.nn.allocator import keep_freed_memory
from headfirst.nn.seeds import seeded
from headfirst.train import (
    Optimisation,
    join_world,
    training_folder,
)
from headfirst.types import Progress, silent

_MEASURED = 2048  # images that mean and standard deviation are taken from, at most
WEIGHTS, _AUGMENT, _MEASURE = 71, 75, 78  # streams of the keyed generator


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """A diffusion model, with classes where the images have them.

    Attributes:
        shape: of its network, `UNetShape(…)`, `DiTShape(…)` or `MLPShape(…)`.
        levels: the noise that training sees; importance: more of the levels whose loss is large, see
            `ImportanceLevels`.
        weighting: how much each level counts.
        sigma_min, sigma_max: the levels that images are drawn from.
        sampling: how images are drawn where nothing else is asked.
        class_drop: share of the images whose class is hidden, so that guidance knows images of any class.
        augmentation: None shows images as they are.
        epochs, batch_size: passes over the images, images a step.
        lr, weight_decay: of AdamW; the rate rises for a twentieth of the steps, then falls as a cosine.
        memory: share of the steps that the moving average of the weights looks back on; 0 ends on the last weights.
        conditional: whether it learns classes; None where every image has a label.
        size: side of the images; None as `pictures` chooses.
        fewest: images below which `fit` refuses unless forced.

    Raises:
        InputError: a number that cannot be.

    Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (EDM), NeurIPS 2022; the
    dropped class: Ho & Salimans, "Classifier-Free Diffusion Guidance", 2022.
    """

    shape: UNetShape | DiTShape | MLPShape = field(default_factory=UNetShape)
    levels: LogNormalLevels = field(default_factory=LogNormalLevels)
    importance: bool = False
    weighting: Weighting = field(default_factory=EDMWeighting)
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sampling: Sampling = field(default_factory=Sampling)
    class_drop: float = 0.1
    augmentation: Augmentation | None = None
    epochs: int = 60
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.01
    memory: float = 0.03
    conditional: bool | None = None
    size: int | None = None
    fewest: int = 500

    kind: ClassVar[str] = "diffusion"

    def __post_init__(self) -> None:
        if not 0 <= self.class_drop < 1 or not 0 <= self.memory < 1:
            raise InputError(f"class_drop and memory must lie in [0, 1), got {self.class_drop} and {self.memory}")
        if not 0 < self.lr < math.inf or not self.weight_decay >= 0:
            raise InputError(f"lr must be positive and weight_decay at least 0, got {self.lr} and {self.weight_decay}")
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise InputError(f"0 < sigma_min < sigma_max must hold, got {self.sigma_min} and {self.sigma_max}")
        _ = self.optimisation(1)  # checks the rest

    def optimisation(self, num: int) -> Optimisation:
        """The part of the recipe that the training loop reads, for `num` images."""
        plain = Optimisation(epochs=self.epochs, batch_size=self.batch_size, warmup=0.05)
        back = self.memory * self.epochs * plain.steps_per_epoch(num)
        return replace(plain, ema_decay=1 - 1 / max(1.0, back)) if self.memory else plain

    def network(self, about: Pictures, *, seed: int = 0) -> Any:
        """Untrained, its weights drawn from the seed, for images such as these."""
        rows = shuffled_by_name(about.split.ids, seed=seed, stream=_MEASURE)[:_MEASURED]
        pixels = 2 * about.batch(rows).double() - 1
        spread = pixels.std(correction=0).item()
        if spread == 0:
            raise InputError("all pixels of the images are alike, so that there is nothing to learn; give others")
        with seeded(seed, WEIGHTS):
            return DiffusionNetwork(
                size=about.size,
                channels=about.channels,
                num_classes=len(about.classes),
                shape=self.shape,
                mean=pixels.mean().item(),
                sigma_data=spread,
                sigma_min=self.sigma_min,
                sigma_max=self.sigma_max,
                sampling=self.sampling,
                num_augmentation=NUM_TOLD if self.augmentation else 0,
            )

    def shown(self, network: Any, pool: Pictures) -> Callable[..., tuple[Tensor, Tensor | None]]:
        """What training shows: a function of rows, the seed and the epoch, to x0 and what was done to it."""

        def x0(rows: np.ndarray, *key: int) -> tuple[Tensor, Tensor | None]:
            images = network.x0(pool.batch(rows), None)
            return self.augmentation(images, _AUGMENT, *key, rows) if self.augmentation else (images, None)

        return x0

    def admitted(self, shown: Pictures) -> Pictures:
        """The images as they are learned from, if they can be."""
        return shown

    def fit(
        self,
        images: ImageSplit,
        *,
        val: ImageSplit | None = None,
        seed: int = 0,
        directory: Path | None = None,
        device: str = "cpu",
        force: bool = False,
        watch: Callable[[int, Generator], None] | None = None,
        progress: Progress = silent,
    ) -> Generator:
        """Learn from images.

        With `val`, each reading asks whether generated images lie nearer to the images learned from than to those. Once
        they surely do, training ends and what it was at the reading before is kept; an event says so.

        Args:
            val: images of the same source that are only looked at.
            directory: keeps checkpoints and readings; the same call resumes from them, to the same bits.
            device: "cpu" or "cuda".
            force: go on with fewer images than `fewest`.
            watch: called at every reading with the epochs done and the generator as it is then.

        Raises:
            InputError: too few images, classes asked for where images lack labels, a size that cannot be.
            DataError: no image can be read.
            FingerprintError: `directory` belongs to another run.
            DivergenceError: a loss or gradient became non-finite.
        """
        keep_freed_memory()
        pool = pictures(images, size=self.size, progress=progress)
        require_enough(len(pool), self.fewest, "a diffusion model", force=force)
        if self.conditional and not pool.classes:
            raise InputError("a model with classes needs every image's label; label them, or conditional=False")
        if self.conditional is False:
            pool = replace(pool, split=replace(pool.split, labels=np.full(len(pool), -1)))
        pool = self.admitted(pool)
        world = join_world(torch.device(device))
        if self.importance and world.size > 1:
            raise InputError(f"importance=True trains with one worker, got {world.size}; leave it off, or run one")
        held_out = None if val is None else self.admitted(as_pictures(val, size=pool.size, channels=pool.channels))
        network = self.network(pool, seed=seed).to(device)
        with training_folder(directory, world) as work, torch_threads(kept_threads(work)):
            run = Run(self, pool, held_out, Trained(network, self.levels), seed, work, progress)
            return trained(run, watch or (lambda epoch, generator: None))

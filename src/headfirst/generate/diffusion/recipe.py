"""The diffusion model: its recipe, its loss, and its training.

What enters: images. What leaves: a `Generator`, whose record says how it came about.

Shape letters: N images, C channels, S pixels a side, Z = C · S · S, A numbers of an augmentation.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from headfirst.data import ImageSplit, shuffled_by_name
from headfirst.errors import InputError
from headfirst.features import kept_threads, torch_threads
from headfirst.generate.diffusion.leakage_guard import NUM_TOLD, Augmentation
from headfirst.generate.diffusion.loss import diffusion_loss, mean_loss
from headfirst.generate.diffusion.memorising import check_memorisation
from headfirst.generate.diffusion.network import DiffusionNetwork
from headfirst.generate.diffusion.sampling import Sampling
from headfirst.generate.diffusion.training_levels import DrawnLevels, ImportanceLevels, LogNormalLevels
from headfirst.generate.diffusion.weighting import EDMWeighting, Weighting
from headfirst.generate.generator import Generator, load_generator, require_enough
from headfirst.generate.pictures import Pictures, as_pictures, pictures
from headfirst.nn import DiTShape, MLPShape, UNetShape
from headfirst.nn.allocator import keep_freed_memory
from headfirst.nn.seeds import seeded
from headfirst.randomness import keyed_normal, keyed_uniform
from headfirst.train import (
    Batch,
    Optimisation,
    TrainRecord,
    append_line,
    decay_groups,
    join_world,
    load_checkpoint,
    read_lines,
    train,
    training_folder,
)
from headfirst.types import Progress, silent

READINGS = 10
"""Of a training, at most."""
WATCHED = 256
"""Images that a reading asks the loss of, at most, of those learned from and of those held out."""
FALSE_ALARMS = 0.05
"""Chance that a training that does not memorise is stopped for it, over all its readings."""
_MEASURED = 2048  # images that mean and standard deviation are taken from, at most
WEIGHTS, _NOISE, _LEVEL, _DROP, _AUGMENT, _WATCHED, _MEASURE = (
    71,
    72,
    73,
    74,
    75,
    77,
    78,
)  # streams of the keyed generator


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
            run = _Run(self, pool, held_out, _Trained(network, self.levels), seed, work, progress)
            return _trained(run, watch or (lambda epoch, generator: None))


class _Trained(nn.Module):
    """What a checkpoint keeps: the network and what is remembered of the levels."""

    network: Any  # with `denoise`, `sigma_data` and `noise_dim`

    def __init__(self, network: nn.Module, levels: LogNormalLevels) -> None:
        super().__init__()
        self.network, self.levels = network, ImportanceLevels(levels)


@dataclass(frozen=True, eq=False)
class _Run:
    recipe: Diffusion
    pool: Pictures
    held_out: Pictures | None
    module: _Trained
    seed: int
    work: Path
    progress: Progress

    @cached_property
    def shown(self) -> Callable[..., tuple[Tensor, Tensor | None]]:
        return self.recipe.shown(self.module.network, self.pool)

    @property
    def device(self) -> torch.device:
        return next(self.module.network.parameters()).device

    @property
    def groups(self) -> list[dict[str, Any]]:
        return decay_groups(self.module.network, lr=self.recipe.lr, weight_decay=self.recipe.weight_decay)

    @property
    def before(self) -> Path:
        """Where the generator of the last clean reading is."""
        return self.work / "clean"


def _trained(run: _Run, watch: Callable[[int, Generator], None]) -> Generator:
    """Train and read in turns, until the end or until images are learned by heart."""
    log = run.work / "readings.jsonl"
    readings = {line["epoch"]: line for line in read_lines(log)}
    epochs = run.recipe.epochs
    every = -(-epochs // READINGS)
    due = sorted({*range(every, epochs + 1, every), epochs})
    generator = None
    for epoch in due:
        stopped = any(_memorised(readings[e]) for e in readings if e < epoch)
        if stopped or (epoch in readings and not _memorised(readings[epoch]) and epoch != epochs):
            continue
        record = _train(run, epoch)
        generator = _as_it_is(run)
        reading = readings.get(epoch) or _reading(run, generator, epoch, record, len(due))
        memorised = _memorised(reading)
        if not memorised:
            generator.save(run.before)
        if epoch not in readings:
            readings[epoch] = reading
            append_line(log, reading)
        kept = load_generator(run.before) if memorised and run.before.is_dir() else generator
        said = _record(run, record, [readings[e] for e in sorted(readings) if e <= epoch])
        generator = replace(kept, record=said)
        watch(epoch, generator)
    assert generator is not None  # the last epoch, or the one it stopped at, is never passed over
    return generator


def _train(run: _Run, until_epoch: int) -> TrainRecord:
    recipe, module, network = run.recipe, run.module, run.module.network

    def loss(batch: Batch) -> Tensor:
        module.train()
        key = (run.seed, batch.epoch, batch.indices)
        x0, told = run.shown(batch.indices, run.seed, batch.epoch)
        drawn = _drawn(module.levels, torch.from_numpy(keyed_uniform(_LEVEL, *key)), importance=recipe.importance)
        noise = keyed_normal(_NOISE, run.seed, batch.epoch, batch.indices[:, None], np.arange(network.noise_dim))
        losses = diffusion_loss(
            network,
            x0.to(run.device),
            _shown_labels(run, batch),
            drawn.sigma.float().to(run.device),
            torch.from_numpy(noise).float().view_as(x0).to(run.device),
            weighting=recipe.weighting,
            augmentation=None if told is None else told.to(run.device),
        )
        if recipe.importance:
            module.levels.learn(drawn, losses.cpu())
        return (drawn.weight.float().to(losses.device) * losses).mean()

    return train(
        module,
        loss,
        run.groups,
        recipe.optimisation(len(run.pool)),
        num_samples=len(run.pool),
        seed=run.seed,
        fingerprint=_identity(run),
        directory=run.work,
        until_epoch=None if until_epoch == recipe.epochs else until_epoch,
        optimiser=lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=run.device.type == "cpu"),
        progress=run.progress,
        stage="training (diffusion)",
    )


def _drawn(levels: ImportanceLevels, u: Tensor, *, importance: bool) -> DrawnLevels:
    if importance:
        return levels.draw(u)
    sigma = levels.base.quantile(u.clamp(1e-9, 1 - 1e-9))
    return DrawnLevels(sigma=sigma, weight=torch.ones_like(sigma), bins=torch.zeros(len(sigma), dtype=torch.int64))


def _shown_labels(run: _Run, batch: Batch) -> Tensor | None:
    """The classes, some of them hidden."""
    if not run.pool.classes:
        return None
    hidden = keyed_uniform(_DROP, run.seed, batch.epoch, batch.indices) < run.recipe.class_drop
    labels = np.where(hidden, len(run.pool.classes), run.pool.labels[batch.indices])
    return torch.from_numpy(labels).to(run.device)


def _identity(run: _Run) -> str:
    text = f"diffusion-1|{run.recipe!r}|{run.seed}|{run.pool.split.fingerprint}|{run.pool.size}|{run.pool.channels}"
    held_out = "" if run.held_out is None else run.held_out.split.fingerprint
    return hashlib.sha256(f"{text}|{held_out}".encode()).hexdigest()


def _as_it_is(run: _Run) -> Generator:
    """What to keep if the training ended here: a copy, with the averaged weights where they are averaged."""
    network = copy.deepcopy(run.module.network).cpu().eval()
    found = load_checkpoint(run.work) if run.recipe.memory else None
    if found is not None:
        parameters = [p for group in decay_groups(network, lr=1.0, weight_decay=0.0) for p in group["params"]]
        with torch.no_grad():
            for i, parameter in enumerate(parameters):
                parameter.copy_(found.tensors[f"ema.{i}"])
    return Generator(
        kind=run.recipe.kind,
        network=network.requires_grad_(False),
        classes=run.pool.classes,
        shares=run.pool.shares,
        trained_on=run.pool.split.fingerprint,
        recipe=repr(run.recipe),
    )


def _reading(run: _Run, generator: Generator, epoch: int, record: TrainRecord, num_readings: int) -> dict[str, Any]:
    """The loss of the epoch, those of learned and held-out images at the same levels, and the memorisation check."""
    reading: dict[str, Any] = {
        "epoch": epoch,
        "loss": record.losses[-1],
        "learned_loss": _loss(run, generator, run.pool),
        "val_loss": None,
        "near_training": None,
        "near_training_expected": None,
        "memorisation_p": None,
        "verdict": None,
    }
    if run.held_out is None or not len(run.held_out):
        return reading
    found = check_memorisation(
        generator,
        run.pool,
        run.held_out,
        seed=run.seed,
        significance=FALSE_ALARMS / num_readings,
        device=str(run.device),
    )
    return reading | {
        "val_loss": _loss(run, generator, run.held_out),
        "near_training": found.share,
        "near_training_expected": found.expected,
        "memorisation_p": found.p_value,
        "verdict": found.verdict,
    }


def _memorised(reading: Mapping[str, Any]) -> bool:
    return reading["verdict"] == "memorised"


def _loss(run: _Run, generator: Generator, images: Pictures) -> float:
    rows = shuffled_by_name(images.split.ids, seed=run.seed, stream=_WATCHED)[:WATCHED]
    some = replace(images, split=images.split.take(rows))
    about = {"levels": run.recipe.levels, "weighting": run.recipe.weighting}
    return mean_loss(generator, some, **about, seed=run.seed, device=run.device)


def _record(run: _Run, record: TrainRecord, readings: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "losses": list(record.losses),
        "readings": readings,
        "events": _events(run, readings),
        "seconds": round(record.seconds, 3),
        "seed": run.seed,
        "images": len(run.pool),
    }


def _events(run: _Run, readings: list[dict[str, Any]]) -> list[str]:
    """What is to be known about the images and how the training ended, in sentences."""
    pool, last = run.pool, readings[-1]
    empty = [name for name, share in zip(pool.classes, pool.shares, strict=True) if share == 0]
    stopped = []
    if _memorised(last):
        kept = (
            f"what it was after epoch {readings[-2]['epoch']} is kept" if len(readings) > 1 else "it is kept as it is"
        )
        stopped = [
            f"images repeat training images after epoch {last['epoch']} of {run.recipe.epochs} "
            f"(p = {last['memorisation_p']:.2g}): training ended, and {kept}; more images are the remedy"
        ]
    return [
        *([pool.resized] if pool.resized else []),
        *([f"{len(pool.quarantined)} images cannot be read and are left out"] if pool.quarantined else []),
        *([f"no image of {', '.join(empty)}, which cannot be sampled"] if empty else []),
        *stopped,
    ]

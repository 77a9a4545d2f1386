"""The training of a diffusion model: steps, readings, and the stop where images are learned by heart.

What enters: a `Run`. What leaves: a `Generator`, whose record says how it came about. Kept in the run's folder:
checkpoints, readings, and the generator of the last reading that was clean.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from headfirst.data import shuffled_by_name
from headfirst.generate.diffusion.loss import diffusion_loss, mean_loss
from headfirst.generate.diffusion.memorising import check_memorisation
from headfirst.generate.diffusion.training_levels import DrawnLevels, ImportanceLevels, LogNormalLevels
from headfirst.generate.generator import Generator, load_generator
from headfirst.generate.pictures import Pictures
from headfirst.randomness import keyed_normal, keyed_uniform
from headfirst.train import Batch, TrainRecord, append_line, decay_groups, load_checkpoint, read_lines, train
from headfirst.types import Progress

if TYPE_CHECKING:
    from headfirst.generate.diffusion.recipe import Diffusion

READINGS = 10
"""Of a training, at most."""
WATCHED = 256
"""Images that a reading asks the loss of, at most, of those learned from and of those held out."""
FALSE_ALARMS = 0.05
"""Chance that a training that does not memorise is stopped for it, over all its readings."""
_NOISE, _LEVEL, _DROP, _WATCHED = 72, 73, 74, 77  # streams of the keyed generator


class Trained(nn.Module):
    """What a checkpoint keeps: the network and what is remembered of the levels."""

    network: Any  # with `denoise`, `sigma_data` and `noise_dim`

    def __init__(self, network: nn.Module, levels: LogNormalLevels) -> None:
        super().__init__()
        self.network, self.levels = network, ImportanceLevels(levels)


@dataclass(frozen=True, eq=False)
class Run:
    """A training: the recipe, the images learned from and those held out, where it is kept."""

    recipe: Diffusion
    pool: Pictures
    held_out: Pictures | None
    module: Trained
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


def trained(run: Run, watch: Callable[[int, Generator], None]) -> Generator:
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


def _train(run: Run, until_epoch: int) -> TrainRecord:
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


def _shown_labels(run: Run, batch: Batch) -> Tensor | None:
    """The classes, some of them hidden."""
    if not run.pool.classes:
        return None
    hidden = keyed_uniform(_DROP, run.seed, batch.epoch, batch.indices) < run.recipe.class_drop
    labels = np.where(hidden, len(run.pool.classes), run.pool.labels[batch.indices])
    return torch.from_numpy(labels).to(run.device)


def _identity(run: Run) -> str:
    text = f"diffusion-1|{run.recipe!r}|{run.seed}|{run.pool.split.fingerprint}|{run.pool.size}|{run.pool.channels}"
    held_out = "" if run.held_out is None else run.held_out.split.fingerprint
    return hashlib.sha256(f"{text}|{held_out}".encode()).hexdigest()


def _as_it_is(run: Run) -> Generator:
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


def _reading(run: Run, generator: Generator, epoch: int, record: TrainRecord, num_readings: int) -> dict[str, Any]:
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


def _loss(run: Run, generator: Generator, images: Pictures) -> float:
    rows = shuffled_by_name(images.split.ids, seed=run.seed, stream=_WATCHED)[:WATCHED]
    some = replace(images, split=images.split.take(rows))
    about = {"levels": run.recipe.levels, "weighting": run.recipe.weighting}
    return mean_loss(generator, some, **about, seed=run.seed, device=run.device)


def _record(run: Run, record: TrainRecord, readings: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "losses": list(record.losses),
        "readings": readings,
        "events": _events(run, readings),
        "seconds": round(record.seconds, 3),
        "seed": run.seed,
        "images": len(run.pool),
    }


def _events(run: Run, readings: list[dict[str, Any]]) -> list[str]:
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

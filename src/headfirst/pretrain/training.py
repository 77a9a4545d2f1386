"""Pre-training of a backbone on images without labels: any pretext, one way.

What enters: a backbone (pretrained or drawn at random), images, a `Pretraining`. What leaves: the backbone that was
taught, what was read on the way, and what was done about a collapse. Everything is kept in one folder, so that the same
call continues a stopped one and ends in the same bits.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from headfirst.data import ImageSplit, geometry_key, prepare_split
from headfirst.data.rows import write_atomically
from headfirst.errors import DivergenceError, InputError
from headfirst.features import kept_threads, torch_threads
from headfirst.nn import (
    PretrainedBackbone,
    embed_in_parts,
    keep_statistics,
    multiplies_bf16,
    settle_batch_norm,
    untrained_statistics,
)
from headfirst.pretrain.health import Attempts, Collapse, collapsed
from headfirst.pretrain.pretraining import Pretraining
from headfirst.pretrain.signals import Reading, Readings, normalised_batches, read_signals, watched
from headfirst.randomness import Draw, keyed_bits
from headfirst.train import Batch, TrainRecord, World, decay_groups, join_world, together, train, training_folder
from headfirst.types import Progress, Quarantined, silent

CHECKS = 40
"""Readings of a run, at most."""
SETTLED_ON = 4096
"""Images that batch norm is settled on, at most."""
_VIEWS = 3  # stream of the keyed generator


@dataclass(frozen=True, kw_only=True, eq=False)
class BackboneTraining:
    """A pre-trained backbone and how it came about.

    Attributes:
        backbone: in eval mode, on the CPU.
        learner: the whole module, with what the pretext put on top.
        recipe: as it ended, after what was changed on the way.
        readings: before training and after each checked epoch, those rolled back left out.
        events: plain sentences: a smaller batch, a halved micro-batch, a collapse and what was done about it.
        quarantined: images that could not be read.
        num_images: images that were learned from.
        seconds: of training, those that a collapse undid among them.
    """

    backbone: PretrainedBackbone
    learner: nn.Module
    recipe: Pretraining
    record: TrainRecord
    readings: tuple[Reading, ...]
    events: tuple[str, ...]
    quarantined: tuple[Quarantined, ...]
    num_images: int
    seconds: float


def train_backbone(
    start: PretrainedBackbone,
    images: ImageSplit,
    recipe: Pretraining,
    *,
    labelled: ImageSplit | None = None,
    seed: int = 0,
    directory: Path | None = None,
    until_epoch: int | None = None,
    checkpoint_seconds: float = 30.0,
    device: str = "cpu",
    progress: Progress = silent,
) -> BackboneTraining:
    """Train a copy of `start` on images whose labels, if any, are not read.

    Batch norm that was never trained learns from the batches' own statistics, and is settled on the images as they are
    at the end; micro-batches and workers then each have their own. One that was trained keeps its statistics.

    Args:
        images: what may be learned from; prepared on the fly.
        labelled: a held-out handful that is only asked about, and chooses nothing.
        directory: keeps checkpoints, readings and events; the same call resumes from them, on as many threads.
        until_epoch: pause after this many epochs of the whole.
        checkpoint_seconds: save once so many have gone by since the last time, besides after every checked epoch.
        device: "cpu" or "cuda". Under `torchrun` the workers share each batch.

    Raises:
        InputError: the pretext cannot be set to this backbone, or tells images apart and there is only one.
        DataError: no image can be read.
        FingerprintError: `directory` belongs to another run.
        DivergenceError: a loss or gradient became non-finite, or the features collapsed again and again; names the
            step and the checkpoint to return to.
    """
    world = join_world(torch.device(device))
    pool, quarantined = _prepared(images, recipe.pretext.preprocessing(start), progress)
    _require_several(pool, recipe)
    events = []
    if recipe.batch_size > len(pool):
        events.append(f"{len(pool)} images do not fill a batch of {recipe.batch_size}: a batch holds all of them")
        recipe = replace(recipe, batch_size=len(pool))
    shown = _prepared(watched(images.take(_places(images, pool)), seed=seed), start.preprocessing, progress)[0]
    if labelled is not None:
        labelled = _prepared(watched(labelled, seed=seed), start.preprocessing, progress)[0]
    with training_folder(directory, world) as work, torch_threads(kept_threads(work)):
        run = _Run(start, pool, shown, labelled, seed, work, torch.device(device), world, checkpoint_seconds, progress)
        attempts = Attempts(work)
        recipe = attempts.recipe(recipe)
        try:
            while (outcome := _attempt(run, recipe, attempts, until_epoch)).collapse is not None:
                collapse, before, spent = outcome.collapse, recipe, outcome.record.seconds
                attempts.require_another(before, collapse)
                recipe, _ = before.mended(attempts.number)
                together(world)  # all have counted the collapses before the first worker adds one
                together(
                    world,
                    lambda c=collapse, r=before, s=spent: attempts.mend(r, c, s, lambda new: _identity(run, new)),
                )
        except DivergenceError as error:
            raise DivergenceError(f"{error}; {_to_return_to(directory)}") from error
        backbone = _taught(run, outcome.learner)
        backbone.name = f"{start.name}, {recipe.pretext.method}"
        return BackboneTraining(
            backbone=backbone,
            learner=outcome.learner.eval().cpu(),
            recipe=recipe,
            record=outcome.record,
            readings=outcome.readings,
            events=(*events, *run.memory.events(), *attempts.events()),
            quarantined=quarantined,
            num_images=len(pool),
            seconds=outcome.record.seconds + attempts.seconds_lost,
        )


@dataclass(frozen=True, eq=False)
class _Run:
    """What stays the same over all attempts."""

    start: PretrainedBackbone
    pool: ImageSplit
    shown: ImageSplit
    labelled: ImageSplit | None
    seed: int
    work: Path
    device: torch.device
    world: World
    checkpoint_seconds: float
    progress: Progress

    @property
    def memory(self) -> MicroBatch:
        return MicroBatch(self.work / "micro_batch")


@dataclass(frozen=True, eq=False)
class _Outcome:
    learner: nn.Module
    record: TrainRecord
    readings: tuple[Reading, ...]
    collapse: Collapse | None


def _to_return_to(directory: Path | None) -> str:
    if directory is not None and (directory / "healthy").is_dir():
        return f"the last healthy checkpoint is in {directory / 'healthy'}"
    return "no healthy checkpoint was kept"


def _attempt(run: _Run, recipe: Pretraining, attempts: Attempts, until_epoch: int | None) -> _Outcome:
    """Train and read in turns, until the end or a collapse."""
    folder, world = attempts.folder, run.world
    steps = recipe.epochs * recipe.optimisation.steps_per_epoch(len(run.pool), world.size)
    learner = recipe.pretext.learner(copy.deepcopy(run.start), seed=run.seed, num_steps=steps).to(run.device)
    learner.backbone.requires_grad_(True)
    readings = Readings(folder / "readings.jsonl", writes=world.rank == 0)
    if 0 not in readings:
        readings.add(read_signals(learner, run.shown, run.labelled, epoch=0, loss=None))
    checks = _checks(recipe.epochs, until_epoch)
    record = None
    for epoch in checks:
        if epoch in readings and epoch != checks[-1]:
            continue
        record = _train(run, recipe, learner, folder, epoch)
        together(world)  # the next round reads what the first worker wrote
        read = epoch in readings
        loss = record.losses[-1]
        now = readings[epoch] if read else read_signals(learner, run.shown, run.labelled, epoch=epoch, loss=loss)
        if (collapse := collapsed(now, readings[0])) is not None:
            return _Outcome(learner, record, readings.all(), collapse)
        together(world, lambda: attempts.healthy(folder))
        if not read:  # last: a run that is stopped before this looks and judges again
            readings.add(now)
    assert record is not None  # the last epoch is never passed over
    return _Outcome(learner, record, readings.all(), None)


def _checks(epochs: int, until_epoch: int | None) -> list[int]:
    """After which epochs to read: at most `CHECKS`, the last always."""
    every = -(-epochs // CHECKS)
    last = epochs if until_epoch is None else min(until_epoch, epochs)
    return sorted({*range(every, last + 1, every), last})


def _train(run: _Run, recipe: Pretraining, learner: Any, folder: Path, until_epoch: int) -> TrainRecord:
    workers = dist.group.WORLD if run.world.size > 1 else None
    groups = decay_groups(learner, lr=recipe.lr, weight_decay=recipe.weight_decay)

    def optimiser(parameters: list[dict[str, Any]]) -> torch.optim.Optimizer:
        adam = torch.optim.AdamW(parameters, fused=run.device.type == "cpu")
        adam.register_step_post_hook(lambda *_: learner.stepped())
        return adam

    return train(
        learner,
        _loss(run, recipe, learner, workers),
        groups,
        recipe.optimisation,
        num_samples=len(run.pool),
        seed=run.seed,
        fingerprint=_identity(run, recipe),
        directory=folder,
        until_epoch=None if until_epoch == recipe.epochs else until_epoch,
        checkpoint_seconds=run.checkpoint_seconds,
        optimiser=optimiser,
        relieve=lambda: run.memory.halve(recipe),
        progress=run.progress,
        stage=f"pre-training ({recipe.pretext.method})",
    )


def _loss(run: _Run, recipe: Pretraining, learner: Any, workers: dist.ProcessGroup | None) -> Any:
    views = recipe.views or recipe.pretext.views(mirror=recipe.mirror)
    key = int(keyed_bits(run.seed, _VIEWS) >> 1)
    keeps, half = not untrained_statistics(run.start), multiplies_bf16(run.device)

    def loss(batch: Batch) -> Tensor:
        learner.train()
        if keeps:
            keep_statistics(learner)
        draw = Draw(key, batch.epoch, batch.indices)

        def encode(part: slice) -> Tensor:
            images = run.pool.batch(batch.indices[part]).to(run.device)
            with torch.autocast(run.device.type, dtype=torch.bfloat16, enabled=half):
                return learner.encode(images, draw.take(part), views).float()

        rows = embed_in_parts(encode, len(batch.indices), micro_batch=run.memory.size(recipe), device=run.device)
        return learner.loss(rows, draw, workers)

    return loss


@dataclass(frozen=True)
class MicroBatch:
    """How many images are encoded at a time, once memory ran out: remembered, so that it runs out once."""

    path: Path

    def size(self, recipe: Pretraining) -> int | None:
        """The recipe's, or what was left of it."""
        if not self.path.is_file():
            return recipe.micro_batch
        return min(int(self.path.read_text()), recipe.micro_batch or recipe.batch_size)

    def halve(self, recipe: Pretraining) -> bool:
        """Half as many from now on; False where it is one already."""
        now = self.size(recipe) or recipe.batch_size
        if now > 1:
            write_atomically(self.path, str(now // 2).encode())
        return now > 1

    def events(self) -> list[str]:
        """What was done, in words."""
        if not self.path.is_file():
            return []
        parts = self.path.read_text()
        return [f"memory ran out: {parts} images are encoded at a time; batch and loss stay as they are"]


def _taught(run: _Run, learner: Any) -> PretrainedBackbone:
    """The backbone to keep, as it was given but for its weights."""
    backbone: PretrainedBackbone = copy.deepcopy(learner.taught()).eval().cpu()
    if untrained_statistics(run.start) and len(run.pool) > 1:
        settling = watched(run.pool, seed=run.seed, most=SETTLED_ON)
        settling = _prepared(settling, backbone.preprocessing, run.progress)[0]
        settle_batch_norm(backbone, normalised_batches(settling, backbone.preprocessing))
    for parameter, before in zip(backbone.parameters(), run.start.parameters(), strict=True):
        parameter.grad = None
        parameter.requires_grad_(before.requires_grad)
    return backbone


def _identity(run: _Run, recipe: Pretraining) -> str:
    recipe = replace(recipe, micro_batch=None)  # another one changes memory, time and rounding
    text = f"pretext-1|{recipe!r}|{run.seed}|{run.pool.fingerprint}|{run.start.fingerprint}"
    return hashlib.sha256(text.encode()).hexdigest()


def _prepared(images: ImageSplit, preprocessing: Any, progress: Progress) -> tuple[ImageSplit, tuple[Quarantined, ...]]:
    if images.pixels is not None and images.pixels.geometry == geometry_key(preprocessing):
        return images, ()
    return prepare_split(replace(images, hashes=None, pixels=None), preprocessing, progress=progress)


def _places(images: ImageSplit, readable: ImageSplit) -> list[int]:
    """Where the readable images are among all of them."""
    kept = set(readable.ids)
    return [i for i, id_ in enumerate(images.ids) if id_ in kept]


def _require_several(pool: ImageSplit, recipe: Pretraining) -> None:
    if recipe.pretext.compares and len(set(pool.hashes or ())) < 2:
        raise InputError(
            f"{recipe.pretext.method} tells images apart, and all {len(pool)} to learn from are the same; give others, "
            "or a pretext that looks at each by itself (rotation, jigsaw, masked)"
        )

"""From a dual encoder and pairs to a trained dual encoder, with everything that was seen on the way."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from headfirst.data import Pairs
from headfirst.errors import DivergenceError, InputError
from headfirst.nn import DualEncoder, TextTower, keep_statistics, pair_loss, with_bounded_scale
from headfirst.pretrain.monitors import PairMonitor, PairReading
from headfirst.pretrain.sides import ImageSide, TextSide, augmented, lock, plain
from headfirst.train import Batch, TrainRecord, train
from headfirst.train.decay import decay_groups
from headfirst.train.distributed import join_world
from headfirst.types import Progress, Quarantined, silent

if TYPE_CHECKING:
    from headfirst.pretrain.clip import CLIP

_TOKENISED = 1024  # captions at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class PairTraining:
    """A trained dual encoder (eval mode) and how it came about.

    Attributes:
        readings: the monitors, before training and after each epoch.
        trained_parameters: how many numbers were trained.
        quarantined: images that could not be read, and were left out.
        cut: captions longer than the context, and what of them was not read.
    """

    encoder: DualEncoder
    record: TrainRecord
    readings: tuple[PairReading, ...]
    trained_parameters: int
    quarantined: tuple[Quarantined, ...]
    cut: tuple[Quarantined, ...]


def train_pairs(
    start: DualEncoder,
    pairs: Pairs,
    recipe: CLIP,
    *,
    val: Pairs | None = None,
    seed: int = 0,
    directory: Path | None = None,
    until_epoch: int | None = None,
    device: str = "cpu",
    progress: Progress = silent,
    stage: str = "clip",
) -> PairTraining:
    """Train a copy of `start`; `start` stays as it was. See `CLIP.fit`.

    Args:
        until_epoch: pause after this many epochs (needs `directory`); the same call goes on.
    """
    preprocessing = start.image.preprocessing
    pairs, quarantined = pairs.prepare(preprocessing, progress=progress)
    val = None if val is None else val.prepare(preprocessing, progress=progress)[0]
    world = join_world(torch.device(device))
    recipe.optimisation.steps_per_epoch(len(pairs), world.size)  # refuses before anything is embedded
    model = copy.deepcopy(start).to(device)
    lock(model, image=recipe.locked_image, text=recipe.locked_text)
    groups = _trained(model, recipe)
    sides = [_sides(model, part, recipe, progress) for part in (pairs, val) if part is not None]
    monitor = PairMonitor(
        val,
        *(sides[1] if val is not None else (None, None)),
        log=directory / "monitors.jsonl" if directory else None,
        writes=world.rank == 0,
    )
    if 0 not in monitor.found:
        monitor(0, model)

    def optimiser(parameters: list[dict[str, Any]]) -> torch.optim.Optimizer:
        adam = torch.optim.AdamW(parameters, betas=(0.9, 0.98), eps=1e-6)  # Radford et al., table 19
        return with_bounded_scale(adam, model.log_logit_scale)

    workers = dist.group.WORLD if world.size > 1 else None
    record = train(
        model,
        _loss(model, pairs, *sides[0], recipe, seed, workers),
        groups,
        recipe.optimisation,
        num_samples=len(pairs),
        seed=seed,
        fingerprint=_fingerprint(start, pairs, recipe, seed),
        directory=directory,
        until_epoch=until_epoch,
        callbacks=[monitor],
        optimiser=optimiser,
        progress=progress,
        stage=stage,
    )
    for parameter, before in zip(model.parameters(), start.parameters(), strict=True):
        parameter.grad = None
        parameter.requires_grad_(before.requires_grad)
    return PairTraining(
        encoder=model.eval().cpu(),
        record=record,
        readings=monitor.readings(),
        trained_parameters=sum(p.numel() for group in groups for p in group["params"]),
        quarantined=quarantined,
        cut=cut_captions(start.text, pairs),
    )


def cut_captions(text: TextTower, pairs: Pairs) -> tuple[Quarantined, ...]:
    """Captions that the text tower cannot read whole."""
    found = []
    for start in range(0, len(pairs), _TOKENISED):
        tokens = text.tokenise(pairs.captions[start : start + _TOKENISED])
        for i, lost in tokens.cut.items():
            reason = f"its caption has {tokens.lengths[i]} tokens, {text.context_length} are read; cut off: {lost!r}"
            found.append(Quarantined(id=pairs.images.ids[start + i], reason=reason))
    return tuple(found)


def _trained(model: DualEncoder, recipe: CLIP) -> list[dict[str, Any]]:
    groups = decay_groups(model, lr=recipe.lr, weight_decay=recipe.weight_decay)
    scales = {id(model.log_logit_scale), id(model.logit_bias)}
    if all(id(p) in scales for group in groups for p in group["params"]):
        raise InputError(
            f"with both towers of {model.name} locked there is nothing to train; unlock one, or pair them anew "
            "(headfirst.nn.pair) for projections of their own"
        )
    return groups


def _sides(model: DualEncoder, pairs: Pairs, recipe: CLIP, progress: Progress) -> tuple[ImageSide, TextSide]:
    return (
        ImageSide(model.image, pairs.images, locked=recipe.locked_image, progress=progress),
        TextSide(model.text, pairs.captions, locked=recipe.locked_text, progress=progress),
    )


def _loss(
    model: DualEncoder,
    pairs: Pairs,
    images: ImageSide,
    texts: TextSide,
    recipe: CLIP,
    seed: int,
    workers: dist.ProcessGroup | None,
) -> Callable[[Batch], Tensor]:
    numbers = pairs.groups  # which of the distinct captions
    repeated = len(texts.captions) < len(pairs)

    def loss(batch: Batch) -> Tensor:
        _set_modes(model, recipe)
        view = augmented(seed=seed, epoch=batch.epoch, mirror=recipe.mirror) if recipe.augment else plain
        captions = numbers[batch.indices]
        x = images(batch.indices, view=view, micro_batch=recipe.micro_batch)
        y = texts(captions, micro_batch=recipe.micro_batch)
        groups = torch.from_numpy(captions).to(x.device) if repeated else None
        try:
            return pair_loss(model, x, y, groups=groups, workers=workers)
        except InputError as error:  # of embeddings and scales that the towers made themselves
            raise DivergenceError(f"epoch {batch.epoch + 1}: {error}; a smaller learning rate is the remedy") from error

    return loss


def _set_modes(model: DualEncoder, recipe: CLIP) -> None:
    """Train mode, but batch norm keeps its statistics and locked towers stay in eval mode."""
    model.train()
    model.image.train(not recipe.locked_image)
    model.text.train(not recipe.locked_text)
    keep_statistics(model)


def _fingerprint(start: DualEncoder, pairs: Pairs, recipe: CLIP, seed: int) -> str:
    scales = [start.log_logit_scale.item(), None if start.logit_bias is None else start.logit_bias.item()]
    weights = f"{start.image.fingerprint}|{start.text.fingerprint}|{scales!r}"
    return hashlib.sha256(f"pairs-1|{recipe!r}|{seed}|{pairs.fingerprint}|{weights}".encode()).hexdigest()

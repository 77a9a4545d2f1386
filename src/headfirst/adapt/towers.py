"""From a dual encoder to a tuned one, at one learning rate: both towers, on images and prompts of their classes.

What enters: a dual encoder, a prepared training split, a `FLYP` recipe. What leaves: the tuned image tower under the
head that the tuned text tower writes.

Shape letters: B images of a batch, D features, K classes.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from headfirst.adapt.distortion import DistortionMeter
from headfirst.adapt.heads import as_module
from headfirst.adapt.tuned import module_fingerprint
from headfirst.adapt.tuning import Tuning, labels_of
from headfirst.adapt.zero_shot import ZeroShotModel
from headfirst.data import ImageSplit, augment, normalise
from headfirst.errors import DivergenceError, InputError
from headfirst.nn import (
    DualEncoder,
    ImageClassifier,
    TextTower,
    embed_in_parts,
    keep_statistics,
    pair_loss,
    with_bounded_scale,
)
from headfirst.randomness import keyed_uniform
from headfirst.train import Batch, decay_groups, join_world, sharing_workers, train
from headfirst.types import Progress, silent

if TYPE_CHECKING:
    from headfirst.adapt.flyp import FLYP

_PROMPT = 0x7E87  # stream of the keyed generator


def tune_towers(
    start: DualEncoder,
    images: ImageSplit,
    recipe: FLYP,
    *,
    lr: float,
    seed: int,
    directory: Path | None = None,
    until_epoch: int | None = None,
    device: str = "cpu",
    progress: Progress = silent,
    stage: str = "flyp",
) -> Tuning:
    """Train a copy of `start` on `images`; `start` stays as it was. Parameters that need no gradient stay as they are.

    Args:
        lr: peak learning rate of every parameter.
        directory: checkpoints go here, and the same call resumes from them.
        until_epoch: pause after this many epochs (needs `directory`); the same call goes on.

    Raises:
        DataError: an image without a label, or no images.
        InputError: a sentence is longer than the context, or two classes read the same.
        DivergenceError: loss, gradient or embeddings became non-finite, or all classes read the same.
    """
    labels = labels_of(images)
    zero_shot = recipe.zero_shot(images.classes)
    before = zero_shot.fit(start)  # refuses what cannot be read before anything is trained
    prompts = tuple(before.prompts.values())
    model = copy.deepcopy(start).to(device)
    groups = decay_groups(model, lr=lr, weight_decay=recipe.weight_decay)
    if not groups:
        raise InputError(f"no parameter of {start.name} needs a gradient, so there is nothing to train; unlock a tower")
    workers = sharing_workers(join_world(torch.device(device)), len(images), recipe.batch_size)

    def loss(batch: Batch) -> Tensor:
        keep_statistics(model.train())
        drawn = draw_prompts(prompts, images.labels[batch.indices], seed=seed, epoch=batch.epoch, samples=batch.indices)
        try:
            return prompted_loss(
                model,
                lambda part: _view(images, batch.indices[part], recipe, seed, batch.epoch, model, device),
                drawn,
                labels[batch.indices].to(device),
                micro_batch=recipe.micro_batch,
                workers=workers(batch.num_global),
            )
        except InputError as error:  # of embeddings and scales that the towers made themselves
            raise DivergenceError(f"epoch {batch.epoch + 1}: {error}; a smaller learning rate is the remedy") from error

    meter = DistortionMeter(
        start,
        images,
        num_epochs=recipe.epochs,
        method=recipe.method,
        stage=stage,
        log=directory / "distortion.jsonl" if directory else None,
        device=device,
    )
    record = train(
        model,
        loss,
        groups,
        recipe.optimisation,
        num_samples=len(images),
        seed=seed,
        fingerprint=_fingerprint(start, images, recipe, lr, seed),
        directory=directory,
        until_epoch=until_epoch,
        callbacks=[meter],
        optimiser=lambda parameters: with_bounded_scale(torch.optim.AdamW(parameters), model.log_logit_scale),
        progress=progress,
        stage=stage,
    )
    try:
        after = zero_shot.fit(model.eval())
    except InputError as error:
        raise DivergenceError(f"after {len(record.losses)} epochs at learning rate {lr:g}: {error}") from error
    count = sum(p.numel() for group in groups for p in group["params"])
    head_norms = (_head_norm(before), _head_norm(after))
    backbone = model.cpu().image_alone().requires_grad_(True)
    classifier = ImageClassifier(backbone, as_module(after), images.classes).eval()
    return Tuning(classifier, record, count, meter.record(), head_norms)


def prompted_loss(
    encoder: DualEncoder,
    view: Callable[[slice], Tensor],
    prompts: Sequence[str],
    labels: Int[Tensor, " b"],
    *,
    micro_batch: int | None = None,
    workers: dist.ProcessGroup | None = None,
) -> Float[Tensor, ""]:
    """The encoder's own pre-training loss on B images and their prompts; a class is positives of one another.

    Args:
        view: from a slice of the batch to its normalised images; called again for the gradient of a micro-batch.
        prompts: of each image; each distinct one is encoded once.
        labels: which images (and prompts) belong together.
        micro_batch: encode this many images, or prompts, at a time.
        workers: the processes that share the batch (see `contrastive_loss`).
    """
    device = labels.device
    images = embed_in_parts(
        lambda part: encoder.image(view(part)), len(prompts), micro_batch=micro_batch, device=device
    )
    x = F.normalize(images, dim=1)
    y = F.normalize(embed_prompts(encoder.text, prompts, micro_batch=micro_batch, device=device), dim=1)
    return pair_loss(encoder, x, y, groups=labels, workers=workers)


def embed_prompts(
    text: TextTower, prompts: Sequence[str], *, micro_batch: int | None, device: torch.device
) -> Float[Tensor, "b d"]:
    """Embeddings of the prompts with gradients, each distinct one encoded once."""
    distinct = list(dict.fromkeys(prompts))
    inputs = {name: value.to(device) for name, value in text.tokenise(distinct).inputs.items()}
    embeddings = embed_in_parts(
        lambda part: text({name: value[part] for name, value in inputs.items()}),
        len(distinct),
        micro_batch=micro_batch,
        device=device,
    )
    place = {prompt: i for i, prompt in enumerate(distinct)}
    return embeddings[torch.tensor([place[prompt] for prompt in prompts], device=device)]


def draw_prompts(
    prompts: Sequence[tuple[str, ...]], labels: np.ndarray, *, seed: int, epoch: int, samples: np.ndarray
) -> list[str]:
    """One of the sentences of each image's class, drawn from (seed, epoch, sample).

    Args:
        prompts: of each of the K classes, its sentences.
        labels: (B,) classes of the images.
        samples: (B,) their numbers in the training split.
    """
    draws = keyed_uniform(seed, epoch, samples, _PROMPT)
    return [prompts[k][int(u * len(prompts[k]))] for k, u in zip(labels, draws, strict=True)]


def _view(
    images: ImageSplit,
    indices: np.ndarray,
    recipe: FLYP,
    seed: int,
    epoch: int,
    model: DualEncoder,
    device: str,
) -> Tensor:
    batch = images.batch(indices).to(device)
    if recipe.augment:
        batch = augment(batch, seed=seed, epoch=epoch, samples=indices, mirror=recipe.mirror)
    return normalise(batch, model.image.preprocessing)


def _head_norm(model: ZeroShotModel) -> float:
    return model.weight.double().norm().item()


def _fingerprint(start: DualEncoder, images: ImageSplit, recipe: FLYP, lr: float, seed: int) -> str:
    fixed = replace(recipe, lr=lr)
    weights = "|".join((module_fingerprint(start), start.text.fingerprint, start.image.fingerprint))
    return hashlib.sha256(f"towers-1|{fixed!r}|{seed}|{images.fingerprint}|{weights}".encode()).hexdigest()

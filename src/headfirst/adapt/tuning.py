"""From a starting classifier to a tuned one, at one learning rate.

What enters: a classifier, a prepared training split, a `FineTune` recipe. What leaves: a new classifier.
Frozen stages are run once over a few stored augmented views, and only the rest is trained.
"""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.adapt.distortion import DistortionMeter
from headfirst.adapt.tuned import logits, module_fingerprint
from headfirst.data import ImageSplit, augment, fill_rows, normalise
from headfirst.errors import DataError, InputError
from headfirst.nn import ImageClassifier, keep_statistics
from headfirst.train import Batch, TrainRecord, load_checkpoint, save_checkpoint, train
from headfirst.types import Progress, silent

if TYPE_CHECKING:
    from headfirst.adapt.fine_tune import FineTune

_VIEWS_BATCH = 32


@dataclass(frozen=True, eq=False)
class Tuning:
    """A tuned classifier (eval mode), the record of its training, what the distortion meter saw of it, and the
    Frobenius norms of the head before and after."""

    classifier: ImageClassifier
    record: TrainRecord
    trained_parameters: int
    distortion: dict[str, object]
    head_norms: tuple[float, float]


def tune(
    start: ImageClassifier,
    images: ImageSplit,
    recipe: FineTune,
    *,
    lr: float,
    seed: int,
    val: ImageSplit | None = None,
    directory: Path | None = None,
    until_epoch: int | None = None,
    device: str = "cpu",
    progress: Progress = silent,
    stage: str = "fine-tuning",
) -> Tuning:
    """Train a copy of `start` on `images`; `start` stays as it was.

    Args:
        lr: peak learning rate of the head; stage i of L runs at `lr · layer_decay^(L - i)`.
        val: needed for `recipe.patience` only.
        directory: checkpoints go here, and the same call resumes from them.
        until_epoch: pause after this many epochs (needs `directory`); the same call goes on.

    Raises:
        DataError: an image without a label, or no images.
        DivergenceError: loss or gradient became non-finite; names the step.
    """
    labels = labels_of(images)
    if recipe.frozen_stages > len(start.backbone.stages):
        raise InputError(
            f"frozen_stages={recipe.frozen_stages}, but {start.backbone.name} has {len(start.backbone.stages)} stages"
        )
    model = copy.deepcopy(start).to(device)
    for stage_module in model.backbone.stages[: recipe.frozen_stages]:
        stage_module.requires_grad_(False)
    groups = parameter_groups(model, recipe, lr)
    weights = class_weights(labels, len(model.classes)) if recipe.class_weights == "balanced" else None
    fingerprint = _fingerprint(start, images, recipe, lr, seed)

    with tempfile.TemporaryDirectory(prefix="headfirst-") as scratch:
        inputs = _inputs(model, images, recipe, seed, directory or Path(scratch), fingerprint, device, progress)

        def loss(batch: Batch) -> Tensor:
            set_training_mode(model, recipe)
            target = labels[batch.indices].to(device)
            each = F.cross_entropy(inputs(batch), target, reduction="none")
            return each.mean() if weights is None else (weights.to(device)[target] * each).mean()

        early_stop = None
        if recipe.patience is not None:
            if val is None:
                raise InputError("patience stops on validation accuracy: pass val=, or leave patience=None")
            early_stop = _EarlyStop(val, recipe.patience, (directory or Path(scratch)) / "best", device)
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
            fingerprint=fingerprint,
            directory=directory,
            until_epoch=until_epoch,
            callbacks=[meter, early_stop] if early_stop else [meter],
            progress=progress,
            stage=stage,
        )
        if early_stop is not None:
            early_stop.restore(model)
    count = sum(p.numel() for group in groups for p in group["params"])
    model.requires_grad_(True).eval().cpu()
    return Tuning(model, record, count, meter.record(), (head_norm(start), head_norm(model)))


def labels_of(images: ImageSplit) -> Tensor:
    """(N,) int64 labels, if there are images and every one has a label."""
    labels = torch.as_tensor(images.labels)
    if len(labels) == 0 or bool((labels < 0).any()):
        raise DataError(f"fine-tuning needs labelled images, but {images.name!r} has {int((labels < 0).sum())} without")
    return labels


def head_norm(model: ImageClassifier) -> float:
    """Frobenius norm of the head's weight."""
    weight = model.head.weight
    assert isinstance(weight, Tensor)
    return weight.detach().double().norm().item()


def parameter_groups(model: ImageClassifier, recipe: FineTune, lr: float) -> list[dict[str, Any]]:
    """AdamW groups: layer-wise learning-rate decay from the head down; no weight decay on vectors (biases, norms)."""
    stages = [*model.backbone.stages, model.head]
    groups = []
    for depth, stage in enumerate(stages):
        rate = lr * recipe.layer_decay ** (len(stages) - 1 - depth)
        trained = [p for p in stage.parameters() if p.requires_grad]
        for params, decay in (
            ([p for p in trained if p.ndim > 1], recipe.weight_decay),
            ([p for p in trained if p.ndim <= 1], 0.0),
        ):
            if params:
                groups.append({"params": params, "lr": rate, "weight_decay": decay})
    return groups


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """(K,) weights ∝ 1/count, scaled so that their mean over the training images is one; absent classes get zero."""
    counts = torch.bincount(labels, minlength=num_classes).double()
    present = counts > 0
    weights = torch.where(present, len(labels) / (present.sum() * counts.clamp(min=1)), 0.0)
    return weights.float()


def set_training_mode(model: ImageClassifier, recipe: FineTune) -> None:
    """Train mode (dropout), but batch norm keeps its statistics unless asked, and frozen stages stay in eval mode."""
    model.train()
    if not recipe.train_batch_norm:
        keep_statistics(model)
    for stage in model.backbone.stages[: recipe.frozen_stages]:
        stage.eval()


def _inputs(
    model: ImageClassifier,
    images: ImageSplit,
    recipe: FineTune,
    seed: int,
    directory: Path,
    fingerprint: str,
    device: str,
    progress: Progress,
) -> Callable[[Batch], Tensor]:
    """The function from a batch to its logits: live images, or stored activations of the frozen stages."""
    preprocessing = model.backbone.preprocessing

    def view(indices: np.ndarray, number: int) -> Tensor:
        batch = images.batch(indices).to(device)
        if recipe.augment:
            batch = augment(batch, seed=seed, epoch=number, samples=indices, mirror=recipe.mirror)
        return normalise(batch, preprocessing)

    if recipe.frozen_stages == 0:
        return lambda batch: model(view(batch.indices, batch.epoch))

    prefix = model.backbone.stages[: recipe.frozen_stages].eval()
    suffix = model.backbone.stages[recipe.frozen_stages :]
    num_views = min(recipe.stored_views, recipe.epochs) if recipe.augment else 1

    @torch.no_grad()
    def activations(first: int, last: int) -> np.ndarray:
        rows = np.arange(first, last)
        parts = []
        for number in np.unique(rows // len(images)):
            hidden = view(rows[rows // len(images) == number] % len(images), int(number))
            for stage in prefix:
                hidden = stage(hidden)
            parts.append(hidden.contiguous().cpu().numpy())
        return np.concatenate(parts)

    shape = activations(0, 1).shape[1:]
    stored = fill_rows(
        directory / f"activations-{fingerprint[:16]}.npy",
        (num_views * len(images), *shape),
        np.float32,
        activations,
        chunk=_VIEWS_BATCH,
        progress=progress,
        stage="storing frozen activations",
    )

    def from_stored(batch: Batch) -> Tensor:
        rows = (batch.epoch % num_views) * len(images) + batch.indices
        hidden = torch.from_numpy(np.ascontiguousarray(stored[rows])).to(device)
        for stage in suffix:
            hidden = stage(hidden)
        return model.head(hidden)

    return from_stored


class _EarlyStop:
    """Ends training when validation accuracy has not risen for `patience` epochs; remembers the best epoch on disk."""

    def __init__(self, val: ImageSplit, patience: int, directory: Path, device: str) -> None:
        self.val, self.patience, self.directory, self.device = val, patience, directory, device

    def __call__(self, epochs_done: int, module: nn.Module) -> bool:
        assert isinstance(module, ImageClassifier)
        correct = logits(module, self.val, device=self.device).argmax(dim=1) == torch.as_tensor(self.val.labels)
        accuracy = correct.double().mean().item()
        best = load_checkpoint(self.directory)
        if best is None or accuracy > best.position["accuracy"] or best.step >= epochs_done:
            save_checkpoint(self.directory, epochs_done, module.state_dict(), {"accuracy": accuracy}, keep=1)
            return False
        return epochs_done - best.step >= self.patience

    def restore(self, module: nn.Module) -> None:
        """Put the best epoch's weights into `module`."""
        best = load_checkpoint(self.directory)
        if best is not None:
            module.load_state_dict(best.tensors)


def _fingerprint(start: ImageClassifier, images: ImageSplit, recipe: FineTune, lr: float, seed: int) -> str:
    fixed = replace(recipe, lr=lr)
    text = f"tuning-1|{fixed!r}|{seed}|{images.fingerprint}|{module_fingerprint(start)}"
    return hashlib.sha256(text.encode()).hexdigest()

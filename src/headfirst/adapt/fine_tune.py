"""Fine-tuning from a random head (`FineTune`) and from a converged probe (`LPFT`).

Linear probing then fine-tuning: Kumar, Raghunathan, Jones, Ma & Liang, "Fine-Tuning can Distort Pretrained Features
and Underperform Out-of-Distribution", ICLR 2022. Deviations: AdamW instead of SGD, layer-wise learning-rate decay.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from headfirst.adapt.heads import LinearModel, as_module
from headfirst.adapt.learning_rate import Trial, at_best_rate, check_rates, tuned_model
from headfirst.adapt.linear_probe import LinearProbe
from headfirst.adapt.tuned import TunedModel
from headfirst.adapt.tuning import Tuning, tune
from headfirst.data import ImageSplit, prepare_split
from headfirst.errors import InputError
from headfirst.features import embed
from headfirst.nn import ImageClassifier, PretrainedBackbone, random_head
from headfirst.train import Optimisation
from headfirst.types import Progress, silent


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """Train backbone and a random head together.

    Attributes:
        epochs: passes over the training images; the same budget for `FineTune` and `LPFT`.
        lr: peak learning rate of the head; None takes the best of `lr_grid` by validation accuracy, ties to the
            smaller. Losing rates are dropped after a third of the epochs.
        layer_decay: the learning rate falls by this factor from each stage to the one below it.
        frozen_stages: this many first stages stay as they are (1 freezes the embedding layer or stem); their
            activations are computed once, for `stored_views` augmented views of each image.
        augment: random crops, and flips where `mirror` says that a mirrored image keeps its label.
        class_weights: "balanced" weighs each class by one over its count.
        train_batch_norm: let batch-norm statistics move; off, as they do not survive small batches.
        patience: stop after this many epochs without better validation accuracy and go back to the best one.
    """

    epochs: int = 8
    batch_size: int = 16
    lr: float | None = None
    lr_grid: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    layer_decay: float = 0.9
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip_norm: float | None = 1.0
    ema_decay: float | None = None
    frozen_stages: int = 0
    stored_views: int = 4
    augment: bool = True
    mirror: bool = True
    class_weights: Literal["none", "balanced"] = "none"
    train_batch_norm: bool = False
    patience: int | None = None

    method: ClassVar[str] = "finetune"

    def __post_init__(self) -> None:
        check_rates(self.lr, self.lr_grid)
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"layer_decay is a factor in (0, 1], got {self.layer_decay}")
        if self.frozen_stages < 0 or self.stored_views < 1:
            raise InputError(
                f"frozen_stages must be at least 0 and stored_views at least 1, got {self.frozen_stages} and "
                f"{self.stored_views}"
            )
        if self.class_weights not in ("none", "balanced"):
            raise InputError(f"class_weights is 'none' or 'balanced', got {self.class_weights!r}")
        _ = self.optimisation  # checks its own fields

    @property
    def optimisation(self) -> Optimisation:
        """The part of the recipe that the training loop reads."""
        return Optimisation(
            epochs=self.epochs,
            batch_size=self.batch_size,
            warmup=self.warmup,
            clip_norm=self.clip_norm,
            ema_decay=self.ema_decay,
        )

    def start(
        self,
        backbone: PretrainedBackbone,
        train: ImageSplit,
        *,
        seed: int,
        head: LinearModel | None = None,
    ) -> ImageClassifier:
        """The classifier training begins from: a copy of the backbone under a random head."""
        if head is not None:
            raise InputError("FineTune starts from a random head; to start from a fitted one use LPFT")
        return ImageClassifier(
            copy.deepcopy(backbone),
            random_head(backbone.feature_dim, len(train.classes), seed=seed),
            train.classes,
        )

    def fit(
        self,
        backbone: PretrainedBackbone,
        train: ImageSplit,
        val: ImageSplit | None = None,
        *,
        seed: int = 0,
        head: LinearModel | None = None,
        directory: Path | None = None,
        device: str = "cpu",
        progress: Progress = silent,
    ) -> TunedModel:
        """A new tuned model; the backbone and this recipe stay as they were.

        Args:
            train: labelled images; prepared on the fly where they are not.
            val: labelled images that choose the learning rate; needed where `lr` is None or `patience` is set.
            head: `LPFT` only: start from this linear head (a probe, an anchored one, LDA, zero-shot), not a new probe.
            directory: keeps checkpoints, and the same call resumes from them.

        Raises:
            InputError: `val` is missing where something is to be chosen.
            DivergenceError: every learning rate diverged.
        """
        train, _ = prepare_split(train, backbone.preprocessing, progress=progress)
        if val is not None:
            val, _ = prepare_split(val, backbone.preprocessing, progress=progress)
        start = self.start(backbone, train, seed=seed, head=head)
        model = at_best_rate(start, train, val, self, seed=seed, directory=directory, device=device, progress=progress)
        return model if val is None or self.patience is None else replace(model, chosen_on=val.name)

    def tune(
        self,
        start: ImageClassifier,
        images: ImageSplit,
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
        """Train a copy of `start` at one learning rate; see `headfirst.adapt.tune`."""
        return tune(start, images, self, lr=lr, seed=seed, val=val, directory=directory, until_epoch=until_epoch,
                    device=device, progress=progress, stage=stage)  # fmt: skip

    def model(
        self, tuning: Tuning | None, *, lr: float, seed: int, chosen_on: str, trials: tuple[Trial, ...] = ()
    ) -> TunedModel:
        """Wrap a finished training as the model it made."""
        return tuned_model(self, tuning, lr=lr, seed=seed, chosen_on=chosen_on, trials=trials)


@dataclass(frozen=True, kw_only=True)
class LPFT(FineTune):
    """Head first: fit a linear probe to convergence, then fine-tune everything from there.

    The one recipe that inherits from another: it is `FineTune` but for where it starts.
    """

    method: ClassVar[str] = "lp-ft"

    def start(
        self,
        backbone: PretrainedBackbone,
        train: ImageSplit,
        *,
        seed: int,
        head: LinearModel | None = None,
    ) -> ImageClassifier:
        """The classifier training begins from: a copy of the backbone under the probe's head."""
        head = head or LinearProbe(seed=seed).fit(embed(backbone, train))
        if head.classes != train.classes:
            raise InputError(f"the head knows the classes {head.classes}, the training images {train.classes}")
        return ImageClassifier(copy.deepcopy(backbone), as_module(head), train.classes)

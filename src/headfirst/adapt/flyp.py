"""Contrastive fine-tuning (`FLYP`): a dual encoder's own pre-training goes on, on images and prompts of their classes.

Goyal, Kumar, Garg, Kolter & Raghunathan, "Finetune like you pretrain: Improved finetuning of zero-shot vision models",
CVPR 2023, section 3. Deviations: images of one class in a batch are all positives of one another's prompts; sigmoid
models are tuned with their sigmoid loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from headfirst.adapt.learning_rate import Trial, at_best_rate, check_rates, tuned_model
from headfirst.adapt.templates import PLAIN, check_templates
from headfirst.adapt.towers import tune_towers
from headfirst.adapt.tuned import TunedModel
from headfirst.adapt.tuning import Tuning
from headfirst.adapt.zero_shot import ZeroShot
from headfirst.data import ImageSplit, prepare_split
from headfirst.errors import InputError
from headfirst.nn import DualEncoder
from headfirst.train import Optimisation
from headfirst.types import Progress, silent


@dataclass(frozen=True, kw_only=True)
class FLYP:
    """Train both towers of a dual encoder with the loss that made them; the text tower then writes the classifier.

    Attributes:
        epochs: passes over the training images.
        batch_size: images whose prompts are told apart at once; more make a harder and better task.
        micro_batch: encode this many at a time, with the gradients of the whole batch, in less memory and a third more
            time; None encodes the batch at once.
        lr: peak learning rate of all parameters; None takes the best of `lr_grid` by validation accuracy, ties to the
            smaller. Losing rates are dropped after a third of the epochs.
        weight_decay: of matrices; not of biases, norms, embedding tables, the logit scale and the logit bias.
        templates: sentences with `{}` for the class name; each image draws one in each epoch, and the classifier
            averages over all.
        descriptions: further sentences of a class, as they are (class → sentences), drawn and averaged with the others.
        augment: random crops, and flips where `mirror` says that a mirrored image keeps its label.
    """

    epochs: int = 8
    batch_size: int = 64
    micro_batch: int | None = None
    lr: float | None = None
    lr_grid: tuple[float, ...] = (1e-5, 1e-4, 1e-3)
    weight_decay: float = 0.1
    warmup: float = 0.1
    clip_norm: float | None = 1.0
    ema_decay: float | None = None
    templates: tuple[str, ...] = PLAIN
    descriptions: Mapping[str, Sequence[str]] | None = None
    augment: bool = True
    mirror: bool = True

    method: ClassVar[str] = "flyp"

    def __post_init__(self) -> None:
        check_rates(self.lr, self.lr_grid)
        if self.micro_batch is not None and self.micro_batch < 1:
            raise InputError(f"micro_batch must be at least 1, or None for the whole batch; got {self.micro_batch}")
        if not self.weight_decay >= 0:
            raise InputError(f"weight_decay must be at least 0, got {self.weight_decay}")
        object.__setattr__(self, "templates", check_templates(self.templates))
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

    def zero_shot(self, classes: tuple[str, ...]) -> ZeroShot:
        """The classes and their sentences: what training draws from and the classifier averages."""
        return ZeroShot(classes, self.templates, self.descriptions)

    def fit(
        self,
        encoder: DualEncoder,
        train: ImageSplit,
        val: ImageSplit | None = None,
        *,
        seed: int = 0,
        directory: Path | None = None,
        device: str = "cpu",
        progress: Progress = silent,
    ) -> TunedModel:
        """A new model: the tuned image tower under the zero-shot head of the tuned text tower.

        The encoder and this recipe stay as they were.

        Args:
            train: labelled images, any number of classes and of images each; prepared on the fly where they are not.
            val: labelled images that choose the learning rate; needed where `lr` is None.
            directory: keeps checkpoints, and the same call resumes from them.

        Raises:
            DataError: an image without a label, or no images.
            InputError: `val` is missing where something is to be chosen; a sentence is longer than the context, or two
                classes read the same.
            DivergenceError: every learning rate diverged.
        """
        preprocessing = encoder.image.preprocessing
        train, _ = prepare_split(train, preprocessing, progress=progress)
        if val is not None:
            val, _ = prepare_split(val, preprocessing, progress=progress)
        return at_best_rate(encoder, train, val, self, seed=seed, directory=directory, device=device, progress=progress)

    def tune(
        self,
        start: DualEncoder,
        images: ImageSplit,
        *,
        lr: float,
        seed: int,
        val: ImageSplit | None = None,
        directory: Path | None = None,
        until_epoch: int | None = None,
        device: str = "cpu",
        progress: Progress = silent,
        stage: str = "flyp",
    ) -> Tuning:
        """Train a copy of `start` at one learning rate; `val` has no part in it. See `tune_towers`."""
        return tune_towers(start, images, self, lr=lr, seed=seed, directory=directory, until_epoch=until_epoch,
                           device=device, progress=progress, stage=stage)  # fmt: skip

    def model(
        self, tuning: Tuning | None, *, lr: float, seed: int, chosen_on: str, trials: tuple[Trial, ...] = ()
    ) -> TunedModel:
        """Wrap a finished training as the model it made."""
        return tuned_model(self, tuning, lr=lr, seed=seed, chosen_on=chosen_on, trials=trials)

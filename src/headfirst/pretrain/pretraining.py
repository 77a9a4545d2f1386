"""The recipe of self-supervised pre-training: a pretext, and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from headfirst.data import ImageSplit, View
from headfirst.errors import InputError
from headfirst.nn import PretrainedBackbone
from headfirst.pretrain.pretext import Pretext
from headfirst.train import Optimisation
from headfirst.types import Progress, silent


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """A pretext, and how long, in what batches and at what rate it is trained.

    Attributes:
        pretext: SimCLR(), DINO(), VICReg(), Rotation(), Jigsaw(), Masked() or Distillation(teacher=…).
        epochs: passes over the images; each leaves out, at random, those that fill no batch.
        batch_size: images a step over all workers; all of them where there are fewer.
        micro_batch: encode this many at a time: less memory, a third more time, the same result to rounding; None
            begins with the whole batch and halves where memory runs out.
        lr: peak learning rate of AdamW: linear warm-up, then a cosine to zero.
        weight_decay: of matrices and kernels.
        ema_decay: end on an exponential moving average of the weights over the steps; None ends on the last.
        views: how the views of an image differ; the pretext's own choice if None.
        mirror: whether a mirrored image still shows the same.
    """

    pretext: Pretext
    epochs: int = 100
    batch_size: int = 256
    micro_batch: int | None = None
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    clip_norm: float | None = 1.0
    ema_decay: float | None = None
    views: View | None = None
    mirror: bool = True

    def __post_init__(self) -> None:
        if self.micro_batch is not None and self.micro_batch < 1:
            raise InputError(f"micro_batch must be at least 1, or None for the whole batch; got {self.micro_batch}")
        if self.pretext.compares and self.batch_size == 1:
            raise InputError(f"{self.pretext.method} compares the images of a batch; batch_size must be at least 2")
        if not 0 < self.lr < float("inf") or not self.weight_decay >= 0:
            raise InputError(f"lr must be positive and weight_decay at least 0, got {self.lr} and {self.weight_decay}")
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
            drop_last=True,
        )

    def fit(
        self,
        backbone: PretrainedBackbone,
        images: ImageSplit,
        labelled: ImageSplit | None = None,
        *,
        seed: int = 0,
        directory: Path | None = None,
        device: str = "cpu",
        progress: Progress = silent,
    ) -> PretrainedBackbone:
        """A new backbone; the one given and this recipe stay as they were. See `train_backbone`, which returns more."""
        from headfirst.pretrain.training import train_backbone

        return train_backbone(
            backbone, images, self, labelled=labelled, seed=seed, directory=directory, device=device, progress=progress
        ).backbone

    def mended(self, attempt: int) -> tuple[Pretraining, str]:
        """After a collapse: the recipe with one number changed, and what was changed, in words."""
        changed = self.pretext.mended(attempt)
        if changed is None:
            return replace(self, lr=self.lr / 2), f"the learning rate halved to {self.lr / 2:g}"
        return replace(self, pretext=changed[0]), changed[1]

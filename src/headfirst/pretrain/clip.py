"""Contrastive training of an image tower and a text tower on pairs (`CLIP`), either of them locked if wanted.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, section 2; sigmoid
models: Zhai et al., ICCV 2023; a locked tower: Zhai et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning",
CVPR 2022. Deviations: pairs with one caption are partners of one another, not negatives; embedding tables do not decay;
batch norm keeps its statistics, since those of a worker's share or of a micro-batch are not those of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from headfirst.data import Pairs
from headfirst.errors import InputError
from headfirst.nn import DualEncoder
from headfirst.pretrain.pair_training import train_pairs
from headfirst.train import Optimisation
from headfirst.types import Progress, silent


@dataclass(frozen=True, kw_only=True)
class CLIP:
    """Train a dual encoder with the loss it was made for: softmax over the batch, or sigmoid over its pairs.

    Attributes:
        epochs: passes over the pairs; each leaves out, at random, those that fill no batch.
        batch_size: pairs told apart at once, over all workers; more make a harder and better task.
        micro_batch: encode this many at a time, in that much memory, for a third more time and the same gradients;
            None keeps the activations of the whole batch.
        lr: peak learning rate: linear warm-up, then a cosine to zero.
        weight_decay: of matrices and kernels; none of biases, norms, embedding tables, the logit scale and bias.
        locked_image, locked_text: this tower stays as it is, bit for bit, and embeds everything once. The projection
            that `headfirst.nn.pair` put on it is no part of it and is trained.
        augment: random crops of the images, and flips where `mirror` says that a mirrored image keeps its caption; a
            locked image tower sees the images as they are.
    """

    epochs: int = 32
    batch_size: int = 256
    micro_batch: int | None = None
    lr: float = 1e-3
    weight_decay: float = 0.1
    warmup: float = 0.1
    clip_norm: float | None = 1.0
    locked_image: bool = False
    locked_text: bool = False
    augment: bool = True
    mirror: bool = True

    method: ClassVar[str] = "clip"

    def __post_init__(self) -> None:
        if self.micro_batch is not None and self.micro_batch < 1:
            raise InputError(f"micro_batch must be at least 1, or None for the whole batch; got {self.micro_batch}")
        if self.batch_size < 2:
            raise InputError(
                f"batch_size must be at least 2, for there to be a pair to tell apart; got {self.batch_size}"
            )
        if not self.lr > 0 or not self.weight_decay >= 0:
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
            drop_last=True,
        )

    def fit(
        self,
        encoder: DualEncoder,
        pairs: Pairs,
        val: Pairs | None = None,
        *,
        seed: int = 0,
        directory: Path | None = None,
        device: str = "cpu",
        progress: Progress = silent,
    ) -> DualEncoder:
        """A new dual encoder; the one given and this recipe stay as they were.

        `headfirst.pretrain.train_pairs` does the same and also returns what was seen on the way.

        Args:
            encoder: pretrained, or fresh from `headfirst.nn.pair`; its kind decides the loss.
            pairs: prepared on the fly where they are not; what cannot be read is left out.
            val: held-out pairs that are only watched, and choose nothing.
            directory: keeps checkpoints and logs, and the same call resumes from them.
            device: "cpu" or "cuda". Under `torchrun` the workers share each batch.

        Raises:
            InputError: fewer pairs than a batch, or nothing that would be trained.
            DataError: no image can be read.
            DivergenceError: loss, gradient or embeddings became non-finite.
        """
        return train_pairs(
            encoder, pairs, self, val=val, seed=seed, directory=directory, device=device, progress=progress
        ).encoder

"""What tells, while it runs, whether a pre-training goes well: the features of the same few images, again and again.

Shape letters: N images, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headfirst.data import ImageSplit, normalise, shuffled_by_name
from headfirst.errors import DivergenceError
from headfirst.metrics import effective_rank, feature_spread, leave_one_out_knn, leave_one_out_ridge
from headfirst.nn import PretrainedBackbone
from headfirst.pretrain.dino import StudentAndTeacher
from headfirst.pretrain.simclr import TwoViews
from headfirst.train import append_line, read_lines
from headfirst.types import Preprocessing

WATCHED = 512
"""Images whose features are looked at, and labelled ones that are asked about, at most."""

_BATCH = 128
_WATCHED = 0x57415443  # stream of the draw


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The backbone after `epoch` (0: before training).

    Attributes:
        loss: the mean training loss of the epoch; None before training.
        feature_std: `headfirst.metrics.feature_spread`: 0 where all features point one way, about 1 where they fill the
            space.
        rankme: effective rank of the features (Garrido et al., "RankMe", ICML 2023).
        knn, probe: leave-one-out accuracy of 5 neighbours and of a ridge probe on the labelled images; None without.
        embedding_std: `feature_spread` of the projections that SimCLR and VICReg compare.
        teacher_entropy, teacher_entropy_of_mean: in nats; of DINO alone. Their difference is what the teacher tells of
            an image; `prototypes` of it could tell log K.
    """

    epoch: int
    loss: float | None = None
    feature_std: float
    rankme: float
    knn: float | None = None
    probe: float | None = None
    embedding_std: float | None = None
    teacher_entropy: float | None = None
    teacher_entropy_of_mean: float | None = None
    prototypes: int | None = None


def watched(images: ImageSplit, *, seed: int, most: int = WATCHED) -> ImageSplit:
    """The images to look at, drawn by seed and name."""
    return images.take(shuffled_by_name(images.ids, seed=seed, stream=_WATCHED)[:most])


def read_signals(
    learner: nn.Module, images: ImageSplit, labelled: ImageSplit | None, *, epoch: int, loss: float | None
) -> Reading:
    """One reading, in eval mode and without gradients; the modes are put back."""
    modes = {module: module.training for module in learner.modules()}
    learner.eval()
    try:
        with torch.inference_mode():
            backbone: PretrainedBackbone = learner.taught()  # pyright: ignore[reportCallIssue]
            features = features_of(backbone, images)
            if not features.isfinite().all():
                raise DivergenceError(f"epoch {epoch}: features are not finite; a smaller learning rate is the remedy")
            embeddings = learner.projector(features) if isinstance(learner, TwoViews) else None
            entropies = _entropies(learner, images)
            knn, probe = (None, None) if labelled is None else _asked(features_of(backbone, labelled), labelled.labels)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return Reading(
        epoch=epoch,
        loss=loss,
        feature_std=_spread(features),
        rankme=effective_rank(features) if features.any() else 0.0,
        knn=knn,
        probe=probe,
        embedding_std=None if embeddings is None else _spread(embeddings),
        teacher_entropy=entropies[0],
        teacher_entropy_of_mean=entropies[1],
        prototypes=learner.task.prototypes if isinstance(learner, StudentAndTeacher) else None,
    )


def features_of(backbone: PretrainedBackbone, images: ImageSplit) -> Float[Tensor, "n d"]:
    """Features of images as they are, past the store: these weights will not be seen again."""
    device = next(backbone.parameters()).device
    return torch.cat([backbone(x.to(device)).cpu() for x in normalised_batches(images, backbone.preprocessing)])


def normalised_batches(images: ImageSplit, preprocessing: Preprocessing) -> Iterator[Float[Tensor, "b 3 h w"]]:
    """The images as a network takes them, some at a time, in parts of nearly one size."""
    for part in np.array_split(np.arange(len(images)), -(-len(images) // _BATCH)):
        yield normalise(images.batch(part), preprocessing)


def _spread(rows: Float[Tensor, "n d"]) -> float:
    return feature_spread(rows) if len(rows) > 1 else 0.0


def _entropies(learner: nn.Module, images: ImageSplit) -> tuple[float | None, float | None]:
    if not isinstance(learner, StudentAndTeacher):
        return None, None
    device = next(learner.parameters()).device
    shown = images.batch(range(min(len(images), _BATCH))).to(device)
    return learner.entropies(normalise(shown, learner.backbone.preprocessing))


def _asked(features: Float[Tensor, "n d"], labels: Int[np.ndarray, " n"]) -> tuple[float, float]:
    numbers = torch.from_numpy(labels)
    return leave_one_out_knn(features, numbers), leave_one_out_ridge(features, numbers)


class Readings:
    """The readings of one attempt, as JSON lines: a resumed run finds what it has read."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self.found: dict[int, Reading] = {}
        for line in read_lines(path):
            self.found[line["epoch"]] = Reading(**line)

    def __contains__(self, epoch: int) -> bool:
        return epoch in self.found

    def __getitem__(self, epoch: int) -> Reading:
        return self.found[epoch]

    def add(self, reading: Reading) -> None:
        """Keep one more."""
        self.found[reading.epoch] = reading
        if self.writes:
            append_line(self.path, asdict(reading))

    def all(self) -> tuple[Reading, ...]:
        """In the order of the epochs."""
        return tuple(self.found[epoch] for epoch in sorted(self.found))

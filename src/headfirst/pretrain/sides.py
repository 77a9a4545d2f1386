"""The two towers as training sees them: by number, live or locked.

Shape letters: B of a batch, N pairs, M distinct captions, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from headfirst.data import ImageSplit, augment, normalise
from headfirst.features import embed
from headfirst.nn import DualEncoder, PretrainedBackbone, TextTower, embed_in_parts
from headfirst.types import Progress, silent

_BATCH = 64  # without gradients


View = Callable[[Tensor, np.ndarray], Tensor]
"""From raw images and their numbers to what the tower is shown."""


def plain(images: Tensor, numbers: np.ndarray) -> Tensor:
    """The `View` that shows images as they are."""
    return images


def augmented(*, seed: int, epoch: int, mirror: bool) -> View:
    """Random crops and flips, keyed by the image's number."""
    return lambda images, numbers: augment(images, seed=seed, epoch=epoch, samples=numbers, mirror=mirror)


class ImageSide:
    """Images by number → unit rows.

    Of a locked tower, features are made once; a projection that `pair` put on it is applied to them each time.
    """

    def __init__(
        self, tower: PretrainedBackbone, images: ImageSplit, *, locked: bool, progress: Progress = silent
    ) -> None:
        self.tower, self.images = tower, images
        self.device = next(tower.parameters()).device
        self.features = frozen_image_features(tower, images, self.device, progress) if locked else None

    def __call__(self, numbers: np.ndarray, *, view: View = plain, micro_batch: int | None = None) -> Tensor:
        """(B, D) unit rows with gradients; `view` reaches a live tower only."""
        if self.features is not None:
            features = self.features[torch.from_numpy(numbers)].to(self.device)
            return F.normalize(features if self.tower.projection is None else self.tower.projection(features), dim=1)

        def encode(part: slice) -> Tensor:
            images = view(self.images.batch(numbers[part]).to(self.device), numbers[part])
            return self.tower(normalise(images, self.tower.preprocessing))

        return F.normalize(embed_in_parts(encode, len(numbers), micro_batch=micro_batch, device=self.device), dim=1)


class TextSide:
    """Numbers of distinct captions → unit rows; captions beyond the context are cut, as in pre-training."""

    def __init__(self, tower: TextTower, captions: Sequence[str], *, locked: bool, progress: Progress = silent) -> None:
        self.tower, self.captions = tower, list(dict.fromkeys(captions))
        self.device = next(tower.parameters()).device
        self.features = self._frozen(progress) if locked else None

    def __call__(self, numbers: np.ndarray, *, micro_batch: int | None = None) -> Tensor:
        """(B, D) unit rows with gradients; each distinct caption is encoded once."""
        distinct, place = np.unique(numbers, return_inverse=True)
        if self.features is not None:
            features = self.features[torch.from_numpy(distinct)].to(self.device)
            rows = features if self.tower.projection is None else self.tower.projection(features)
        else:
            rows = embed_in_parts(
                lambda part: self.tower(self._inputs(distinct[part])),
                len(distinct),
                micro_batch=micro_batch,
                device=self.device,
            )
        return F.normalize(rows, dim=1)[torch.from_numpy(place).to(self.device)]

    def _inputs(self, numbers: np.ndarray) -> dict[str, Tensor]:
        inputs = self.tower.tokenise([self.captions[i] for i in numbers]).inputs
        return {name: value.to(self.device) for name, value in inputs.items()}

    def _frozen(self, progress: Progress) -> Float[Tensor, "m d"]:
        trunk = self.tower if self.tower.projection is None else self.tower.tower
        was_training, rows = self.tower.training, []
        self.tower.eval()
        with torch.inference_mode():
            for start in range(0, len(self.captions), _BATCH):
                numbers = np.arange(start, min(start + _BATCH, len(self.captions)))
                rows.append(trunk(self._inputs(numbers)).float().cpu())
                progress("embedding captions", int(numbers[-1]) + 1, len(self.captions))
        self.tower.train(was_training)
        return torch.cat(rows).clone()


def frozen_image_features(
    tower: PretrainedBackbone, images: ImageSplit, device: torch.device, progress: Progress
) -> Float[Tensor, "n d"]:
    """Features before the projection that `pair` put there, out of the store; each distinct image once."""
    assert images.hashes is not None
    first = {digest: i for i, digest in reversed(list(enumerate(images.hashes)))}
    distinct = sorted(first.values())
    row_of = {images.hashes[i]: row for row, i in enumerate(distinct)}
    found = embed(trunk_of(tower), images.take(distinct), device=str(device), progress=progress)
    return found.values[[row_of[digest] for digest in images.hashes]]


def trunk_of(tower: PretrainedBackbone) -> PretrainedBackbone:
    """The same modules without the projection that `pair` put on top."""
    if tower.projection is None:
        return tower
    return PretrainedBackbone(
        tower.model,
        name=tower.name,
        revision=tower.revision,
        processor=tower.processor,
        preprocessing=tower.preprocessing,
    )


def lock(encoder: DualEncoder, *, image: bool, text: bool) -> None:
    """Take a tower's own parameters out of training; a projection that `pair` put on it stays in."""
    for locked, tower in ((image, encoder.image), (text, encoder.text)):
        if locked:
            tower.requires_grad_(False)
            if tower.projection is not None:
                tower.projection.requires_grad_(True)

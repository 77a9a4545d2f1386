"""What to watch while two towers learn: temperature, retrieval on held-out pairs, and how embeddings lie.

Shape letters: N held-out pairs, D features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from headfirst.data import Pairs
from headfirst.metrics import alignment, modality_gap, retrieval_ranks, uniformity
from headfirst.nn import DualEncoder
from headfirst.pretrain.sides import ImageSide, TextSide

RECALL_AT = (1, 5, 10)
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class PairReading:
    """A dual encoder after `epoch` (0: before training); what needs held-out pairs is None where there are none.

    Attributes:
        temperature: 1 / logit scale.
        logit_bias: of sigmoid models.
        images_to_texts, texts_to_images: recall at 1, 5 and 10, by k: the share of queries with a partner among their k
            most similar candidates. Pairs of one caption are partners.
        alignment, uniformity_of_images, uniformity_of_texts: Wang and Isola's, ICML 2020.
        modality_gap: distance between the mean image and the mean text embedding.
        n: held-out pairs.
    """

    epoch: int
    temperature: float
    logit_bias: float | None = None
    images_to_texts: Mapping[str, float] | None = None
    texts_to_images: Mapping[str, float] | None = None
    alignment: float | None = None
    uniformity_of_images: float | None = None
    uniformity_of_texts: float | None = None
    modality_gap: float | None = None
    n: int = 0


class PairMonitor:
    """A callback of the training loop.

    Args:
        images, texts: the sides of the held-out pairs; None watches the temperature alone.
        log: JSON lines of the readings, read back when a stopped training goes on.
        writes: whether this worker writes the log.
    """

    def __init__(
        self,
        val: Pairs | None,
        images: ImageSide | None,
        texts: TextSide | None,
        *,
        log: Path | None = None,
        writes: bool = True,
    ) -> None:
        self.val, self.images, self.texts, self.log, self.writes = val, images, texts, log, writes
        self.found: dict[int, PairReading] = {}
        if log is not None and log.is_file():
            for line in log.read_text().splitlines():
                reading = PairReading(**json.loads(line))
                self.found[reading.epoch] = reading

    def __call__(self, epochs_done: int, module: nn.Module) -> bool:
        """Read after this epoch; never ends the training."""
        assert isinstance(module, DualEncoder)
        reading = self._read(epochs_done, module)
        self.found[epochs_done] = reading
        if self.log is not None and self.writes:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a") as file:
                file.write(json.dumps(asdict(reading)) + "\n")
        return False

    def readings(self) -> tuple[PairReading, ...]:
        """One for each epoch, in order."""
        return tuple(self.found[epoch] for epoch in sorted(self.found))

    def _read(self, epoch: int, encoder: DualEncoder) -> PairReading:
        bias = None if encoder.logit_bias is None else encoder.logit_bias.item()
        reading = PairReading(epoch=epoch, temperature=1 / encoder.logit_scale.item(), logit_bias=bias)
        if self.val is None or self.images is None or self.texts is None:
            return reading
        x, y = held_out_embeddings(encoder, self.val, self.images, self.texts)
        groups = torch.from_numpy(self.val.groups)
        recalls = []
        for queries, candidates in ((x, y), (y, x)):
            ranks = retrieval_ranks(queries, candidates, groups=groups)
            recalls.append({str(k): (ranks < k).double().mean().item() for k in RECALL_AT})
        several = len(x) > 1
        return PairReading(
            epoch=epoch,
            temperature=reading.temperature,
            logit_bias=bias,
            images_to_texts=recalls[0],
            texts_to_images=recalls[1],
            alignment=alignment(x, y),
            uniformity_of_images=uniformity(x) if several else None,
            uniformity_of_texts=uniformity(y) if several else None,
            modality_gap=modality_gap(x, y),
            n=len(x),
        )


def held_out_embeddings(
    encoder: DualEncoder, pairs: Pairs, images: ImageSide, texts: TextSide
) -> tuple[Tensor, Tensor]:
    """(N, D) unit rows of images and of captions, in eval mode and without gradients; the modes are put back."""
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    rows: tuple[list[Tensor], list[Tensor]] = ([], [])
    try:
        with torch.inference_mode():
            for start in range(0, len(pairs), _BATCH):
                numbers = np.arange(start, min(start + _BATCH, len(pairs)))
                rows[0].append(images(numbers).float().cpu())
            distinct = [texts(np.arange(s, min(s + _BATCH, len(texts.captions)))).float().cpu()
                        for s in range(0, len(texts.captions), _BATCH)]  # fmt: skip
        return torch.cat(rows[0]).clone(), torch.cat(distinct)[torch.from_numpy(pairs.groups)].clone()
    finally:
        for module, mode in modes.items():
            module.training = mode

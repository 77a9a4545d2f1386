"""The distortion meter: while a backbone is tuned, how far its features move inside and outside their home span.

What enters: what training starts from and its training images, whose labels are not read. What leaves: a
reading after epochs 1, 2, 4, 8, … and the last, and one warning where the movement outside the span exceeds what
held-out home features already have there.

Kumar et al., ICLR 2022, section 3: fine-tuning changes features along the training span and leaves the directions
orthogonal to it behind; that gap is the distortion.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from headfirst.data import ImageSplit, normalise
from headfirst.errors import DistortionWarning
from headfirst.features import embed
from headfirst.metrics import energy_inside, movement, span
from headfirst.nn import DualEncoder, ImageClassifier, PretrainedBackbone
from headfirst.randomness import keyed_permutation
from headfirst.types import DistortionReading

ENERGY = 0.95
"""Share of the training features' squared norm that the home span holds."""
BUFFER, SPANNING = 32, 256


class DistortionMeter:
    """A callback of the training loop.

    Args:
        start: the classifier or dual encoder before training; its backbone or image tower is the reference.
        images: prepared training images; at most `SPANNING` of them span home, `BUFFER` of those are watched.
        num_epochs: the length of the training.
        method, stage: names for the readings and for the warning.
        log: JSON lines of the readings, read back when a stopped training goes on.
    """

    def __init__(
        self,
        start: ImageClassifier | DualEncoder,
        images: ImageSplit,
        *,
        num_epochs: int,
        method: str,
        stage: str,
        log: Path | None = None,
        device: str = "cpu",
    ) -> None:
        self.method, self.stage, self.log, self.device = method, stage, log, device
        self.epochs = {2**power for power in range(32) if 2**power < num_epochs} | {num_epochs}
        home = images.take(keyed_permutation(len(images), 0xD157)[:SPANNING].tolist())
        self.buffer = home.take(range(min(BUFFER, len(home))))
        reference = _backbone(start)
        features = embed(reference, home, device=device).values
        self.basis = span(features, ENERGY)
        self.threshold = outside_share(features)
        self.before = watched(reference, self.buffer, device)
        self.readings = {0: DistortionReading(method=method, epoch=0, inside=0.0, outside=0.0)}
        if log is not None and log.is_file():
            for line in log.read_text().splitlines():
                reading = DistortionReading(**json.loads(line))
                self.readings[reading.epoch] = reading

    def __call__(self, epochs_done: int, module: nn.Module) -> bool:
        """Read after this epoch where one is due; never ends the training."""
        if epochs_done not in self.epochs:
            return False
        moved = movement(self.before, watched(_backbone(module), self.buffer, self.device), self.basis)
        reading = DistortionReading(
            method=self.method,
            epoch=epochs_done,
            inside=moved.inside.mean().item(),
            outside=moved.outside.mean().item(),
        )
        already = any(r.outside > self.threshold for epoch, r in self.readings.items() if epoch < epochs_done)
        self.readings[epochs_done] = reading
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(json.dumps(asdict(reading)) + "\n")
        if reading.outside > self.threshold and not already:
            warnings.warn(
                f"{self.stage}: after epoch {epochs_done} features have moved by {reading.outside:.2f} of their norm "
                f"outside the home span, where held-out home features have {self.threshold:.2f}; a smaller learning "
                "rate or lp-ft distorts less",
                DistortionWarning,
                stacklevel=2,
            )
        return False

    def record(self) -> dict[str, object]:
        """What the model's record keeps."""
        readings = [asdict(self.readings[epoch]) for epoch in sorted(self.readings)]
        return {"threshold": self.threshold, "readings": readings}


def _backbone(module: nn.Module) -> PretrainedBackbone:
    if isinstance(module, DualEncoder):
        return module.image
    assert isinstance(module, ImageClassifier)
    return module.backbone


def outside_share(features: Float[Tensor, "n d"]) -> float:
    """Mean share of the norm of one half of the features that lies outside the span of the other, both ways.

    Below four images there are no halves to compare, and nothing is unusual: 1.
    """
    if len(features) < 4:
        return 1.0
    halves = (features[0::2], features[1::2])
    shares = [
        (1 - energy_inside(held_out, span(home, ENERGY))).clamp(min=0).sqrt().mean().item()
        for home, held_out in (halves, halves[::-1])
    ]
    return float(np.mean(shares))


def watched(backbone: PretrainedBackbone, images: ImageSplit, device: str) -> Float[Tensor, "n d"]:
    """(N, D) float32 features of a small prepared split, in eval mode, past the store; the mode is put back."""
    modes = {module: module.training for module in backbone.modules()}
    home = next(backbone.parameters()).device
    backbone.eval().to(device)
    try:
        with torch.inference_mode():
            return backbone(normalise(images.batch().to(device), backbone.preprocessing)).float().cpu().clone()
    finally:
        backbone.to(home)
        for module, mode in modes.items():
            module.training = mode

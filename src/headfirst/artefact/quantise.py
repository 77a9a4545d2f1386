"""An ONNX graph in 8-bit integers: ONNX Runtime's static quantisation, calibrated on images.

Weights per channel in seven of the eight bits (`reduce_range`), so that processors without VNNI, whose 16-bit sums
saturate, compute the same; activations per tensor, from their least and greatest value on the images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from headfirst.artefact.runtimes import quiet, required
from headfirst.data import ImageSplit
from headfirst.types import Progress, silent

BATCH_SIZE = 16


def quantise(source: Path, target: Path, images: ImageSplit, *, progress: Progress = silent) -> None:
    """Write the graph `source` to `target` with quantised convolutions and matrix products (QDQ nodes).

    Args:
        images: prepared; a few hundred like those that will be asked about.
    """
    quantization = required("onnxruntime.quantization")
    prepared = target.with_name("prepared.onnx")
    with quiet():
        quantization.quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            target,
            _Batches(images, progress),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
    prepared.unlink()


def pixel_batches(images: ImageSplit, size: int = BATCH_SIZE) -> Iterator[np.ndarray]:
    """(B, 3, H, W) uint8 pixels of a prepared split, in order."""
    for start in range(0, len(images), size):
        yield np.ascontiguousarray(images.batch(np.arange(start, min(start + size, len(images)))).numpy())


class _Batches:
    """What ONNX Runtime calls a calibration data reader."""

    def __init__(self, images: ImageSplit, progress: Progress) -> None:
        self.batches, self.total, self.progress, self.done = pixel_batches(images), len(images), progress, 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        self.progress("calibrating int8", self.done, self.total)
        pixels = next(self.batches, None)
        if pixels is None:
            return None
        self.done += len(pixels)
        return {"pixels": pixels}

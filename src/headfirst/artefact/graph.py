"""A classifier as one graph: PyTorch → ONNX → (int8) → (OpenVINO), with the normalisation inside.

Shape letters: B images, H W pixels, K classes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from headfirst.artefact.golden import golden_pixels
from headfirst.artefact.quantise import quantise
from headfirst.artefact.runtimes import quiet, reason, required
from headfirst.data import ImageSplit
from headfirst.errors import ArtefactError, InputError
from headfirst.nn import ImageClassifier
from headfirst.types import Progress

_OPSET = 18
_LARGEST = 2**31 - 2**24  # bytes of weights that one ONNX file holds


class PixelClassifier(nn.Module):
    """`ImageClassifier` with the normalisation inside: uint8 pixels (B, 3, H, W) → logits (B, K)."""

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: ImageClassifier) -> None:
        super().__init__()
        self.classifier = classifier
        preprocessing = classifier.backbone.preprocessing
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classifier((pixels.to(torch.float32) / 255 - self.mean) / self.std)


def write_graph(
    classifier: ImageClassifier, to: str, graph: Path, calibration: ImageSplit | None, progress: Progress
) -> list[Path]:
    """Write the model as the graph `graph`, in 8-bit integers where there are `calibration` images.

    Returns:
        The graph's files, the one to open first.

    Raises:
        InputError: the weights are too large for one file, or a package is not installed.
        ArtefactError: the model cannot be traced.
    """
    onnx = graph.with_suffix(".onnx")
    progress("exporting", 0, 1)
    _write_onnx(classifier, onnx)
    if calibration is not None:
        quantised = onnx.with_name("quantised.onnx")
        quantise(onnx, quantised, calibration, progress=progress)
        quantised.replace(onnx)
    if to == "openvino":
        openvino = required("openvino")
        openvino.save_model(openvino.Core().read_model(onnx), graph, compress_to_fp16=False)
    progress("exporting", 1, 1)
    return [graph] if to == "onnx" else [graph, graph.with_suffix(".bin")]


def _write_onnx(classifier: ImageClassifier, path: Path) -> None:
    for package in ("onnx", "onnxscript"):
        required(package)
    num_bytes = sum(tensor.nbytes for tensor in classifier.state_dict().values())
    if num_bytes > _LARGEST:
        raise InputError(f"a graph holds at most 2 GB, but the weights are {num_bytes} bytes; use a smaller backbone")
    model = PixelClassifier(classifier).eval()
    example = golden_pixels(classifier.backbone.preprocessing)[:2].contiguous()
    try:
        # The fused attention kernels' memory layouts differ from those of the graph they are decomposed into.
        with quiet(), sdpa_kernel(SDPBackend.MATH):
            program = torch.onnx.export(
                model,
                (example,),
                input_names=["pixels"],
                output_names=["logits"],
                dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # torch.export and the exporter raise what they meet
        family = classifier.backbone.model_type
        raise ArtefactError(f"this {family} could not be exported ({reason(error)}); try another torch") from error
    assert program is not None
    program.save(path, external_data=False)

"""A saved model as one graph for ONNX Runtime or OpenVINO: uint8 pixels in, logits out, equal to PyTorch's.

The normalisation is part of the graph; resizing and cropping are not, and are stated in the file beside it. A graph
that does not agree with PyTorch is never left behind. Shape letters: B images, H W pixels, K classes.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from headfirst.artefact.golden import golden_mismatch, golden_outputs, golden_pixels
from headfirst.artefact.graph import write_graph
from headfirst.artefact.metadata import read_metadata
from headfirst.artefact.quantise import pixel_batches
from headfirst.artefact.runtimes import RUNNERS, Runner, reason
from headfirst.artefact.saved_model import Checked, load_checked
from headfirst.artefact.seal import file_sha256, seal
from headfirst.artefact.sidecar import Sidecar, sidecar_path, write_sidecar
from headfirst.data import ImageSplit, normalise
from headfirst.errors import ArtefactError, InputError, did_you_mean
from headfirst.nn import ImageClassifier
from headfirst.types import Progress, silent

FORMATS = {"onnx": ".onnx", "openvino": ".xml"}
TOLERANCE = 1e-4
"""A float32 graph's logits may differ from PyTorch's by this much of the largest of them."""

AGREEMENT = 0.99
"""Share of the calibration images to which an int8 graph must give the same class as PyTorch."""

FEWEST_IMAGES = 16
"""With fewer calibration images the agreement would mean nothing."""

_INT8_ROUNDING = 0.05  # of the largest logit: steps of 1/127 that other threads round the other way add up; 0.022 seen


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export wrote.

    Attributes:
        graph: the file to open.
        sidecar: the JSON file beside it.
        mismatch: largest difference from PyTorch's golden outputs, relative to the largest of them.
        agreement: int8: share of the calibration images with the same class as in PyTorch; else None.
    """

    graph: Path
    sidecar: Path
    mismatch: float
    agreement: float | None


def export_model(
    directory: str | Path,
    to: str,
    *,
    out: str | Path | None = None,
    calibration: ImageSplit | None = None,
    progress: Progress = silent,
) -> Exported:
    """Write the saved model in `directory` as a graph, with what is to be known about it in a JSON file beside it.

    Args:
        to: `onnx` or `openvino`.
        out: the graph's file (.onnx, .xml) or a folder for it; None: `exports/` in the model's folder.
        calibration: prepared images, the graph then computes in 8-bit integers; None: float32.

    Raises:
        InputError: unknown format, a file in the way, too few calibration images, or the extra is not installed.
        ArtefactError: the model failed its own checks, cannot be exported, or the graph disagrees with PyTorch.
    """
    if to not in FORMATS:
        raise InputError(f"unknown format {to!r}{did_you_mean(to, FORMATS)}; formats are {', '.join(FORMATS)}")
    if calibration is not None and len(calibration) < FEWEST_IMAGES:
        raise InputError(f"int8 needs at least {FEWEST_IMAGES} calibration images, got {len(calibration)}; add some")
    checked = load_checked(Path(directory))
    graph = _destination(checked.directory, to, out, int8=calibration is not None)
    graph.parent.mkdir(parents=True, exist_ok=True)
    staging = graph.with_name(f".{graph.stem}.tmp-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        files = write_graph(checked.model.classifier, to, staging / graph.name, calibration, progress)
        sidecar = _checked_sidecar(checked, to, files, calibration)
        write_sidecar(sidecar, sidecar_path(files[0]))
        for file in (*files, sidecar_path(files[0])):  # the sidecar last: without it there is no export
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
            file.replace(graph.with_name(file.name))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Exported(graph=graph, sidecar=sidecar_path(graph), mismatch=sidecar.mismatch, agreement=sidecar.agreement)


def replayed(run: Runner, pixels: UInt8[Tensor, "n 3 h w"], expected: Float32[Tensor, "n k"]) -> float:
    """`golden_mismatch` of a graph, all images in one batch and each alone; the worse of the two.

    Raises:
        ArtefactError: the runtime refuses the graph or the batch.
    """
    array = np.ascontiguousarray(pixels.numpy())
    try:
        together, alone = run(array), np.concatenate([run(image[None]) for image in array])
    except Exception as error:  # each runtime has its own
        raise ArtefactError(f"the graph cannot be run ({reason(error)}); export it with other versions") from error
    if together.shape != expected.shape or alone.shape != expected.shape:
        return float("inf")
    # max() would let a NaN pass
    return float(np.max([golden_mismatch(expected, torch.from_numpy(got)) for got in (together, alone)]))


def _destination(directory: Path, to: str, out: str | Path | None, *, int8: bool) -> Path:
    """The graph's file."""
    path = directory / "exports" if out is None else Path(out)
    if path.suffix in FORMATS.values() and path.suffix != FORMATS[to]:
        raise InputError(f"an export to {to} is a {FORMATS[to]} file, got {path}")
    if path.suffix != FORMATS[to]:
        path /= f"model{'-int8' if int8 else ''}{FORMATS[to]}"
    if path.parent.exists() and not path.parent.is_dir():
        raise InputError(f"{path.parent} is a file; give a folder, or a file that ends in {FORMATS[to]}")
    if path.exists() and not sidecar_path(path).is_file():
        raise InputError(f"{path} is there already and no export of Headfirst; give another place")
    return path


def _checked_sidecar(checked: Checked, to: str, files: list[Path], calibration: ImageSplit | None) -> Sidecar:
    """What is to be known about the graph, after it was compared with PyTorch.

    Raises:
        ArtefactError: it disagrees.
    """
    classifier, metadata = checked.model.classifier, checked.metadata
    run = RUNNERS[to](files[0])
    mismatch = replayed(run, golden_pixels(classifier.backbone.preprocessing), golden_outputs(classifier))
    agreement, tolerance = None, TOLERANCE
    if calibration is not None:
        agreement, tolerance = _agreement(run, classifier, calibration), mismatch + _INT8_ROUNDING
        if agreement < AGREEMENT:
            raise ArtefactError(
                f"int8 gives {100 * (1 - agreement):.1f} % of the calibration images another class than float32 does "
                f"(at most {100 * (1 - AGREEMENT):.0f} % may change), so it was removed; keep float32, or calibrate on "
                "more images like those it will see"
            )
    elif not mismatch <= TOLERANCE:
        raise ArtefactError(
            f"the exported graph differs from PyTorch by {mismatch:.2g} of the largest logit on the golden images (at "
            f"most {TOLERANCE:g} is rounding), so it was removed; try the other format, or another torch"
        )
    height, width = classifier.backbone.preprocessing.size
    return Sidecar(
        format=to,  # pyright: ignore[reportArgumentType]
        precision="float32" if calibration is None else "int8",
        files={file.name: file_sha256(file) for file in files},
        input={"name": "pixels", "type": "uint8", "shape": ["batch", 3, height, width]},
        output={"name": "logits", "type": "float32", "shape": ["batch", len(metadata.classes)]},
        preprocessing=metadata.preprocessing,
        classes=metadata.classes,
        temperature=metadata.temperature,
        model=seal(read_metadata(checked.directory)),
        mismatch=mismatch,
        tolerance=tolerance,
        agreement=agreement,
        calibration_images=None if calibration is None else len(calibration),
        versions={name: version(name) for name in ("headfirst", "torch", to if to == "openvino" else "onnxruntime")},
    )


def _agreement(run: Runner, classifier: ImageClassifier, images: ImageSplit) -> float:
    """Share of images that the graph and PyTorch give the same class."""
    same = 0
    for pixels in pixel_batches(images):
        with torch.inference_mode():
            expected = classifier(normalise(torch.from_numpy(pixels), classifier.backbone.preprocessing)).argmax(dim=1)
        same += int((run(pixels).argmax(axis=1) == expected.numpy()).sum())
    return same / len(images)

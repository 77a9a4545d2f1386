"""`headfirst export` and `headfirst verify`: a saved model for other runtimes, and whether it is still itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headfirst.cli.console import note, progress_display, say
from headfirst.cli.options import JsonOption, QuietOption, resolve_device
from headfirst.errors import InputError

if TYPE_CHECKING:
    from headfirst.artefact import Verified
    from headfirst.data import ImageSplit
    from headfirst.types import Progress

ModelArgument = Annotated[Path, typer.Argument(help="A model folder that run or adapt wrote.")]


def export(
    model: ModelArgument,
    to: Annotated[str, typer.Option("--to", help="onnx or openvino.")],
    out: Annotated[Path | None, typer.Option(help="File or folder. Default: exports/ in the model folder.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Compute in 8-bit integers; needs --calibrate.")] = False,
    calibrate: Annotated[Path | None, typer.Option(help="A folder of images like those it will see.")] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a model as a graph for ONNX Runtime or OpenVINO that equals PyTorch, or not at all."""
    if int8 != (calibrate is not None):
        raise InputError("--int8 and --calibrate FOLDER go together: int8 is fitted to images; give both or neither")
    from headfirst.artefact import export_model

    resolve_device("cpu")
    with progress_display(quiet=quiet) as progress:
        images = None if calibrate is None else _calibration_images(model, calibrate, progress, quiet=quiet)
        exported = export_model(model, to, out=out, calibration=images, progress=progress)
    if as_json:
        about = {"graph": str(exported.graph), "sidecar": str(exported.sidecar), "mismatch": exported.mismatch}
        say(json.dumps({**about, "agreement": exported.agreement}, indent=1))
        return
    say(f"graph:  {exported.graph}")
    say(f"beside: {exported.sidecar}")
    say(f"largest difference from PyTorch on the golden images: {exported.mismatch:.1e} of the largest logit")
    if exported.agreement is not None and images is not None:
        say(f"same class as float32 on {100 * exported.agreement:.1f} % of {len(images)} calibration images")


def _calibration_images(model: Path, folder: Path, progress: Progress, *, quiet: bool) -> ImageSplit:
    from headfirst.artefact import load_model
    from headfirst.data import prepare, read_paths

    images = read_paths([folder])  # before the model: what is missing is said at once
    found = prepare(images, load_model(model).classifier.backbone.preprocessing, progress=progress)
    for quarantined in found.quarantined:
        note(f"skipped {quarantined.id}: {quarantined.reason}", quiet=quiet)
    return found["unlabelled"]


def verify(model: ModelArgument, as_json: JsonOption = False) -> None:
    """Check a model's files and golden outputs, and those of its exports; exit code 1 where one is not what it was."""
    from headfirst.artefact import verify_model

    resolve_device("cpu")
    verified = verify_model(model)
    if as_json:
        exports = {e.graph.name: {"precision": e.sidecar.precision, "mismatch": e.mismatch} for e in verified.exports}
        about = {"files": len(verified.checked.metadata.files), "mismatch": verified.checked.mismatch}
        say(json.dumps({**about, "exports": exports}, indent=1))
        return
    for line in _lines(verified):
        say(line)


def _lines(verified: Verified) -> list[str]:
    metadata = verified.checked.metadata
    known = "not protected: saved in format 1" if metadata.sha256 is None else "unchanged"
    lines = [
        f"headfirst.json: {known}; {len(metadata.classes)} classes",
        f"{len(metadata.files)} files: sha256 as saved",
        f"golden images: largest difference {verified.checked.mismatch:.1e} of the largest logit",
    ]
    for export in verified.exports:
        replay = (
            f"not replayed, {export.sidecar.format} is not installed here"
            if export.mismatch is None
            else f"largest difference {export.mismatch:.1e}, at most {export.sidecar.tolerance:.1e}"
        )
        lines.append(f"exports/{export.graph.name} ({export.sidecar.precision}): sha256 as saved; {replay}")
    return lines if verified.exports else [*lines, "exports: none"]

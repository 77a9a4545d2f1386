"""Everything that can be checked about a saved model: its files, its golden outputs, and its exports."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from headfirst.artefact.export import FORMATS, replayed
from headfirst.artefact.golden import golden_outputs, golden_pixels
from headfirst.artefact.metadata import read_metadata
from headfirst.artefact.runtimes import RUNNERS
from headfirst.artefact.saved_model import Checked, check_file, load_checked
from headfirst.artefact.seal import seal
from headfirst.artefact.sidecar import Sidecar, read_sidecar, sidecar_path
from headfirst.errors import ArtefactError

_PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}


@dataclass(frozen=True, kw_only=True)
class VerifiedExport:
    """An export that is the file it was; `mismatch` is None where its runtime is not installed to replay it."""

    graph: Path
    sidecar: Sidecar
    mismatch: float | None


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A model that passed; `checked.mismatch` is of its golden outputs."""

    checked: Checked
    exports: tuple[VerifiedExport, ...]


def verify_model(directory: str | Path) -> Verified:
    """Check the hashes of all files, replay the golden images in PyTorch and in every graph in `exports/`.

    Raises:
        InputError: there is no Headfirst model.
        ArtefactError: the first thing that is not what it was.
    """
    checked = load_checked(Path(directory))
    folder = checked.directory / "exports"
    graphs = sorted(path for path in folder.glob("*") if path.suffix in FORMATS.values())
    sidecars = {sidecar_path(graph) for graph in graphs} | set(folder.glob("*.json"))
    return Verified(checked=checked, exports=tuple(_verify_export(checked, path) for path in sorted(sidecars)))


def _verify_export(checked: Checked, path: Path) -> VerifiedExport:
    if not path.is_file():
        raise ArtefactError(f"{path} is missing, without which its graph cannot be used; export the model again")
    sidecar = read_sidecar(path)
    for name, expected in sidecar.files.items():
        check_file(path.with_name(name), expected)
    graph = path.with_name(sidecar.graph)
    if sidecar.model != seal(read_metadata(checked.directory)):
        raise ArtefactError(f"{graph} was exported from another model than {checked.directory} now is; export it again")
    if find_spec(_PACKAGES[sidecar.format]) is None:
        return VerifiedExport(graph=graph, sidecar=sidecar, mismatch=None)
    classifier = checked.model.classifier
    pixels = golden_pixels(classifier.backbone.preprocessing)
    mismatch = replayed(RUNNERS[sidecar.format](graph), pixels, golden_outputs(classifier))
    if not mismatch <= sidecar.tolerance:
        raise ArtefactError(
            f"{graph} differs from PyTorch by {mismatch:.2g} of the largest logit on the golden images (at most "
            f"{sidecar.tolerance:.2g}): the runtime around it computes something else; compare the versions in {path}"
        )
    return VerifiedExport(graph=graph, sidecar=sidecar, mismatch=mismatch)

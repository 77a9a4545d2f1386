"""Headfirst: a folder of images and few labels in; the classifier that holds up away from home, with the evidence, out.

The names below are the public ones most users need; more live in `headfirst.metrics`, `headfirst.data`,
`headfirst.nn`, `headfirst.adapt`. Importing this package imports nothing heavy: names are fetched when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headfirst.adapt import FLYP, KNN, LPFT, FineTune, LinearProbe, TunedModel, WiSE, ZeroShot, on_backbone
    from headfirst.artefact import load_model, save_model
    from headfirst.data import ImageSet, ImageSplit, prepare, unlabelled_pool
    from headfirst.errors import HeadfirstError
    from headfirst.evaluation import evaluate
    from headfirst.features import embed, nearest
    from headfirst.nn import load_backbone, load_dual_encoder, untrained_backbone
    from headfirst.pretrain import Pretraining, SimCLR
    from headfirst.report import read_report, write_report
    from headfirst.study import Run, run
    from headfirst.types import Features, Predictions, Preprocessing, Report

_HOMES = {
    "headfirst.adapt": (
        "FLYP",
        "KNN",
        "LPFT",
        "FineTune",
        "LinearProbe",
        "TunedModel",
        "WiSE",
        "ZeroShot",
        "on_backbone",
    ),
    "headfirst.artefact": ("load_model", "save_model"),
    "headfirst.data": ("ImageSet", "ImageSplit", "prepare", "unlabelled_pool"),
    "headfirst.errors": ("HeadfirstError",),
    "headfirst.evaluation": ("evaluate",),
    "headfirst.features": ("embed", "nearest"),
    "headfirst.nn": ("load_backbone", "load_dual_encoder", "untrained_backbone"),
    "headfirst.pretrain": ("Pretraining", "SimCLR"),
    "headfirst.report": ("read_report", "write_report"),
    "headfirst.study": ("Run", "run"),
    "headfirst.types": ("Features", "Predictions", "Preprocessing", "Report"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "FLYP",
    "KNN",
    "LPFT",
    "Features",
    "FineTune",
    "HeadfirstError",
    "ImageSet",
    "ImageSplit",
    "LinearProbe",
    "Predictions",
    "Preprocessing",
    "Pretraining",
    "Report",
    "Run",
    "SimCLR",
    "TunedModel",
    "WiSE",
    "ZeroShot",
    "embed",
    "evaluate",
    "load_backbone",
    "load_dual_encoder",
    "load_model",
    "nearest",
    "on_backbone",
    "prepare",
    "read_report",
    "run",
    "save_model",
    "unlabelled_pool",
    "untrained_backbone",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("headfirst")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'headfirst' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

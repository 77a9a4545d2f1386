"""The model on disk, on the hub, and as a graph for other runtimes."""

from headfirst.artefact.export import FORMATS, Exported, export_model
from headfirst.artefact.hub import push_model
from headfirst.artefact.metadata import read_metadata
from headfirst.artefact.saved_model import load_model, save_model
from headfirst.artefact.verify import Verified, verify_model

__all__ = [
    "FORMATS",
    "Exported",
    "Verified",
    "export_model",
    "load_model",
    "push_model",
    "read_metadata",
    "save_model",
    "verify_model",
]

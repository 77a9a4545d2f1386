"""What is on disk and proves itself: the model (on the hub and as a graph for other runtimes too), the image index."""

from headfirst.artefact.export import FORMATS, Exported, export_model
from headfirst.artefact.hub import push_model
from headfirst.artefact.image_index import ImageIndex, load_index, save_index
from headfirst.artefact.metadata import read_metadata
from headfirst.artefact.saved_model import load_model, save_model
from headfirst.artefact.verify import Verified, verify_model

__all__ = [
    "FORMATS",
    "Exported",
    "ImageIndex",
    "Verified",
    "export_model",
    "load_index",
    "load_model",
    "push_model",
    "read_metadata",
    "save_index",
    "save_model",
    "verify_model",
]

"""The model on disk."""

from headfirst.artefact.saved_model import load_model, read_metadata, save_model

__all__ = ["load_model", "read_metadata", "save_model"]

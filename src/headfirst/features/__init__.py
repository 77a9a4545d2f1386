"""Backbone and images to features, the store that keeps them, and the most similar among them."""

from headfirst.features.approximate import Graph, measured_recall, recall
from headfirst.features.depths import embed_depths
from headfirst.features.export import save_embeddings
from headfirst.features.extract import embed
from headfirst.features.file import load_features, save_features
from headfirst.features.nearest import Nearest, nearest
from headfirst.features.side_by_side import side_by_side
from headfirst.features.store import CacheInfo, cache_info, clear_cache
from headfirst.features.streaming import Streamed, stream
from headfirst.features.threads import free_threads, kept_threads, torch_threads

__all__ = [
    "CacheInfo",
    "Graph",
    "Nearest",
    "Streamed",
    "cache_info",
    "clear_cache",
    "embed",
    "embed_depths",
    "free_threads",
    "kept_threads",
    "load_features",
    "measured_recall",
    "nearest",
    "recall",
    "save_embeddings",
    "save_features",
    "side_by_side",
    "stream",
    "torch_threads",
]

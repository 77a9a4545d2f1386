"""Backbone and images to features, the store that keeps them, and the most similar among them."""

from headfirst.features.extract import embed
from headfirst.features.file import load_features, save_features
from headfirst.features.nearest import Nearest, nearest
from headfirst.features.store import CacheInfo, cache_info, clear_cache
from headfirst.features.threads import free_threads, torch_threads

__all__ = [
    "CacheInfo",
    "Nearest",
    "cache_info",
    "clear_cache",
    "embed",
    "free_threads",
    "load_features",
    "nearest",
    "save_features",
    "torch_threads",
]

"""Weights drawn from a key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from headfirst.randomness import keyed_bits


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Weights drawn inside depend on the key alone, and PyTorch's generator is where it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(keyed_bits(*key) >> 1))
        yield

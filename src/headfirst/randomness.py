"""Keyed randomness: what a sample draws depends on (seed, epoch, sample, stream), never on its batch or worker.

A counter-based generator: the key is hashed by SplitMix64 (Steele, Lea & Flood, OOPSLA 2014, figure 16), so
any draw can be made at any time, in any order, alone or vectorised, with the same result.
"""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _splitmix64(state: np.ndarray) -> np.ndarray:
    z = state + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def keyed_bits(*key: int | np.ndarray) -> np.ndarray:
    """64 random bits for each key; arrays in the key broadcast against each other.

    Args:
        key: non-negative integers or integer arrays, e.g. `seed, epoch, samples`.

    Returns:
        uint64 array of the broadcast shape.
    """
    state = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in key:
            state = _splitmix64(np.asarray(state ^ np.asarray(part).astype(np.uint64)))
    return state


def keyed_uniform(*key: int | np.ndarray) -> np.ndarray:
    """Uniform draws in [0, 1), float64, one for each key (see `keyed_bits`)."""
    return np.asarray((keyed_bits(*key) >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def keyed_permutation(size: int, *key: int) -> np.ndarray:
    """A permutation of 0 … size-1 that depends on the key alone (int64).

    >>> keyed_permutation(5, 0, 1).tolist() == keyed_permutation(5, 0, 1).tolist()
    True
    """
    return np.argsort(keyed_bits(*key, np.arange(size)), kind="stable")

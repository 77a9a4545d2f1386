"""Keyed randomness: what a sample draws depends on (seed, epoch, sample, stream), never on its batch or worker.

A counter-based generator: the key is hashed by SplitMix64 (Steele, Lea & Flood, OOPSLA 2014, figure 16), so
any draw can be made at any time, in any order, alone or vectorised, with the same result.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtri

from headfirst.errors import InputError

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _splitmix64(state: np.ndarray) -> np.ndarray:
    z = np.asarray(state + _GOLDEN)
    shifted = np.empty_like(z)  # in place: fresh memory costs more than the arithmetic
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        np.bitwise_xor(z, np.right_shift(z, np.uint64(shift), out=shifted), out=z)
        np.multiply(z, np.uint64(factor), out=z)
    return np.bitwise_xor(z, np.right_shift(z, np.uint64(31), out=shifted), out=z)


def _absorbed(state: np.ndarray, *key: int | np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        for part in key:
            state = _splitmix64(np.asarray(state ^ np.asarray(part).astype(np.uint64)))
    return state


def _in_unit_interval(bits: np.ndarray) -> np.ndarray:
    return np.asarray((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def keyed_bits(*key: int | np.ndarray) -> np.ndarray:
    """64 random bits for each key; arrays in the key broadcast against each other.

    Args:
        key: non-negative integers or integer arrays, e.g. `seed, epoch, samples`.

    Returns:
        uint64 array of the broadcast shape.
    """
    return _absorbed(np.zeros((), dtype=np.uint64), *key)


def keyed_uniform(*key: int | np.ndarray) -> np.ndarray:
    """Uniform draws in [0, 1), float64, one for each key (see `keyed_bits`)."""
    return _in_unit_interval(keyed_bits(*key))


def keyed_normal(*key: int | np.ndarray) -> np.ndarray:
    """Standard normal draws, float64, one for each key (see `keyed_bits`): inverse transform sampling, within ±8.3.

    >>> keyed_normal(0, np.arange(2)).round(3).tolist()
    [0.392, -1.825]
    """
    return ndtri(keyed_uniform(*key) + 2.0**-54)  # the middle of each step, so that 0 is never asked


def keyed_permutation(size: int, *key: int) -> np.ndarray:
    """A permutation of 0 … size-1 that depends on the key alone (int64).

    >>> keyed_permutation(5, 0, 1).tolist() == keyed_permutation(5, 0, 1).tolist()
    True
    """
    return np.argsort(keyed_bits(*key, np.arange(size)), kind="stable")


@dataclass(frozen=True, eq=False)
class Draw:
    """The random numbers of a batch: what a sample draws depends on (seed, epoch, sample, stream) alone.

    Attributes:
        seed: of the run.
        epoch: which pass over the samples.
        samples: (B,) integers, which sample each row of the batch is, e.g. its index in the training split.

    Raises:
        InputError: `samples` is not one row of integers.

    >>> draw = Draw(0, 1, np.array([7, 3]))
    >>> bool((draw.uniform(5)[::-1] == Draw(0, 1, np.array([3, 7])).uniform(5)).all())
    True
    """

    seed: int
    epoch: int
    samples: np.ndarray

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or not np.issubdtype(self.samples.dtype, np.integer):
            raise InputError(
                f"samples must be one row of integers (B,), got {self.samples.dtype} of shape {self.samples.shape}"
            )

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def _state(self) -> np.ndarray:
        """The hash of (seed, epoch, sample), which every stream goes on from."""
        return keyed_bits(self.seed, self.epoch, self.samples)

    def bits(self, count: int, *stream: int) -> np.ndarray:
        """(B, count) uint64, 64 random bits each: column i is stream (*stream, i)."""
        return _absorbed(_absorbed(self._state, *stream)[:, None], np.arange(count))

    def uniform(self, *stream: int) -> np.ndarray:
        """(B,) float64 in [0, 1): `keyed_uniform(seed, epoch, samples, *stream)`."""
        return _in_unit_interval(_absorbed(self._state, *stream))

    def uniforms(self, count: int, *stream: int) -> np.ndarray:
        """(B, count) float64 in [0, 1): column i is `uniform(*stream, i)`."""
        return _in_unit_interval(self.bits(count, *stream))

    def take(self, rows: slice | np.ndarray) -> Draw:
        """The same draws for some rows of the batch: a slice, their indices or a mask."""
        part = Draw(self.seed, self.epoch, self.samples[rows])
        if "_state" in self.__dict__:
            part.__dict__["_state"] = self._state[rows]  # hashed already
        return part

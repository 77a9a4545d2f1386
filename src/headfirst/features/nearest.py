"""The k most similar features by cosine, exact and the same whatever the blocks, the threads or the machine's BLAS.

Two passes a block: a float32 matrix product finds every pair that can be among the k best, given how far it can be off;
those few pairs are computed again in float64, each sum in one fixed order. The first is fast, the second decides.

Shape letters: Q queries, N features, D their length, q n of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index as whole_number

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from headfirst.errors import DataError, InputError
from headfirst.types import Features

TIE = 2.0**-40
"""Cosines are compared in steps of this: what differs by less, as copies scaled differently do, is a tie."""

_QUERY_BLOCK, _FEATURE_BLOCK = 1024, 4096
_SMALL, _LARGE = 1e-15, 1e15  # norms whose squares and products float32 holds
_NUMBERS_TOGETHER = 2**22  # float64 numbers of a temporary: 32 MB


@dataclass(frozen=True, kw_only=True, eq=False)
class Nearest:
    """The k nearest features of each query, the most similar first.

    Attributes:
        indices: (Q, k) int64 rows of the features; of equal similarities the lower row comes first.
        similarities: (Q, k) float32 cosines in [-1, 1].
    """

    indices: Int64[Tensor, "q k"]
    similarities: Float32[Tensor, "q k"]


def nearest(
    queries: Tensor | Features,
    features: Tensor | Features,
    k: int,
    *,
    query_block: int | None = None,
    feature_block: int | None = None,
) -> Nearest:
    """Exact top-k by cosine: cos(q, f) = q·f / (‖q‖ ‖f‖).

    Rows of any norm are taken and normalised block by block; memory-mapped ones are read, never copied whole. Memory is
    bounded: a few blocks, and the result. The result does not depend on the blocks.

    Args:
        queries: (Q, D) of any floating type, or `Features`.
        features: (N, D) likewise.
        k: neighbours of each query, 1 … N.
        query_block, feature_block: rows taken at a time (None: as fits some 100 MB).

    Raises:
        InputError: `k` outside 1 … N, lengths that differ, not two-dimensional, not floating.
        DataError: a row that is zero or not finite; names the first.

    >>> found = nearest(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [2.0, 2.0], [3.0, 0.0]]), 2)
    >>> found.indices.tolist(), found.similarities.tolist()
    ([[2, 1]], [[1.0, 0.7071067690849304]])
    """
    q, f = Rows(queries, "queries"), Rows(features, "features")
    k = checked_k(q, f, k)
    q_block = _block_size("query_block", query_block, min(_QUERY_BLOCK, _NUMBERS_TOGETHER // max(k, q.length)))
    f_block = _block_size("feature_block", feature_block, min(_FEATURE_BLOCK, _NUMBERS_TOGETHER // f.length))
    return _together(
        [_of_block(q, begin, min(begin + q_block, len(q)), f, k, f_block) for begin in range(0, len(q), q_block)], k
    )


def ranked(queries: Tensor, features: Tensor, candidates: Sequence[np.ndarray], k: int) -> Nearest:
    """The k most similar of each query's own candidates (rows of `features`, at least k each), as `nearest` ranks."""
    which = np.repeat(np.arange(len(candidates)), [len(rows) for rows in candidates])
    rows = np.concatenate(candidates)
    none = _nothing(len(candidates))
    return _together([_merged(none, which, rows, _cosines(queries, which, features, rows), k)], k)


@dataclass(frozen=True)
class _Best:
    """The best so far of q queries: (q, m) rows and float64 cosines, m ≤ k of them, in their final order."""

    rows: np.ndarray
    cosines: np.ndarray


def _nothing(num_queries: int) -> _Best:
    return _Best(np.empty((num_queries, 0), dtype=np.int64), np.empty((num_queries, 0)))


def _together(found: Sequence[_Best], k: int) -> Nearest:
    rows = [best.rows for best in found] or [np.empty((0, k))]
    cosines = [best.cosines for best in found] or [np.empty((0, k))]
    return Nearest(
        indices=torch.from_numpy(np.concatenate(rows).astype(np.int64)),
        similarities=torch.from_numpy(np.concatenate(cosines).astype(np.float32)),
    )


class Rows:
    """(N, D) values with the name that refusals give them."""

    def __init__(self, given: Tensor | Features, name: str) -> None:
        self.name, self.ids = name, given.ids if isinstance(given, Features) else None
        values = given.values if isinstance(given, Features) else given
        if not isinstance(values, Tensor):
            raise InputError(f"{name} must be a tensor or Features, got {type(values).__name__}")
        if values.ndim != 2 or not values.is_floating_point() or values.shape[1] < 1:
            raise InputError(
                f"{name} must be a floating tensor of shape (number, length), "
                f"got {values.dtype} of shape {tuple(values.shape)}"
            )
        self.values = values.detach()

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def length(self) -> int:
        return self.values.shape[1]

    def measured(self, begin: int, stop: int) -> tuple[Tensor, Tensor]:
        """Rows begin … stop-1 for the fast pass: (n, D) and their norms (n,), both float32.

        Raises:
            DataError: one of them has no direction.
        """
        values = self.values[begin:stop].cpu()
        fast = values.float()
        norms = fast.norm(dim=1)
        if bool(((norms > _SMALL) & (norms < _LARGE)).all()):
            return fast, norms
        values = values.double()  # what is too large or too small to square in float32, or has no direction at all
        norms = values.norm(dim=1)
        wrong = torch.nonzero((norms == 0) | ~norms.isfinite()).flatten()
        if len(wrong):
            row = begin + int(wrong[0])
            named = f"row {row}" if self.ids is None else f"row {row}, {self.ids[row]!r},"
            raise DataError(
                f"cosine similarity needs finite rows of positive norm, but {named} of the {self.name} is "
                f"{'zero' if norms[row - begin] == 0 else 'not finite'}; check that image and what made its features"
            )
        return (values / norms[:, None]).float(), torch.ones(len(values))


def checked_k(queries: Rows, features: Rows, k: int) -> int:
    """`k`, if the features can be asked for so many.

    Raises:
        InputError: they cannot, or the lengths differ.
    """
    if queries.length != features.length:
        raise InputError(
            f"queries and features must have the same length, got {queries.length} and {features.length}; "
            "take both from the same backbone"
        )
    k = whole_number(k)
    if not 1 <= k <= len(features):
        raise InputError(f"k must be between 1 and the number of features, which is {len(features)}, got {k}")
    return k


def _block_size(name: str, asked: int | None, fitting: int) -> int:
    if asked is not None and asked < 1:
        raise InputError(f"{name} must be at least 1, got {asked}; None has it chosen")
    return max(1, fitting) if asked is None else asked


def _of_block(queries: Rows, begin: int, stop: int, features: Rows, k: int, block: int) -> _Best:
    """The k best of queries begin … stop-1 among all features."""
    values, norms = queries.measured(begin, stop)
    unit = values / norms[:, None]
    off = _largest_error(queries.length)
    best = _nothing(len(unit))
    for first in range(0, len(features), block):
        values, norms = features.measured(first, min(first + block, len(features)))
        coarse = (unit @ values.T).div_(norms)
        which, rows = _candidates(coarse, best, k, off)
        rows = rows + first
        cosines = _cosines(queries.values[begin:stop], which, features.values, rows)
        best = _merged(best, which, rows, cosines, k)
    return best


def _largest_error(length: int) -> float:
    """How far the fast pass can be from a cosine: the rounding of both rows (to bfloat16 where torch was told that it
    may), the sums of D of a product and two norms, and a little for the comparison itself."""
    rounding = 2.0**-22 if torch.get_float32_matmul_precision() == "highest" else 2.0**-7
    return rounding + 1.01 * (2 * length + 8) * 2.0**-24


def _candidates(coarse: Tensor, best: _Best, k: int, off: float) -> tuple[np.ndarray, np.ndarray]:
    """(which query, which column) of every pair of the block that can be among its query's k best."""
    least = torch.full((len(coarse), 1), -torch.inf)
    if coarse.shape[1] >= k:  # k of this very block are surely at least that good
        least = coarse.topk(k, dim=1).values[:, -1:] - 2 * off
    if best.cosines.shape[1] == k:
        least = torch.maximum(least, torch.from_numpy(best.cosines[:, -1:] - off).float())
    which, rows = torch.nonzero(coarse >= least, as_tuple=True)
    return which.numpy(), rows.numpy()


def _cosines(queries: Tensor, which: np.ndarray, features: Tensor, rows: np.ndarray) -> np.ndarray:
    """Cosine of each pair in float64, in steps of `TIE`; a pair's bits depend on the pair alone."""
    cosines = np.empty(len(rows))
    together = max(1, _NUMBERS_TOGETHER // (4 * queries.shape[1]))
    for begin in range(0, len(rows), together):
        pairs = slice(begin, begin + together)
        a = queries[torch.from_numpy(which[pairs])].cpu().double()
        b = features[torch.from_numpy(rows[pairs])].cpu().double()
        cosine = _sum(a * b) / (_sum(a * a).sqrt() * _sum(b * b).sqrt())
        cosines[pairs] = ((cosine / TIE).round() * TIE).clamp(-1, 1).numpy()
    return cosines


def _sum(values: Tensor) -> Tensor:
    """(n, D) → (n,): halves added element by element until one is left. Unlike a BLAS or a threaded sum, an
    elementwise addition gives the same bits for a row whatever stands beside it."""
    while (length := values.shape[1]) > 1:
        half = length // 2
        added = values[:, :half] + values[:, half : 2 * half]
        values = torch.cat([added, values[:, 2 * half :]], dim=1) if length % 2 else added
    return values[:, 0]


def _merged(best: _Best, which: np.ndarray, rows: np.ndarray, cosines: np.ndarray, k: int) -> _Best:
    """The k best of what was best and the block's candidates: by falling cosine, then by rising row."""
    num, kept = best.rows.shape
    which = np.concatenate([np.repeat(np.arange(num), kept), which])
    rows, cosines = np.concatenate([best.rows.ravel(), rows]), np.concatenate([best.cosines.ravel(), cosines])
    order = np.lexsort((rows, -cosines, which))
    counts = np.bincount(which, minlength=num)
    place = np.arange(len(which)) - np.repeat(counts.cumsum() - counts, counts)
    # Every query has at least min(k, features seen) candidates, so the rows of the table are equally long.
    order = order[place < k]
    return _Best(rows[order].reshape(num, -1), cosines[order].reshape(num, -1))

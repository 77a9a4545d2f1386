"""Neighbours without looking at every feature: a graph proposes, exact cosines rank, and what it misses is measured.

The graph is a hierarchical navigable small world (Malkov and Yashunin, IEEE TPAMI 2020) by usearch, the extra `index`.
Each feature is kept in 16 bits there and only to find candidates: similarities and their order are those of `nearest`.

Shape letters: Q queries, N features, D their length, P candidates of a query.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headfirst.errors import InputError
from headfirst.features.nearest import Nearest, Rows, checked_k, nearest, ranked
from headfirst.metrics.intervals import UNIT, Interval, bootstrap_interval
from headfirst.randomness import keyed_permutation
from headfirst.types import Features, Progress, silent

PAYS_FROM = 1_000_000
"""Features from which the graph is worth its memory and the time of building it."""

_NEIGHBOURS, _BREADTH = 16, 128  # of a node; of the search for them while building
_POOL = 128  # candidates, at least
_TOGETHER, _QUERIES = 8192, 1024
_STREAM = 0x7265_6361_6C6C  # keeps the sample of queries apart from other draws of the seed


class Graph:
    """The graph of some features; it holds their rows' numbers, not who they are.

    Made by `build`, or by `load` of what `save` wrote.
    """

    def __init__(self, index: Any) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    @classmethod
    def build(cls, features: Tensor | Features, *, threads: int = 0, progress: Progress = silent) -> Graph:
        """The graph of (N, D) features.

        Args:
            threads: 0: all cores. With one, the same features give the same graph.

        Raises:
            InputError: usearch is not installed.
            DataError: a row that is zero or not finite.
        """
        rows = Rows(features, "features")
        index = _usearch().Index(
            ndim=rows.length, metric="cos", dtype="f16", connectivity=_NEIGHBOURS, expansion_add=_BREADTH
        )
        for begin in range(0, len(rows), _TOGETHER):
            progress("building the graph", begin, len(rows))
            stop = min(begin + _TOGETHER, len(rows))
            index.add(np.arange(begin, stop, dtype=np.uint64), _unit(rows, begin, stop), threads=threads)
        progress("building the graph", len(rows), len(rows))
        return cls(index)

    def nearest(self, queries: Tensor | Features, features: Tensor | Features, k: int, *, threads: int = 0) -> Nearest:
        """The k most similar of the candidates that the graph proposes, ranked by exact cosines.

        Args:
            queries: (Q, D).
            features: those the graph was built of.
            k: 1 … N.

        Raises:
            InputError, DataError: as `nearest`; or another number of features.
        """
        asked, rows = Rows(queries, "queries"), Rows(features, "features")
        k = checked_k(asked, rows, k)
        if len(rows) != len(self):
            raise InputError(f"the graph is of {len(self)} features, got {len(rows)}; build it anew")
        self._index.expansion_search = pool = min(len(rows), max(_POOL, 4 * k))
        found = [nearest(asked.values[:0], rows.values, k)]
        for begin in range(0, len(asked), _QUERIES):
            some = asked.values[begin : begin + _QUERIES]
            proposed = self._proposed(_unit(asked, begin, begin + len(some)), pool, threads)
            short = any(len(candidates) < k for candidates in proposed)  # a graph can be; nothing is made up then
            found.append(nearest(some, rows.values, k) if short else ranked(some, rows.values, proposed, k))
        return Nearest(
            indices=torch.cat([part.indices for part in found]),
            similarities=torch.cat([part.similarities for part in found]),
        )

    def _proposed(self, unit: np.ndarray, pool: int, threads: int) -> list[np.ndarray]:
        matches = self._index.search(unit, pool, threads=threads)
        if len(unit) == 1:  # usearch answers one query in another form
            return [matches.keys.astype(np.int64)]
        return [
            keys[:count].astype(np.int64) for keys, count in zip(matches.keys, matches.counts.tolist(), strict=True)
        ]

    def save(self, path: Path) -> None:
        """Writes the graph to `path`."""
        self._index.save(str(path))

    @classmethod
    def load(cls, path: Path) -> Graph:
        """What `save` wrote, memory-mapped. The file must be known to be whole: it is not checked here.

        Raises:
            InputError: usearch is not installed.
        """
        return cls(_usearch().Index.restore(str(path), view=True))


def recall(found: Nearest, exact: Nearest) -> Tensor:
    """(Q,) float64: the share of each query's k exact neighbours that was found, in [0, 1].

    What is as similar as the k-th exact neighbour counts as found, whichever of equals it is.
    """
    return (found.similarities >= exact.similarities[:, -1:]).double().mean(dim=1)


def measured_recall(
    graph: Graph, features: Tensor | Features, *, k: int = 10, num_queries: int = 256, seed: int = 0
) -> Interval:
    """Mean recall of the graph's k neighbours, for random features as queries, with its 95 % interval.

    A query is not counted as its own neighbour: that one every graph finds.
    """
    rows = Rows(features, "features")
    k = min(k, len(rows) - 1)
    if k < 1:
        raise InputError("recall needs at least two features, got 1")
    order = torch.from_numpy(np.sort(keyed_permutation(len(rows), seed, _STREAM)[:num_queries]))
    queries = rows.values[order]
    others = [_without(order, graph.nearest(queries, rows.values, k + 1), k)]
    others.append(_without(order, nearest(queries, rows.values, k + 1), k))
    return bootstrap_interval(recall(*others)[None], seed=seed, bounds=UNIT)


def _without(own: Tensor, found: Nearest, k: int) -> Nearest:
    """`found` without each query's own row; where it is not there, without the last."""
    keep = found.indices != own[:, None]
    keep[keep.all(dim=1), -1] = False
    return Nearest(indices=found.indices[keep].reshape(-1, k), similarities=found.similarities[keep].reshape(-1, k))


def _unit(rows: Rows, begin: int, stop: int) -> np.ndarray:
    values, norms = rows.measured(begin, stop)
    return (values / norms[:, None]).numpy()


def _usearch() -> Any:
    try:
        return import_module("usearch.index")
    except ImportError as error:
        raise InputError("an approximate index needs usearch; pip install 'headfirst[index]'") from error

"""How well two sets of embeddings find each other, and how they lie on the sphere.

Row i of one set and row i of the other are a pair. All rows have unit norm; similarities are made in float64, a block
of rows at a time.

Shape letters: N pairs, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.errors import InputError
from headfirst.metrics.checks import as_float64, check_features

_BLOCK = 2**20  # similarities held at a time
_NORM_TOLERANCE = 1e-3
_TIE = 1e-12  # products of the same rows may differ in their last bits


def retrieval_ranks(
    queries: Float[Tensor, "n d"], candidates: Float[Tensor, "n d"], *, groups: Int[Tensor, " n"] | None = None
) -> Int[Tensor, " n"]:
    """(N,) how many strangers are at least as similar to each query as its most similar partner; 0 is a find.

    Ties count against: embeddings that are all the same find nothing.

    Args:
        queries: (N, D) unit rows.
        candidates: (N, D) unit rows; the partner of query i is row i, and every other row of its group.
        groups: (N,) which pairs belong together, e.g. because their captions are the same.

    Raises:
        InputError: no rows, rows that are not finite or not of unit norm.

    >>> retrieval_ranks(torch.eye(3), torch.eye(3)[[0, 2, 1]])
    tensor([0, 2, 2])
    """
    q, c = _unit(queries), _unit(candidates)
    named = torch.arange(len(q)) if groups is None else groups.cpu()
    ranks = []
    for block, similarities in _blocks(q, c):
        partner = named[block, None] == named
        best = similarities.masked_fill(~partner, -torch.inf).amax(dim=1, keepdim=True)
        ranks.append(((similarities >= best - _TIE) & ~partner).sum(dim=1))
    return torch.cat(ranks)


def retrieval_recall(
    queries: Float[Tensor, "n d"],
    candidates: Float[Tensor, "n d"],
    k: int,
    *,
    groups: Int[Tensor, " n"] | None = None,
) -> float:
    """Recall at k: the share of queries with a partner among their k most similar candidates, in [0, 1].

    Args:
        queries, candidates, groups: as for `retrieval_ranks`.
        k: at least 1.

    Raises:
        InputError: as for `retrieval_ranks`; k below 1.

    >>> retrieval_recall(torch.eye(3), torch.eye(3)[[0, 2, 1]], 1)
    0.3333333333333333
    """
    if k < 1:
        raise InputError(f"recall is asked among at least 1 candidate, got k={k}")
    return (retrieval_ranks(queries, candidates, groups=groups) < k).double().mean().item()


def alignment(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> float:
    """Mean over pairs of ‖a_i - b_i‖², in [0, 4]; 0 where partners coincide.

    Raises:
        InputError: no rows, rows that are not finite or not of unit norm.

    Source: Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", ICML 2020, section 4.2, with α = 2.

    >>> alignment(torch.eye(2), -torch.eye(2))
    4.0
    """
    return (_unit(a) - _unit(b)).square().sum(dim=1).mean().item()


def uniformity(rows: Float[Tensor, "n d"], t: float = 2.0) -> float:
    """log of the mean over pairs of rows of exp(-t ‖x_i - x_j‖²), at most 0, which is where all rows are the same.

    Rows spread evenly over a sphere of many dimensions approach -2t.

    Args:
        rows: (N, D) unit rows, N at least 2.
        t: positive.

    Raises:
        InputError: fewer than two rows, rows that are not finite or not of unit norm, t not positive.

    Source: Wang and Isola, ICML 2020, section 4.2.

    >>> uniformity(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    -4.0
    """
    if len(rows) < 2 or not t > 0:
        raise InputError(f"uniformity needs at least two rows and a positive t, got {len(rows)} rows and t={t}")
    x = _unit(rows)
    sums = [
        torch.logsumexp((2 * t * (cosines - 1))[~_diagonal(block, cosines)], dim=0) for block, cosines in _blocks(x, x)
    ]
    pairs = torch.tensor(len(x) * (len(x) - 1), dtype=torch.float64)
    return (torch.logsumexp(torch.stack(sums), dim=0) - pairs.log()).clamp(max=0.0).item()


def modality_gap(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> float:
    """‖mean of a - mean of b‖, in [0, 2]: how far the two kinds of embeddings lie apart as clouds.

    Raises:
        InputError: no rows, rows that are not finite or not of unit norm.

    Source: Liang, Zhang, Kwon, Yeung and Zou, "Mind the Gap", NeurIPS 2022, section 4.2.

    >>> modality_gap(torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]]))
    2.0
    """
    return torch.linalg.vector_norm(_unit(a).mean(dim=0) - _unit(b).mean(dim=0)).item()


def _unit(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    check_features(rows)
    rows = as_float64(rows)
    norms = torch.linalg.vector_norm(rows, dim=1)
    off = (norms - 1).abs() > _NORM_TOLERANCE
    if off.any():
        row = int(off.nonzero()[0])
        raise InputError(f"embeddings must have unit norm, but row {row} has {norms[row].item():.4g}; normalise them")
    return rows / norms[:, None]


def _blocks(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    rows = max(1, _BLOCK // len(b))
    for start in range(0, len(a), rows):
        yield slice(start, start + rows), a[start : start + rows] @ b.T


def _diagonal(block: slice, cosines: Tensor) -> Tensor:
    rows, columns = torch.arange(len(cosines))[:, None] + block.start, torch.arange(cosines.shape[1])
    return rows == columns

"""Euclidean neighbours between two sets of features, a block of rows at a time and exact where it matters.

A matrix product gives every squared distance up to rounding; those that decide (the neighbour found, and whatever
lies on the edge of a ball) are computed again from the difference, so that a copy is at distance 0 and on the edge
of the balls that its original is on the edge of.

Shape letters: N and M images, D features, B of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headfirst.metrics.checks import as_float64
from headfirst.metrics.distances import check_pair

TIE = 1e-12
"""Squared distances that differ by less, relatively, are equal."""

_BLOCK = 2**20  # squared distances held at a time: 8 MB
_NUMBERS = 2**22  # float64 numbers of differences held at a time: 32 MB
_LIMIT = 1e300


@dataclass(frozen=True, kw_only=True, eq=False)
class Nearest:
    """The nearest row of another set: its index (N,) and the squared distance (N,)."""

    indices: Int[Tensor, " n"]
    squared: Float[Tensor, " n"]


def in_one_frame(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m e"], *, least: int = 1
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"], float]:
    """Both sets in float64, moved by one vector and divided by one number, which comes third.

    Distances keep their order, no square overflows, and a far-off mean costs no digits.
    """
    check_pair(a, b, limit=_LIMIT, least=least)
    scale = max(a.abs().max().item(), b.abs().max().item()) or 1.0
    x, y = as_float64(a) / scale, as_float64(b) / scale
    centre = x.mean(dim=0)
    x, y = x - centre, y - centre
    spread = max(x.abs().max().item(), y.abs().max().item()) or 1.0
    return x / spread, y / spread, scale * spread


def nearest_of(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Nearest:
    """The row of b nearest to each row of a."""
    indices = torch.cat([squared.argmin(dim=1) for _, squared in blocks(a, b)])
    return Nearest(indices=indices, squared=paired(a, b, torch.arange(len(a)), indices))


def nearest_two(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> tuple[Nearest, Nearest]:
    """The two rows of b nearest to each row of a; b has at least two."""
    indices = torch.cat([squared.topk(2, dim=1, largest=False).indices for _, squared in blocks(a, b)])
    own = torch.arange(len(a))
    both = torch.stack([paired(a, b, own, indices[:, i]) for i in range(2)], dim=1)
    order = both.argsort(dim=1, stable=True)
    both, indices = both.gather(1, order), indices.gather(1, order)
    first, second = (Nearest(indices=indices[:, i], squared=both[:, i]) for i in range(2))
    return first, second


def kth_of_others(x: Float[Tensor, "n d"], k: int) -> Float[Tensor, " n"]:
    """(N,) the squared distance of each row to its k-th nearest other row."""
    found = []
    for rows, squared in blocks(x, x):
        squared.diagonal(rows.start).fill_(torch.inf)
        found.append(squared.topk(k, dim=1, largest=False).indices[:, -1])
    return paired(x, x, torch.arange(len(x)), torch.cat(found))


def in_balls(
    points: Float[Tensor, "n d"], centres: Float[Tensor, "m d"], radii: Float[Tensor, " m"]
) -> Iterator[tuple[slice, Bool[Tensor, "b m"]]]:
    """Which points (block by block) lie in the closed balls of squared `radii` about the centres."""
    norms = centres.square().sum(dim=1)
    for rows, squared in blocks(points, centres):
        doubt = TIE * (points[rows].square().sum(dim=1)[:, None] + norms)
        beyond = squared.sub_(radii)
        inside = beyond <= 0
        at, of = (beyond.abs_() <= doubt).nonzero(as_tuple=True)
        if len(at):
            inside[at, of] = paired(points, centres, at + rows.start, of) <= radii[of] * (1 + TIE)
        yield rows, inside


def blocks(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Iterator[tuple[slice, Float[Tensor, "b m"]]]:
    """Squared distances of some rows of a to all of b, up to rounding."""
    norms = b.square().sum(dim=1)
    height = max(1, _BLOCK // len(b))
    for start in range(0, len(a), height):
        some = a[start : start + height]
        squared = torch.addmm(norms, some, b.T, alpha=-2).add_(some.square().sum(dim=1)[:, None])
        yield slice(start, start + len(some)), squared.clamp_(min=0.0)


def paired(a: Tensor, b: Tensor, at: Int[Tensor, " p"], of: Int[Tensor, " p"]) -> Float[Tensor, " p"]:
    """‖a_at - b_of‖² for each pair, from the difference."""
    height = max(1, _NUMBERS // a.shape[1])
    found = [
        (a[some] - b[other]).square().sum(dim=1) for some, other in zip(at.split(height), of.split(height), strict=True)
    ]
    return torch.cat(found) if found else a.new_zeros(0)

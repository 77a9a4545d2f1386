"""How much of a jigsaw the edges of its tiles give away.

An image is cut into 3×3 tiles. Of each tile with a right-hand neighbour, the neighbour is sought among the other eight
by the least squared difference between its right column and their left ones; likewise downwards: 12 pairs an image.
A pair is found where the true neighbour fits best; of m that fit equally well, 1/m of it. Chance is 1/8.

Shape letters: B batch, H W pixels, T = 9 tiles, L pixels of an edge.
Source: that edges solve it unless a gap is left, Doersch, Gupta & Efros, Unsupervised Visual Representation Learning by
Context Prediction (ICCV 2015), section 4.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

GRID = 3
CHANCE = 1 / (GRID * GRID - 1)

_PLACES = torch.arange(GRID * GRID).reshape(GRID, GRID)
_RIGHTWARDS = (_PLACES[:, :-1].flatten(), _PLACES[:, 1:].flatten())
_DOWNWARDS = (_PLACES[:-1].flatten(), _PLACES[1:].flatten())


def pairs_found(images: UInt8[Tensor, "b 3 h w"], gap: int) -> Float[Tensor, " b"]:
    """Share of each image's 12 neighbouring pairs that the best edge match finds, float64 in [0, 1].

    Args:
        images: at least 2 · GRID pixels a side; what does not divide by GRID is cut off right and below.
        gap: pixels left out between neighbouring tiles, less than a third of the shorter side.
    """
    height, width = (size // GRID for size in images.shape[2:])
    before = gap // 2
    after = gap - before  # so that neighbours are `gap` apart
    cells = (
        images[:, :, : GRID * height, : GRID * width].float().unflatten(2, (GRID, height)).unflatten(4, (GRID, width))
    )
    tiles = cells.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)[..., before : height - after, before : width - after]
    right = _found(tiles[..., -1].flatten(2), tiles[..., 0].flatten(2), *_RIGHTWARDS)
    down = _found(tiles[..., -1, :].flatten(2), tiles[..., 0, :].flatten(2), *_DOWNWARDS)
    return torch.cat([right, down], dim=1).mean(dim=1)


def _found(
    ends: Float[Tensor, "b t l"], starts: Float[Tensor, "b t l"], of: Tensor, neighbour: Tensor
) -> Float[Tensor, "b p"]:
    # Differences, not products of sums: equal edges must differ by exactly nothing.
    distance = (ends[:, of, None] - starts[:, None]).double().square().mean(dim=3)  # (B, P, T)
    distance[:, torch.arange(len(of)), of] = torch.inf  # a tile is not its own neighbour
    best = distance.amin(dim=2, keepdim=True)
    fits = distance == best
    true = fits.gather(2, neighbour.expand(len(ends), -1)[:, :, None])[:, :, 0]
    return true.double() / fits.sum(dim=2)

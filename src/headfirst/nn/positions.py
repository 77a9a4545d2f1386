"""Where a patch is: fixed position embeddings of a grid.

Shape letters: L patches, D features.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def sine_cosine(grid: tuple[int, int], dim: int) -> Float[Tensor, "l d"]:
    """Two-dimensional position embeddings: a quarter each of sines and cosines of the row and of the column.

    Args:
        grid: rows and columns of patches, L in all, numbered row by row.
        dim: D, a multiple of 4.

    Source: Chen, Xie & He, "An Empirical Study of Training Self-Supervised Vision Transformers", ICCV 2021, section 4;
    frequencies of Vaswani et al., 2017.
    """
    omega = 1 / 10000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    angles = [place.reshape(-1, 1) * omega for place in (rows, columns)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1).float()

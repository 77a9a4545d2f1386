"""Pictures of one size side by side, as one PNG that shows every pixel as it is.

Shape letters: N pictures, H W pixels of each.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from headfirst.errors import InputError

READABLE = 56  # pixels a side that a picture has on a screen at least


def picture_grid(pixels: UInt8[Tensor, "n 3 h w"], *, columns: int, gap: int = 1) -> UInt8[np.ndarray, "y x 4"]:
    """Row by row, RGBA; what lies between the pictures, or after the last, is transparent.

    Raises:
        InputError: no picture, no column, a gap below 0.

    >>> import torch
    >>> picture_grid(torch.zeros(3, 3, 4, 5, dtype=torch.uint8), columns=2).shape        # 2 · 4 + 1 by 2 · 5 + 1
    (9, 11, 4)
    """
    if not len(pixels) or columns < 1 or gap < 0:
        raise InputError(f"a grid needs a picture, a column and a gap ≥ 0, got {len(pixels)}, {columns} and {gap}")
    n, _, h, w = pixels.shape
    rows, columns = -(-n // columns), min(columns, n)
    grid = np.zeros((rows * (h + gap) - gap, columns * (w + gap) - gap, 4), dtype=np.uint8)
    for i, picture in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
        y, x = (i // columns) * (h + gap), (i % columns) * (w + gap)
        grid[y : y + h, x : x + w, :3] = picture
        grid[y : y + h, x : x + w, 3] = 255
    return grid


def png(pixels: UInt8[np.ndarray, "h w c"], *, enlarge: int = 1) -> bytes:
    """RGB or RGBA as a PNG file; each pixel becomes enlarge × enlarge."""
    large = pixels.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(large).save(buffer, format="PNG")
    return buffer.getvalue()


def readable_png(pixels: UInt8[Tensor, "n 3 h w"], *, columns: int) -> bytes:
    """A grid as a PNG file in which small pictures are enlarged, by a whole number."""
    enlarge = max(1, -(-READABLE // pixels.shape[3]))
    return png(picture_grid(pixels, columns=columns), enlarge=enlarge)


def inline_png(pixels: UInt8[np.ndarray, "h w c"]) -> str:
    """The picture as a `data:image/png;base64,…` address."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()

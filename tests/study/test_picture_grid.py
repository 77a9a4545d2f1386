"""Every pixel of every picture is in the grid, at its place; gaps are transparent."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from headfirst.errors import InputError
from headfirst.study.picture_grid import inline_png, picture_grid, png, readable_png


def test_places_and_gaps():
    pixels = torch.arange(5 * 3 * 4 * 6).remainder(251).to(torch.uint8).reshape(5, 3, 4, 6)
    grid = picture_grid(pixels, columns=2, gap=3)
    assert grid.shape == (3 * 4 + 2 * 3, 2 * 6 + 3, 4)
    for i in range(5):
        y, x = i // 2 * 7, i % 2 * 9
        assert np.array_equal(grid[y : y + 4, x : x + 6, :3], pixels[i].permute(1, 2, 0).numpy())
    assert int((grid[..., 3] == 255).sum()) == 5 * 4 * 6
    assert set(np.unique(grid[..., 3])) == {0, 255}
    assert picture_grid(pixels[:1], columns=9).shape == (4, 6, 4)


def test_png_is_exact_and_small_pictures_are_enlarged_whole():
    pixels = torch.randint(0, 256, (3, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    grid = picture_grid(pixels, columns=2)
    address = inline_png(grid)
    assert address.startswith("data:image/png;base64,")
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))
    assert np.array_equal(back, grid)
    large = np.asarray(Image.open(io.BytesIO(readable_png(pixels, columns=2))))
    assert large.shape == (41 * 3, 41 * 3, 4)
    assert np.array_equal(large[::3, ::3], grid)
    assert np.array_equal(large[2::3, 2::3], grid)
    assert readable_png(pixels, columns=2) == readable_png(pixels, columns=2)
    assert Image.open(io.BytesIO(png(np.zeros((70, 80, 3), np.uint8)))).size == (80, 70)


@pytest.mark.parametrize("wrong", [{"columns": 0}, {"columns": 1, "gap": -1}])
def test_refusals(wrong: dict[str, int]):
    with pytest.raises(InputError, match="a grid needs a picture"):
        picture_grid(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), **wrong)
    with pytest.raises(InputError, match="got 0, 1 and 1"):
        picture_grid(torch.zeros(0, 3, 2, 2, dtype=torch.uint8), columns=1)

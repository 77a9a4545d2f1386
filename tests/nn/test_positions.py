"""Fixed positions of a grid of patches, against the formula one number at a time."""

from __future__ import annotations

import math

import pytest
import torch

from headfirst.nn import sine_cosine


@pytest.mark.parametrize(("grid", "dim"), [((2, 3), 8), ((8, 8), 96), ((1, 5), 4)])
def test_a_quarter_each_of_sines_and_cosines_of_row_and_column(grid, dim):
    quarter = dim // 4
    expected = [
        [
            (math.sin, math.cos)[part % 2]((row, column)[part // 2] / 10000 ** (i / quarter))
            for part in range(4)
            for i in range(quarter)
        ]
        for row in range(grid[0])
        for column in range(grid[1])
    ]
    torch.testing.assert_close(sine_cosine(grid, dim), torch.tensor(expected), rtol=1e-6, atol=1e-7)

"""Where a view looks: crop, mirror, turn and shear as one affine map an image, and one `grid_sample` that follows it.

Places are counted as `grid_sample` counts: the image's edges are -1 and 1. Shape letters: B batch, C channels,
H W pixels of the image, h w of the view.
"""

from __future__ import annotations

from functools import reduce
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

_SLACK = 0.25
"""Bilinear sampling still reads every pixel when its places lie this much further than a pixel apart."""


def crop_extents(
    area: Float64[np.ndarray, " b"],
    stretch: Float64[np.ndarray, " b"],
    left: Float64[np.ndarray, " b"],
    top: Float64[np.ndarray, " b"],
) -> Float64[np.ndarray, "b 2 2"]:
    """For x and y, each crop's half-length and its centre in [-1, 1]: (B, 2, 2).

    Args:
        area: (B,) shares of the image's area, in (0, 1].
        stretch: (B,) width over height, as shares of the image's. Where a long crop would stick out, it is cut to
            the image and keeps its area.
        left, top: (B,) in [0, 1], where the crop lies in the room it has.
    """
    x, y = np.sqrt(area * stretch), np.sqrt(area / stretch)
    x, y = np.clip(x, area, 1), np.clip(y, area, 1)
    return np.stack(
        [np.stack([x, (2 * left - 1) * (1 - x)], axis=1), np.stack([y, (2 * top - 1) * (1 - y)], axis=1)], axis=1
    )


def affine_maps(
    windows: Float64[np.ndarray, "b 2 2"],
    *,
    angle: Float64[np.ndarray, " b"],
    lean: Float64[np.ndarray, " b"],
    mirrored: np.ndarray,
    shape: tuple[int, int],
) -> Float64[np.ndarray, "b 2 3"]:
    """The maps (B, 2, 3) from a place in the view to the place in the image that it shows.

    Pixels stay square under the turn and the shear, whatever the image's shape. Turn and shear are about the
    window's centre.

    Args:
        windows: for x and y, half-length and centre, as `crop_extents` gives them.
        angle: (B,) radians by which the picture turns counter-clockwise.
        lean: (B,) columns a row by which the picture is sheared, to the right at its top.
        mirrored: (B,) bool, left and right exchanged.
        shape: height and width of the image.

    >>> whole = np.array([[[1.0, 0.0], [1.0, 0.0]]])
    >>> none = np.zeros(1)
    >>> affine_maps(whole, angle=none, lean=none, mirrored=none > 0, shape=(4, 6))[0].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    height, width = shape
    cos, sin = np.cos(angle), np.sin(angle)
    across, down = np.where(mirrored, -1, 1) * windows[:, 0, 0], windows[:, 1, 0]
    # The view's place is scaled to the window, sheared, then turned.
    x = [cos * across, (cos * lean - sin) * down * (height / width), windows[:, 0, 1]]
    y = [sin * across * (width / height), (sin * lean + cos) * down, windows[:, 1, 1]]
    return np.stack([np.stack(x, axis=1), np.stack(y, axis=1)], axis=1)


def resample(
    images: Float32[Tensor, "b c H W"],
    maps: Float64[np.ndarray, "b 2 3"],
    size: tuple[int, int],
    *,
    padding: Literal["border", "reflection", "zeros"],
    wobble: Float32[Tensor, "b 2 n m"] | None = None,
) -> Float32[Tensor, "b c h w"]:
    """What the maps show of the images, bilinear, in one `grid_sample`.

    Where a view shrinks its image, several places a pixel are read and averaged: as many along each side that they
    lie at most 1.25 of the image's pixels apart, so that none is passed over. Each image is sampled as its own map
    asks, whatever its batch.

    Args:
        images: (B, C, H, W).
        maps: (B, 2, 3), of `affine_maps`.
        size: h and w.
        padding: what lies outside the image, as `grid_sample` has it.
        wobble: (B, 2, n, m) displacements in x and y at n × m knots, cubic in between, or None.

    Returns:
        (B, C, h, w), contiguous.
    """
    taps = taps_needed(maps, (images.shape[2], images.shape[3]), size)
    if (taps == 1).all():
        return _sampled(images, maps, size, padding, wobble)
    views = images.new_empty(len(images), images.shape[1], *size)
    for down, across in np.unique(taps, axis=0).tolist():
        alike = np.flatnonzero((taps == (down, across)).all(axis=1))
        rows = torch.from_numpy(alike).to(images.device)
        fine = (size[0] * down, size[1] * across)
        shown = _sampled(images[rows], maps[alike], fine, padding, wobble[rows] if wobble is not None else None)
        views[rows] = avg_pool2d(shown, (down, across))
    return views


def taps_needed(
    maps: Float64[np.ndarray, "b 2 3"], shape: tuple[int, int], size: tuple[int, int]
) -> Int64[np.ndarray, "b 2"]:
    """(B, 2): how many places down and across to read for each pixel of the view; 1 where it does not shrink."""
    pixels = maps[:, :, :2] * np.array(shape[::-1])[:, None]  # the image's, along x and y, for each half of a view
    steps = np.sqrt((pixels**2).sum(axis=1)) / np.array(size[::-1])
    return np.maximum(1, np.ceil(steps[:, ::-1] - _SLACK)).astype(np.int64)


def _sampled(images: Tensor, maps: np.ndarray, size: tuple[int, int], padding: str, wobble: Tensor | None) -> Tensor:
    height, width = size
    x, y = (((torch.arange(n, dtype=torch.float32) * 2 + 1) / n - 1) for n in (width, height))  # pixel centres
    by_x, by_y, centre = torch.from_numpy(maps).to(torch.float32)[..., None].unbind(dim=2)
    # The centre goes with the term that is there without a turn, so that a plain crop rounds once.
    across = torch.complex(by_x[:, 0] * x + centre[:, 0], by_x[:, 1] * x).to(images.device)
    down = torch.complex(by_y[:, 0] * y, by_y[:, 1] * y + centre[:, 1]).to(images.device)
    # Sums of rows and columns, places as complex numbers: affine_grid would do the same many times slower.
    grid = torch.view_as_real(across[:, None, :] + down[:, :, None])
    if wobble is not None:
        grid += _smooth(wobble, size).permute(0, 2, 3, 1)
    return grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def _smooth(knots: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 2, n, m) to (B, 2, h, w), bicubic, one side after the other: several times as fast as `interpolate`."""
    for dim, length in zip((2, 3), size, strict=True):
        count = knots.shape[dim]
        ones = torch.eye(count)[None, :, :, None]  # how each knot shapes the curve
        curves = interpolate(ones, size=(length, 1), mode="bicubic", align_corners=False)[0].to(knots.device)
        curves = curves if dim == 2 else curves.transpose(1, 2)
        terms = (knots.narrow(dim, i, 1) * curves[i] for i in range(count))
        knots = reduce(Tensor.add_, terms)
    return knots

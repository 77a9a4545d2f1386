"""Random views of handwriting, a batch at a time: as another hand would have written it, and another scanner read it.

Shape letters: B batch, H W pixels of the image, h w of the view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from headfirst.data.geometry import affine_maps, crop_extents, resample
from headfirst.data.ink import dilated, eroded
from headfirst.data.views import blocks, new_views, require_range, require_view, require_within
from headfirst.errors import InputError
from headfirst.randomness import Draw

_KNOTS = 5
_STREAM, _ELASTIC, _NOISE = 0x48414E44, 0x454C4153, 0x4E4F4953
_NAMES = (
    *("angle", "lean", "width", "height", "left", "top", "area", "elastic"),
    *("thicker", "thickness", "thinner", "thinness", "gamma", "contrast", "noise"),
)


@dataclass(frozen=True, kw_only=True)
class Handwriting:
    """How a view of white writing on black may differ from its image, by default as `builtin/glyph` was taught.

    Attributes:
        degrees: turned by up to so much to either side.
        shear: columns a row by which it leans, up to so much to either side.
        scale: width, and on its own height, of what is seen, as shares of the image's; log-uniform.
        shift: moved by up to this share of half of each side; what lies beyond the image is black.
        elastic: displacement at 5 × 5 knots in halves of a side, normal, smooth in between (after Simard et al.,
            ICDAR 2003); its deviation is uniform up to this.
        thicker_probability, thinner_probability: how often strokes are dilated, and eroded, by up to a pixel, and
            by up to 0.6.
        cells: for each coarser scan, how many cells a side it averages, and how often it is made. Averages of 8 × 8
            cells are how the UCI digits came to be (Alpaydin & Kaynak, 1998).
        gamma: log γ is uniform up to this to either side, and ink c becomes about c^γ: exactly so at 0, 1/2 and 1, and
            in between on Schlick's curve ("Fast alternatives to Perlin's bias and gain functions", Graphics Gems IV,
            1994), whose multiplications and divisions round alike in every batch.
        contrast: ink times a factor, uniform in this range.
        noise: deviation of normal noise a pixel, uniform up to this.

    Raises:
        InputError: a range or a probability that cannot be.
    """

    degrees: float = 17.2
    shear: float = 0.3
    scale: tuple[float, float] = (0.74, 1.28)
    shift: float = 0.2
    elastic: float = 0.12
    thicker_probability: float = 0.4
    thinner_probability: float = 0.3
    cells: tuple[tuple[int, float], ...] = ((16, 0.3), (8, 0.4))
    gamma: float = 0.6
    contrast: tuple[float, float] = (0.6, 1.0)
    noise: float = 0.1

    def __post_init__(self) -> None:
        require_range("scale", self.scale)
        require_range("contrast", self.contrast, highest=1.0)
        highest = {"degrees": 180.0, "gamma": 5.0}
        names = ("degrees", "shear", "shift", "elastic", "thicker_probability", "thinner_probability", "gamma", "noise")
        for name in names:
            require_within(name, getattr(self, name), highest.get(name, 1.0))
        for count, probability in self.cells:
            if count < 2:
                raise InputError(f"a coarser scan has at least 2 cells a side, got cells={self.cells}")
            require_within("the probability of a coarser scan", probability, 1.0)

    def __call__(
        self,
        images: UInt8[Tensor, "b 3 H W"],
        draw: Draw,
        view: int,
        *,
        size: tuple[int, int] | None = None,
        area: tuple[float, float] | None = None,
    ) -> Float32[Tensor, "b 3 h w"]:
        """One view of each image, from its first channel. What is off is left out.

        Args:
            images: (B, 3, H, W) uint8, white on black.
            draw: of the batch, one sample number an image.
            view: which of an image's views; each has its own random numbers.
            size: (h, w) of the view; the image's if None.
            area: for multi-crop: a crop of this range of areas that lies inside the image takes the place of
                `scale` and `shift`, and is stretched as `scale` would have.

        Returns:
            (B, 3, h, w) float32 in [0, 255], three times the same, in the images' memory layout.

        Raises:
            InputError: there is not one sample number an image, or the size or area cannot be.

        >>> digits = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
        >>> Handwriting()(digits, Draw(0, 0, np.array([4, 5])), 0).shape
        torch.Size([2, 3, 32, 32])
        """
        size = require_view(images, draw, size)
        if area is not None:
            require_range("area", area, highest=1.0)
        shape = (images.shape[2], images.shape[3])
        names = _NAMES + tuple(f"cells {i}" for i in range(len(self.cells)))
        chance = dict(zip(names, draw.uniforms(len(names), _STREAM, view).T, strict=True))
        maps = self._maps(chance, shape, area)
        views = new_views(images, size)
        for rows in blocks(len(images), max(math.prod(size), math.prod(shape))):
            ink = images[rows, :1].to(torch.float32).contiguous() / 255
            own, part = {name: values[rows] for name, values in chance.items()}, draw.take(rows)
            ink = self._redrawn(ink, own, part, view, maps[rows] if maps is not None else None, size)
            views[rows] = self._scanned(ink, own, part, view) * 255
        return views

    def _maps(
        self, chance: dict[str, np.ndarray], shape: tuple[int, int], area: tuple[float, float] | None
    ) -> np.ndarray | None:
        """(B, 2, 3), or None where nothing moves."""
        if area is None and self.scale == (1, 1) and not (self.shift or self.degrees or self.shear):
            return None
        low, high = np.log(self.scale)
        extents = [np.exp(low + (high - low) * chance[name]) for name in ("width", "height")]
        left, top = chance["left"], chance["top"]
        if area is None:
            centres = [self.shift * (2 * place - 1) for place in (left, top)]
            windows = np.stack([np.stack(pair, axis=1) for pair in zip(extents, centres, strict=True)], axis=1)
        else:
            shares = area[0] + (area[1] - area[0]) * chance["area"]
            windows = crop_extents(shares, extents[0] / extents[1], left, top)
        angle = np.radians(self.degrees) * (2 * chance["angle"] - 1)
        lean = self.shear * (2 * chance["lean"] - 1)
        return affine_maps(windows, angle=angle, lean=lean, mirrored=angle > np.inf, shape=shape)

    def _redrawn(
        self,
        ink: Tensor,
        chance: dict[str, np.ndarray],
        draw: Draw,
        view: int,
        maps: np.ndarray | None,
        size: tuple[int, int],
    ) -> Tensor:
        """Another hand, in one resampling."""
        if maps is None and not self.elastic and ink.shape[2:] == size:
            return ink
        wobble = None
        if self.elastic:
            knots = _normals(draw, 2 * _KNOTS**2, _ELASTIC, view) * self.elastic * chance["elastic"][:, None]
            wobble = _on(ink, knots).reshape(-1, 2, _KNOTS, _KNOTS)
        if maps is None:
            maps = np.tile(np.eye(2, 3), (len(ink), 1, 1))
        return resample(ink, maps, size, padding="zeros", wobble=wobble)

    def _scanned(self, ink: Tensor, chance: dict[str, np.ndarray], draw: Draw, view: int) -> Tensor:
        """Another scanner: stroke width, resolution, contrast, noise."""
        ink = ink.clamp(0, 1)
        strokes = (
            ("thicker", "thickness", self.thicker_probability, 1.0, dilated),
            ("thinner", "thinness", self.thinner_probability, 0.6, eroded),
        )
        for coin, amount, probability, most, change in strokes:
            share = _column(ink, most * chance[amount])
            rows = _rows(ink, chance[coin] < probability)
            if len(rows):
                part = ink[rows]
                ink[rows] = part + share[rows] * (change(part[:, 0])[:, None] - part)
        for i, (count, probability) in enumerate(self.cells):
            rows = _rows(ink, chance[f"cells {i}"] < probability)
            if len(rows) and count < min(ink.shape[2:]):
                coarse = adaptive_avg_pool2d(ink[rows], count)
                ink[rows] = interpolate(coarse, size=ink.shape[2:], mode="bicubic").clamp_(0, 1)
        if self.gamma:
            ink = _toned(ink, _column(ink, 0.5 ** np.exp(self.gamma * (2 * chance["gamma"] - 1))))
        if self.contrast != (1, 1):
            low, high = self.contrast
            ink = ink * _column(ink, low + (high - low) * chance["contrast"])
        if self.noise:
            grain = _normals(draw, ink[0].numel(), _NOISE, view)
            ink = ink + _on(ink, grain).view_as(ink) * _column(ink, self.noise * chance["noise"])
        return ink.clamp(0, 1)


def _rows(like: Tensor, chosen: np.ndarray) -> Tensor:
    return torch.from_numpy(np.flatnonzero(chosen)).to(like.device)


def _on(like: Tensor, values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).to(like)


def _column(like: Tensor, values: np.ndarray) -> Tensor:
    """(B, 1, 1, 1)."""
    return _on(like, values)[:, None, None, None]


def _toned(ink: Tensor, middle: Tensor) -> Tensor:
    """Schlick's bias: 0, 1/2 and 1 become 0, `middle` and 1."""
    return ink / ((1 / middle - 2) * (1 - ink) + 1)


def _normals(draw: Draw, count: int, *stream: int) -> np.ndarray:
    """(B, count) float32 of mean 0 and deviation 1: heads among 64 coins, normal but for steps of a quarter."""
    heads = np.bitwise_count(draw.bits(count, *stream))
    return (heads.astype(np.float32) - 32) / 4

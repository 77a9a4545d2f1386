"""Random views of images for pre-training, a batch at a time: one resampling, one colour map an image, a rare blur.

SimCLR (Chen et al., ICML 2020, appendix A) crops and mirrors, then distorts colours, then blurs. So does this, and
deviates where a batch is faster for it: brightness, contrast, saturation and hue follow each other in this order and
not in a random one; they and grey are composed to one affine map of RGB, so that values are cut to [0, 255] once, at
its end; hue turns in the YIQ plane, which keeps luminance, and not in HSV, which keeps the largest channel.

Shape letters: B batch, H W pixels of the image, h w of the view.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor
from torch.nn.functional import pad

from headfirst.data.geometry import affine_maps, crop_extents, resample
from headfirst.errors import InputError
from headfirst.randomness import Draw

LUMA = np.array([0.299, 0.587, 0.114])
"""Grey of red, green and blue (ITU-R BT.601), as Pillow's mode L has it."""

_CHANNELS = np.eye(3)
_BY_BLUE, _BY_RED = _CHANNELS[2] - LUMA, _CHANNELS[0] - LUMA
# The NTSC colour television standard, 47 CFR 73.682(a)(20): chroma as two axes at right angles.
YIQ = np.stack([LUMA, -0.27 * _BY_BLUE + 0.74 * _BY_RED, 0.41 * _BY_BLUE + 0.48 * _BY_RED])
"""From RGB to luminance and the two axes of chroma; greys have none."""

_GREY = np.broadcast_to(LUMA, (3, 3))
_QUARTER = np.linalg.inv(YIQ) @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ YIQ

_STREAM = 0x56494557
"""Keeps what views draw apart from whatever else draws for the same samples."""
_NAMES = (
    *("area", "aspect", "left", "top", "mirror", "angle", "lean"),
    *("brightness", "contrast", "saturation", "hue", "colour", "grey", "blur", "sigma"),
)
_LEAST_SIGMA = 0.25
"""A Gaussian of fewer pixels moves no value by half a grey level."""
_BLOCK = 1 << 16
"""Pixels worked on at a time, so that they stay in the processor's cache."""


@runtime_checkable
class View(Protocol):
    """One random view of each image: `Views`, `Handwriting`, or anything called alike whose repr says what it does."""

    def __call__(
        self,
        images: UInt8[Tensor, "b 3 H W"],
        draw: Draw,
        view: int,
        *,
        size: tuple[int, int] | None = None,
        area: tuple[float, float] | None = None,
    ) -> Float32[Tensor, "b 3 h w"]: ...


@dataclass(frozen=True, kw_only=True)
class Views:
    """How a view may differ from its image; by default it does not.

    Attributes:
        area: of the crop, a share of the image's area, uniform in this range; its place is uniform (Szegedy et al.,
            CVPR 2015, section 6).
        aspect: width over height by which the crop departs from the view's, log-uniform in this range as far as it
            fits; a crop that would stick out is cut to the image and keeps its area.
        mirror: left and right exchanged half of the time.
        degrees: turned about the crop's centre by up to so much to either side; the image is mirrored beyond its
            border.
        shear: columns a row by which it leans, up to so much to either side.
        brightness: values times a factor in [1 - brightness, 1 + brightness].
        contrast: distance from the view's own mean grey, likewise.
        saturation: distance of each pixel from its own grey, likewise.
        hue: turned about the grey axis by up to this share of a circle, at most 0.5, to either side.
        colour_probability: how often brightness, contrast, saturation and hue are changed, all four together.
        grey_probability: how often colour is taken out.
        blur: standard deviation of a Gaussian, as shares of the view's shorter side, uniform in this range; it is
            cut at three of the largest, the border's pixels go on beyond it, and less than a quarter of a pixel is
            left out.
        blur_probability: how often a view is blurred.

    Raises:
        InputError: a range or a probability that cannot be.
    """

    area: tuple[float, float] = (1.0, 1.0)
    aspect: tuple[float, float] = (1.0, 1.0)
    mirror: bool = False
    degrees: float = 0.0
    shear: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    colour_probability: float = 1.0
    grey_probability: float = 0.0
    blur: tuple[float, float] = (0.0005, 0.009)
    blur_probability: float = 0.0

    def __post_init__(self) -> None:
        require_range("area", self.area, highest=1.0)
        require_range("aspect", self.aspect)
        require_range("blur", self.blur, highest=1.0)
        for name, highest in (("degrees", 180.0), ("shear", 1.0), ("hue", 0.5)):
            require_within(name, getattr(self, name), highest)
        for name in ("brightness", "contrast", "saturation"):
            require_within(name, getattr(self, name), 1.0)
        for name in ("colour_probability", "grey_probability", "blur_probability"):
            require_within(name, getattr(self, name), 1.0)

    @classmethod
    def photographs(cls, mirror: bool = True) -> Views:
        """For contrasting photographs: SimCLR's recipe at the strength 0.5 of its appendix B.9.

        Deviations: no crop of less than 0.2 of the area (SimCLR: 0.08), as few images are learnt from and most are
        small; one view in ten is blurred (SimCLR: one in two), and by shares of the side that at 224 pixels are
        SimCLR's 0.1 to 2 pixels.
        """
        return cls(
            area=(0.2, 1.0),
            aspect=(3 / 4, 4 / 3),
            mirror=mirror,
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            hue=0.1,
            colour_probability=0.8,
            grey_probability=0.2,
            blur_probability=0.1,
        )

    @classmethod
    def gentle(cls, mirror: bool = True) -> Views:
        """For tasks that must still see the whole thing: rotation, jigsaw, masked images. Hue stays."""
        return cls(area=(0.6, 1.0), aspect=(3 / 4, 4 / 3), mirror=mirror, brightness=0.2, contrast=0.2, saturation=0.2)

    def __call__(
        self,
        images: UInt8[Tensor, "b 3 H W"],
        draw: Draw,
        view: int,
        *,
        size: tuple[int, int] | None = None,
        area: tuple[float, float] | None = None,
    ) -> Float32[Tensor, "b 3 h w"]:
        """One view of each image.

        Where a view shrinks its image it is anti-aliased (`resample`). What is off is left out, so that without a
        change the numbers are the image's. On a CPU a sample's view is the same bit for bit, whatever its batch.

        Args:
            images: (B, 3, H, W) uint8 RGB, in any memory layout.
            draw: of the batch, one sample number an image.
            view: which of an image's views; each has its own random numbers.
            size: (h, w) of the view; the image's if None.
            area: instead of the recipe's, e.g. for the small crops of multi-crop.

        Returns:
            (B, 3, h, w) float32 in [0, 255], in the images' memory layout.

        Raises:
            InputError: there is not one sample number an image, or the size or area cannot be.

        >>> pictures = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
        >>> Views.photographs()(pictures, Draw(0, 0, np.array([4, 5])), 0).shape
        torch.Size([2, 3, 8, 8])
        """
        size = require_view(images, draw, size)
        if area is not None:
            require_range("area", area, highest=1.0)
        chance = dict(zip(_NAMES, draw.uniforms(len(_NAMES), _STREAM, view).T, strict=True))
        mirrored = (chance["mirror"] < 0.5) & self.mirror
        maps = self._maps(chance, mirrored, (images.shape[2], images.shape[3]), size, area or self.area)
        colours = self._colours(chance)
        sigma = self._sigma(chance, min(size))
        views = new_views(images, size)
        for rows in blocks(len(images), max(math.prod(size), math.prod(images.shape[2:]))):
            shown = images[rows].to(torch.float32)
            if maps is not None:
                padding = "reflection" if self.degrees or self.shear else "border"
                shown = resample(shown, maps[rows], size, padding=padding)
            elif mirrored[rows].any():
                turned = torch.from_numpy(mirrored[rows]).to(shown.device)
                shown = torch.where(turned[:, None, None, None], shown.flip(3), shown)
            if colours is not None:
                shown = recoloured(shown, colours.matrix[rows], colours.pull[rows])
            views[rows] = shown.clamp_(0, 255)
        soft, radius = np.flatnonzero(sigma), math.ceil(3 * self.blur[1] * min(size))
        for rows in blocks(len(soft), math.prod(size)):
            at = torch.from_numpy(soft[rows]).to(views.device)
            views[at] = blurred(views[at], sigma[soft[rows]], radius).clamp_(0, 255)
        return views

    def _maps(
        self,
        chance: dict[str, np.ndarray],
        mirrored: np.ndarray,
        shape: tuple[int, int],
        size: tuple[int, int],
        area: tuple[float, float],
    ) -> np.ndarray | None:
        """(B, 2, 3), or None where every view is its whole image, mirrored at most."""
        if area == (1, 1) and not self.degrees and not self.shear and size == shape:
            return None
        low, high = np.log(self.aspect)
        stretch = np.exp(low + (high - low) * chance["aspect"]) * (size[1] / size[0]) * (shape[0] / shape[1])
        windows = crop_extents(_between(area, chance["area"]), stretch, chance["left"], chance["top"])
        angle = np.radians(self.degrees) * (2 * chance["angle"] - 1)
        lean = self.shear * (2 * chance["lean"] - 1)
        return affine_maps(windows, angle=angle, lean=lean, mirrored=mirrored, shape=shape)

    def _colours(self, chance: dict[str, np.ndarray]) -> Colours | None:
        """Of each image, or None where all colours stay."""
        grey = chance["grey"] < self.grey_probability
        changed = chance["colour"] < self.colour_probability
        strengths = {name: getattr(self, name) for name in ("brightness", "contrast", "saturation")}
        if not any(strengths.values()) and not self.hue and not self.grey_probability:
            return None
        factors = {name: np.where(changed, 1 + s * (2 * chance[name] - 1), 1.0) for name, s in strengths.items()}
        turn = np.where(changed, 2 * math.pi * self.hue * (2 * chance["hue"] - 1), 0.0)
        factors["saturation"] = np.where(grey, 0.0, factors["saturation"])
        return colour_maps(**factors, turn=turn)

    def _sigma(self, chance: dict[str, np.ndarray], side: int) -> np.ndarray:
        """(B,) standard deviations in pixels, 0 where there is no blur."""
        sigma = _between(self.blur, chance["sigma"]) * side
        return np.where((chance["blur"] < self.blur_probability) & (sigma >= _LEAST_SIGMA), sigma, 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Colours:
    """Affine maps of RGB: a view's colours are `matrix` @ rgb + `pull` · (its mean grey).

    Attributes:
        matrix: (B, 3, 3) float64.
        pull: (B,) float64, how much of the mean grey is added to each channel.
    """

    matrix: Float64[np.ndarray, "b 3 3"]
    pull: Float64[np.ndarray, " b"]


def colour_maps(
    *,
    brightness: Float64[np.ndarray, " b"],
    contrast: Float64[np.ndarray, " b"],
    saturation: Float64[np.ndarray, " b"],
    turn: Float64[np.ndarray, " b"],
) -> Colours:
    """Brightness, contrast, saturation and hue, one after the other, as one map an image.

    Each later step leaves greys as they are, so that contrast's blend with the mean grey m of the brightened view,
    c·x + (1 - c)·m, passes through as (1 - c)·b·(mean grey of the view). With G the map to grey and J the quarter turn
    of chroma, saturation and hue are G + s·(cos θ·(1 - G) + sin θ·J).

    Args:
        brightness, contrast, saturation: (B,) factors; 1 changes nothing, and saturation 0 is grey.
        turn: (B,) angles of hue in radians.
    """
    cos, sin, s = (each[:, None, None] for each in (np.cos(turn), np.sin(turn), saturation))
    gain = brightness * contrast
    chroma = s * (cos * (_CHANNELS - _GREY) + sin * _QUARTER)
    return Colours(matrix=gain[:, None, None] * (_GREY + chroma), pull=(1 - contrast) * brightness)


def recoloured(
    images: Float32[Tensor, "b 3 h w"], matrix: Float64[np.ndarray, "b 3 3"], pull: Float64[np.ndarray, " b"]
) -> Float32[Tensor, "b 3 h w"]:
    """The images under their `Colours`, not yet cut to [0, 255]."""
    images = images.contiguous()
    # Sums, not matrix products, whose rounding would depend on the batch.
    columns = torch.from_numpy(matrix).to(images)[..., None, None]
    red, green, blue = images.split(1, dim=1)
    changed = red * columns[:, :, 0]
    part = green * columns[:, :, 1]
    changed += part
    changed += torch.mul(blue, columns[:, :, 2], out=part)
    if pull.any():
        mean = images.mean(dim=(2, 3))
        grey = mean[:, 0] * LUMA[0] + mean[:, 1] * LUMA[1] + mean[:, 2] * LUMA[2]
        changed += (grey * torch.from_numpy(pull).to(images))[:, None, None, None]
    return changed


def blurred(
    images: Float32[Tensor, "b 3 h w"], sigma: Float64[np.ndarray, " b"], radius: int
) -> Float32[Tensor, "b 3 h w"]:
    """Each image under a Gaussian of its own deviation in pixels, cut at `radius`; one side after the other."""
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma[:, None]) ** 2)
    weights /= weights[:, :1] + 2 * weights[:, 1:].sum(axis=1, keepdims=True)
    kernel = torch.from_numpy(weights).to(images)[:, :, None, None, None]
    images = images.contiguous()
    for dim, margin in ((3, (radius, radius, 0, 0)), (2, (0, 0, radius, radius))):
        length = images.shape[dim]
        wide = pad(images, margin, mode="replicate")
        images = images * kernel[:, 0]
        both = torch.empty_like(images)
        for i in range(1, radius + 1):
            torch.add(wide.narrow(dim, radius - i, length), wide.narrow(dim, radius + i, length), out=both)
            images += both.mul_(kernel[:, i])
    return images


def require_view(images: Tensor, draw: Draw, size: tuple[int, int] | None) -> tuple[int, int]:
    """The size of the views asked for; refuses what no `View` can make."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise InputError(f"views are of uint8 images (B, 3, H, W), got {images.dtype} of shape {tuple(images.shape)}")
    if len(draw) != len(images):
        raise InputError(f"one sample number an image is needed: {len(images)} images, {len(draw)} numbers")
    size = size or (images.shape[2], images.shape[3])
    if len(size) != 2 or min(size) < 1:
        raise InputError(f"a view's size is (height, width) in pixels, at least 1 each; got {size}")
    return size


def require_range(name: str, bounds: tuple[float, float], highest: float = math.inf) -> None:
    """Refuses bounds that are not 0 < low ≤ high ≤ highest."""
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= highest or bounds[1] == math.inf:
        limit = f" ≤ {highest:g}" if highest < math.inf else ""
        raise InputError(f"{name} is a range (low, high) with 0 < low ≤ high{limit}, got {bounds}")


def require_within(name: str, value: float, highest: float) -> None:
    """Refuses a value outside [0, highest]."""
    if not 0 <= value <= highest:
        raise InputError(f"{name} must lie in [0, {highest:g}], got {value}")


def new_views(images: Tensor, size: tuple[int, int]) -> Float32[Tensor, "b 3 h w"]:
    """Room for the views, in the images' memory layout."""
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(len(images), 3, *size, device=images.device, memory_format=layout)


def blocks(count: int, pixels: int) -> Iterator[slice]:
    """Slices of so many images of so many pixels that one slice stays in the cache."""
    step = max(1, _BLOCK // pixels)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _between(bounds: tuple[float, float], chance: np.ndarray) -> np.ndarray:
    return bounds[0] + (bounds[1] - bounds[0]) * chance

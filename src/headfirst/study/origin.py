"""Where a pre-training begins: weights that are there, an architecture drawn anew, a small network for these images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from headfirst.data import ImageSplit, prepare_split, shuffled_by_name
from headfirst.errors import InputError
from headfirst.nn import PretrainedBackbone, untrained_backbone
from headfirst.types import Preprocessing, silent

SIZES = (96, 64, 32)
"""Sides of the images that a small network is given, in pixels."""
WIDTHS = {"small-resnet": (64, 32), "small-vit": (96, 64)}
_LOOKED_AT = 256
_STATISTICS = 0x53544154  # stream of the draw
_PLAIN = Preprocessing(resize=(32, 32), resample="bicubic", crop=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Makers of a backbone, the largest first where there is a choice, and what to call them.

    Each maker gives the same backbone every time.
    """

    makers: tuple[Callable[[], PretrainedBackbone], ...]
    names: tuple[str, ...]


def weights_there(load: Callable[[], PretrainedBackbone], name: str) -> Origin:
    """A pretrained backbone to go on from."""
    return Origin(makers=(load,), names=(name,))


def architecture_of(name: str, *, seed: int) -> Origin:
    """A checkpoint's architecture, its weights drawn anew."""
    return Origin(makers=(partial(untrained_backbone, name, seed=seed),), names=(f"{name} from nothing",))


def small_network(kind: str, images: ImageSplit, *, size: int | None = None, seed: int = 0) -> Origin:
    """ "small-resnet" or "small-vit" for these images: their mean and deviation, no larger than they are.

    Args:
        size: side in pixels; every size up to the images' own is a choice if None.

    Raises:
        InputError: another kind; a size the network cannot take.
        DataError: no image can be read.
    """
    if kind not in WIDTHS:
        raise InputError(f"a small network is {' or '.join(WIDTHS)}, got {kind!r}")
    side, mean, std = _statistics(images)
    sizes = [each for each in SIZES if each <= max(1.25 * side, SIZES[-1])] if size is None else [size]
    makers, names = [], []
    for pixels in sizes:
        for width in WIDTHS[kind]:
            makers.append(partial(untrained_backbone, kind, seed=seed, size=pixels, width=width, mean=mean, std=std))
            names.append(f"{kind}, {pixels} pixels, {width} wide")
    return Origin(makers=tuple(makers), names=tuple(names))


_Channels = tuple[float, float, float]


def _statistics(images: ImageSplit) -> tuple[float, _Channels, _Channels]:
    """The shorter side of the middle image, and mean and deviation of each channel in [0, 1], rounded; of a sample."""
    some = images.take(shuffled_by_name(images.ids, seed=0, stream=_STATISTICS)[:_LOOKED_AT])
    pixels = prepare_split(some, _PLAIN, progress=silent)[0].batch().double() / 255
    mean = [round(float(value), 3) for value in pixels.mean(dim=(0, 2, 3))]
    std = [max(0.05, round(float(value), 3)) for value in pixels.std(dim=(0, 2, 3), correction=0)]
    return float(np.median([_short_side(source) for source in some.sources])), tuple(mean), tuple(std)  # pyright: ignore[reportReturnType]


def _short_side(source: object) -> int:
    from PIL import Image

    if isinstance(source, np.ndarray):
        return min(source.shape[:2])
    try:
        with Image.open(source) as image:  # pyright: ignore[reportArgumentType]
            return min(image.size)
    except (OSError, ValueError, Image.DecompressionBombError):
        return 0

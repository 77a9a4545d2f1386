"""Small pictures that a page carries within itself."""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from headfirst.data import ImageSplit

THUMBNAIL = 96  # pixels, longer side


def thumbnail(images: ImageSplit, index: int, *, size: int = THUMBNAIL) -> str:
    """One image of a prepared split as a `data:image/jpeg;base64,…` address."""
    return inline_jpeg(images.batch([index])[0].permute(1, 2, 0).numpy(), size=size)


def inline_jpeg(pixels: UInt8[np.ndarray, "h w 3"], *, size: int = THUMBNAIL) -> str:
    """(h, w, 3) RGB as a `data:image/jpeg;base64,…` address, its longer side at most `size` pixels."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((size, size))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

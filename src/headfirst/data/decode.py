"""Bytes of an image file to RGB pixels, by stated rules, or one reason why not.

- JPEG, PNG, WebP, BMP, TIFF and GIF, told by their first bytes; no other decoder can be reached.
- More than 200 megapixels by the header: refused before anything is decoded.
- Animations and multi-page files: the first frame.
- EXIF orientation: applied.
- Grey: the three channels alike. 16-bit grey: value·255/65535, rounded (Pillow's own conversion saturates).
- 16-bit colour: the high byte. Palette: looked up. CMYK and YCCK: Pillow's conversion, no colour profile.
- Transparency: laid over white.
- 32-bit and floating-point images have no agreed white: refused.

Shape letters: h w pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from headfirst.data.preprocess import MAX_PIXELS
from headfirst.errors import DataError

MAX_BYTES = 2**31
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""File names that say they are images; others in a folder are left alone."""

_ORIENTATION = 0x0112
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def decode_image(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decode one image file.

    Args:
        data: the bytes of the file.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        DataError: why this cannot be an image (empty, not one of the six formats, truncated, too large, …).
    """
    if not data:
        raise DataError("the file is empty")
    picture = _open_header(data)
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{width}×{height} pixels by its header, more than {MAX_PIXELS // 10**6} megapixels; make it smaller"
        )
    if isinstance(picture, JpegImagePlugin.JpegImageFile) and picture.mode in ("RGB", "L"):
        pixels = _fast_jpeg(data)
        if pixels is not None:
            return _upright(pixels, _orientation(picture))
    _load(picture)
    # A TIFF turns itself while loading and then says so; the others are turned here.
    return _upright(_to_rgb(picture), _orientation(picture))


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """`decode_image` of a file, with the file's name in front of every refusal."""
    try:
        return decode_image(read_bytes(path))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def image_size(source: Path | np.ndarray) -> tuple[int, int] | None:
    """(height, width) of decoded pixels or, by its header, of a file; None where the file says none."""
    if isinstance(source, np.ndarray):
        return source.shape[0], source.shape[1]
    try:
        width, height = _open_header(read_bytes(source)).size
    except DataError:
        return None
    return height, width


def read_bytes(path: Path) -> bytes:
    """The bytes of a file that may be an image; DataError says why not (missing, not a file, over 2 GiB)."""
    try:
        if not path.is_file():
            # A pipe or a device under an image's name would block for ever.
            raise DataError("not a regular file" if path.exists() else "the file does not exist")
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"the file is larger than {MAX_BYTES >> 30} GiB")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"the file cannot be read ({error.strerror})") from error


def _opener(data: bytes) -> Callable[[io.BytesIO], Image.Image] | None:
    """Which decoder the first bytes ask for. Pillow's classes are called directly: `Image.open` would bring
    its own, lower size limit, which can only be moved for the whole process."""
    head = data[:12]
    if head.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GifImagePlugin.GifImageFile
    if head.startswith(b"BM"):
        return BmpImagePlugin.BmpImageFile
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return TiffImagePlugin.TiffImageFile
    if head.startswith(b"RIFF") and head[8:] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    return None


def _open_header(data: bytes) -> Image.Image:
    opener = _opener(data)
    if opener is None:
        raise DataError("not a JPEG, PNG, WebP, BMP, TIFF or GIF by its first bytes")
    try:
        return opener(io.BytesIO(data))
    except Exception as error:  # hostile bytes make Pillow raise almost anything; each is the same answer
        raise DataError(f"its header cannot be read ({_reason(error)})") from error


def _load(picture: Image.Image) -> None:
    try:
        picture.load()
    except Exception as error:  # as in _open_header
        raise DataError(f"it cannot be decoded ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _fast_jpeg(data: bytes) -> np.ndarray | None:
    """The same pixels as Pillow's, about twice as fast; None where only Pillow's tolerance helps."""
    try:
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError:
        return None


def _to_rgb(picture: Image.Image) -> np.ndarray:
    if picture.mode in _SIXTEEN_BIT:
        grey = (np.asarray(picture).astype(np.uint32) * 255 + 32767) // 65535
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    if picture.mode in ("I", "F"):
        raise DataError("32-bit and floating-point images have no agreed white; save it with 8 or 16 bits")
    try:
        if picture.has_transparency_data:
            return _over_white(np.asarray(picture.convert("RGBA")))
        return np.asarray(picture.convert("RGB"))
    except (ValueError, OSError) as error:
        raise DataError(f"its mode {picture.mode} cannot be turned into RGB ({_reason(error)})") from error


def _over_white(rgba: np.ndarray) -> np.ndarray:
    colour, alpha = rgba[..., :3].astype(np.uint32), rgba[..., 3:].astype(np.uint32)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken metadata around a sound image: the image counts
        return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the EXIF orientation (Exif 2.32, tag 0x0112: where row 0 and column 0 lie)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)

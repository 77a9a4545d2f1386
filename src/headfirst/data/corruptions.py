"""Built-in shifts: seven corruptions of five severities, at the size the backbone sees.

After Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019 (section 3, and the reference code's strengths), with deviations: lengths are shares
of the image's side, so that they mean the same at 28 and at 224 pixels; brightness is added in RGB, not HSV;
pixelation steps are wider, so that each harms more than the last at 28 pixels too; the rotation is ours. What
an image suffers depends on its content hash alone.

Shape letters: H W pixels.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from headfirst.data.hashing import hash_number
from headfirst.data.imageset import ImageSplit, Pixels
from headfirst.data.rows import cache_dir, fill_rows
from headfirst.errors import InputError, did_you_mean
from headfirst.randomness import keyed_bits, keyed_uniform
from headfirst.types import Progress, silent

SEVERITIES = (1, 2, 3, 4, 5)
_FORMAT = 1  # raise it when a corruption gives other pixels
_CHUNK = 64


def corrupt(
    split: ImageSplit,
    kind: str,
    severity: int,
    *,
    name: str | None = None,
    cache: Path | None = None,
    progress: Progress = silent,
) -> ImageSplit:
    """A prepared split with every image corrupted alike.

    Args:
        split: prepared; it stays as it is.
        kind: one of `CORRUPTIONS`.
        severity: 1 (mild) … 5 (severe).
        name: of the new split (`shift-<kind>-<severity>` if None).
        cache: folder of the pixel cache (`cache_dir()` if None).
        progress: told how many images are done.

    Raises:
        InputError: no such kind or severity, or the split is not prepared.
    """
    _require(kind, severity)
    return _corrupted(
        split,
        [kind] * len(split),
        severity,
        name or f"shift-{kind}-{severity}",
        cache or cache_dir(),
        progress,
    )


def corrupt_mixed(
    split: ImageSplit,
    severity: int,
    *,
    name: str,
    cache: Path | None = None,
    progress: Progress = silent,
) -> ImageSplit:
    """A prepared split where each image gets the one kind that its content hash picks; see `corrupt`."""
    _require("blur", severity)
    kinds = tuple(CORRUPTIONS)
    picks = [int(keyed_bits(hash_number(digest), 7)) % len(kinds) for digest in split.hashes or ()]
    return _corrupted(split, [kinds[p] for p in picks], severity, name, cache or cache_dir(), progress)


def corrupt_image(
    image: UInt8[np.ndarray, "H W 3"], kind: str, severity: int, *, key: int
) -> UInt8[np.ndarray, "H W 3"]:
    """One image corrupted; `key` decides the noise and the direction of the rotation."""
    _require(kind, severity)
    return CORRUPTIONS[kind](image, severity, key)


def gaussian_noise(image: np.ndarray, severity: int, key: int) -> np.ndarray:
    """Independent normal noise of standard deviation 0.08, 0.12, 0.18, 0.26, 0.38 (of full scale)."""
    sigma = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1] * 255
    noise = np.random.Generator(np.random.Philox(key=key)).standard_normal(image.shape, dtype=np.float32)
    return _levels(image + sigma * noise)


def blur(image: np.ndarray, severity: int, key: int) -> np.ndarray:
    """Gaussian blur of radius 0.8, 1.2, 1.8, 2.6, 3.6 per cent of the shorter side."""
    sigma = (0.008, 0.012, 0.018, 0.026, 0.036)[severity - 1] * min(image.shape[:2])
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def contrast(image: np.ndarray, severity: int, key: int) -> np.ndarray:
    """Deviations from each channel's mean times 0.4, 0.3, 0.2, 0.1, 0.05."""
    factor = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    mean = image.mean(axis=(0, 1), keepdims=True)
    return _levels((image - mean) * factor + mean)


def brightness(image: np.ndarray, severity: int, key: int) -> np.ndarray:
    """0.1, 0.2, 0.3, 0.4, 0.5 of full scale added."""
    return _levels(image + np.float32((0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1] * 255))


def jpeg(image: np.ndarray, severity: int, key: int) -> np.ndarray:
    """JPEG at quality 25, 18, 15, 10, 7."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    return np.asarray(Image.open(buffer, formats=["JPEG"]).convert("RGB"))


def pixelate(image: np.ndarray, severity: int, key: int) -> np.ndarray:
    """Averaged down to 0.75, 0.5, 0.4, 0.3, 0.2 of each side and blown up again."""
    share = (0.75, 0.5, 0.4, 0.3, 0.2)[severity - 1]
    height, width = image.shape[:2]
    small = (max(1, int(width * share)), max(1, int(height * share)))
    coarse = Image.fromarray(image).resize(small, Image.Resampling.BOX)
    return np.asarray(coarse.resize((width, height), Image.Resampling.NEAREST))


def rotation(image: np.ndarray, severity: int, key: int) -> np.ndarray:
    """Turned by 8, 14, 20, 28, 38 degrees, to the side the key picks; the corners mirror the border."""
    degrees = (8, 14, 20, 28, 38)[severity - 1] * (1 if keyed_uniform(key, 1) < 0.5 else -1)
    height, width = image.shape[:2]
    margin = max(height, width) // 3  # further than a corner reaches at 38 degrees: sin(38°)/2 = 0.31
    wide = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    turned = np.asarray(Image.fromarray(wide).rotate(degrees, Image.Resampling.BILINEAR))
    return turned[margin : margin + height, margin : margin + width]


CORRUPTIONS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "gaussian_noise": gaussian_noise,
    "blur": blur,
    "contrast": contrast,
    "brightness": brightness,
    "jpeg": jpeg,
    "pixelate": pixelate,
    "rotation": rotation,
}
"""The seven kinds: (H, W, 3) uint8, severity 1 … 5 and a key to (H, W, 3) uint8."""


def _corrupted(
    split: ImageSplit, kinds: list[str], severity: int, name: str, cache: Path, progress: Progress
) -> ImageSplit:
    if split.hashes is None or split.pixels is None:
        raise InputError(f"split {split.name!r} is not prepared; call headfirst.data.prepare first")
    if not len(split):
        raise InputError(f"split {split.name!r} is empty; there is nothing to corrupt")
    pixels = split.pixels
    hashes = tuple(
        hashlib.sha256(f"{digest} {kind} {severity} {_FORMAT}".encode()).hexdigest()
        for digest, kind in zip(split.hashes, kinds, strict=True)
    )
    order = np.argsort(np.array(hashes))  # rows by content, so the file does not depend on the order of the split
    keys = [hash_number(digest) for digest in split.hashes]

    def compute(start: int, stop: int) -> np.ndarray:
        return np.stack(
            [
                CORRUPTIONS[kinds[i]](np.array(pixels.array[pixels.rows[i]]), severity, keys[i])
                for i in order[start:stop]
            ]
        )

    content = hashlib.sha256(pixels.geometry.encode())
    for i in order:
        content.update(hashes[i].encode())
    array = fill_rows(
        cache / "pixels" / f"{content.hexdigest()[:40]}.npy",
        (len(split), *pixels.array.shape[1:]),
        np.uint8,
        compute,
        chunk=_CHUNK,
        progress=progress,
        stage=f"corrupting into {name}",
    )
    rows = np.empty(len(split), dtype=np.int64)
    rows[order] = np.arange(len(split))
    return replace(
        split,
        name=name,
        sources=tuple(array[row] for row in rows),  # what is prepared anew, at another size, is corrupted too
        hashes=hashes,
        pixels=Pixels(array=array, rows=rows, geometry=pixels.geometry),
    )


def _require(kind: str, severity: int) -> None:
    if kind not in CORRUPTIONS:
        raise InputError(
            f"no corruption is called {kind!r}; there are {', '.join(CORRUPTIONS)}" + did_you_mean(kind, CORRUPTIONS)
        )
    if severity not in SEVERITIES:
        raise InputError(f"a severity is 1, 2, 3, 4 or 5, got {severity}")


def _levels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)

"""What a generator learns from: square images of one size, grey or in colour, in [0, 1].

What enters: a split of any images. What leaves: the same, resized, as batches of tensors.

Shape letters: N images of the split, B of a batch, C channels (1 or 3), S pixels a side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from headfirst.data import ImageSplit, image_size, prepare_split
from headfirst.errors import InputError
from headfirst.types import Preprocessing, Progress, Quarantined, silent

MULTIPLE = 4
"""Of which a side must be: the networks halve it at least twice."""
LARGEST_OWN, USUAL = 64, 32
"""Images that all have one square size up to the first are learned as they are; others at the second."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Images ready to learn from.

    Attributes:
        split: prepared, S × S pixels.
        grey: whether all are, so that one channel says everything.
        resized: how they came to this size, a sentence; empty where they had it.
        quarantined: those that could not be read.
    """

    split: ImageSplit
    grey: bool
    resized: str
    quarantined: tuple[Quarantined, ...] = ()

    def __len__(self) -> int:
        return len(self.split)

    @property
    def size(self) -> int:
        """S."""
        assert self.split.pixels is not None
        return self.split.pixels.array.shape[1]

    @property
    def channels(self) -> int:
        """C."""
        return 1 if self.grey else 3

    @property
    def labels(self) -> Int[np.ndarray, " n"]:
        """(N,) int64; -1 where unlabelled."""
        return self.split.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names where every image has a label; else none."""
        return self.split.classes if len(self.split) and bool((self.labels >= 0).all()) else ()

    @property
    def shares(self) -> tuple[float, ...]:
        """Of each class among the images."""
        counts = np.bincount(self.labels, minlength=len(self.classes)) if self.classes else np.array([])
        return tuple((counts / max(len(self), 1)).tolist())

    def batch(self, indices: np.ndarray | None = None) -> Float[Tensor, "b c s s"]:
        """The images at `indices` (all of them if None), float32, k / 255."""
        images = self.split.batch(indices)
        return (images[:, : self.channels].float() / 255).contiguous()


@dataclass(frozen=True, kw_only=True, eq=False)
class Translated:
    """Images made of images, each of its own.

    Attributes:
        images: decoded, with the originals' names, ids, labels and classes, in their order.
        originals: as the model saw them; their `split.fingerprint` says what they were.
        made_by: hash of the model.
    """

    images: ImageSplit
    originals: Pictures
    made_by: str

    @classmethod
    def of(cls, pixels: UInt8[Tensor, "n 3 s s"], originals: Pictures, made_by: str) -> Translated:
        """Row i of `pixels` is made of row i of `originals`."""
        sources = tuple(pixels.permute(0, 2, 3, 1).contiguous().numpy())
        images = replace(originals.split, sources=sources, hashes=None, pixels=None)
        return cls(images=images, originals=originals, made_by=made_by)


def pictures(images: ImageSplit, *, size: int | None = None, grey: bool | None = None,
             progress: Progress = silent) -> Pictures:  # fmt: skip
    """Make a split ready.

    Images that are not S × S are resized, bicubic, so that the shorter edge has S pixels, and cropped at the centre.

    Args:
        size: S, a multiple of 4 from 8 on; None takes the images' own if all are square, of one such size and no larger
            than 64 pixels, else 32.
        grey: whether they are taken for grey; None looks at all of them.

    Raises:
        InputError: a size that cannot be.
        DataError: no image can be read.
    """
    own = _own_size(images)
    side = size if size is not None else own or USUAL
    if side < 2 * MULTIPLE or side % MULTIPLE:
        raise InputError(
            f"size must be a multiple of {MULTIPLE} from {2 * MULTIPLE} on, got {side}; "
            f"take {max(2 * MULTIPLE, MULTIPLE * round(side / MULTIPLE))}"
        )
    fresh = replace(images, hashes=None, pixels=None)
    split, quarantined = prepare_split(fresh, square(side), progress=progress)
    sentence = "" if own == side else f"images are resized to {side} pixels on the shorter edge and cut to a square"
    return Pictures(
        split=split, grey=_all_grey(split) if grey is None else grey, resized=sentence, quarantined=quarantined
    )


def square(size: int) -> Preprocessing:
    """The geometry of S × S pictures; values stay k / 255."""
    return Preprocessing(resize=size, resample="bicubic", crop=(size, size), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def as_rgb(images: Float[Tensor, "b c s s"]) -> Tensor:
    """(B, 3, S, S) uint8 of images in [0, 1], rounded; values outside are cut."""
    levels = (images.clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.expand(-1, 3, -1, -1).contiguous()


def as_pictures(images: ImageSplit | Pictures, *, size: int, channels: int) -> Pictures:
    """The images at this size and with so many channels.

    Raises:
        InputError: pictures of another size, colours where there is one channel.
    """
    shown = images if isinstance(images, Pictures) else pictures(images, size=size)
    if shown.size != size or shown.channels > channels:
        what = "grey" if channels == 1 else "RGB"
        raise InputError(
            f"the generator knows {what} images of {size} pixels a side, got {shown.channels} channels and "
            f"{shown.size} pixels; give images like those it was trained on"
        )
    return replace(shown, grey=channels == 1)


def _own_size(images: ImageSplit) -> int | None:
    """The one size of all images, where it can be learned as it is."""
    first = image_size(images.sources[0]) if len(images) else None
    if first is None or first[0] != first[1] or not 2 * MULTIPLE <= first[0] <= LARGEST_OWN or first[0] % MULTIPLE:
        return None
    return first[0] if all(image_size(source) == first for source in images.sources) else None


def _all_grey(split: ImageSplit) -> bool:
    for rows in np.array_split(np.arange(len(split)), max(1, len(split) // 256)):
        images = split.batch(rows)
        if not (torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 0], images[:, 2])):
            return False
    return True

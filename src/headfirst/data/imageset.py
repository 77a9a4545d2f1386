"""What a set of images is: splits of named, labelled images, before and after their pixels are ready.

Shape letters: N images of a split, M images of a pixel cache, B batch, H W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from headfirst.errors import DataError, InputError, did_you_mean
from headfirst.types import DataSummary, Duplicate, Quarantined

UNLABELLED = "unlabelled"


@dataclass(frozen=True, kw_only=True, eq=False)
class Pixels:
    """Decoded, resized and cropped images, usually memory-mapped and shared by several splits.

    Attributes:
        array: (M, H, W, 3) uint8 RGB.
        rows: (N,) int64; image i of the split is `array[rows[i]]`.
        geometry: key of the resize and crop that made them (`headfirst.data.geometry_key`).
    """

    array: UInt8[np.ndarray, "m h w 3"]
    rows: Int64[np.ndarray, " n"]
    geometry: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSplit:
    """One split. `prepare` fills in `hashes` and `pixels`; everything else only reads.

    Attributes:
        name: train, val, test, shift-<name>, val-<name> or unlabelled.
        ids: one name an image, unique in the set (a path relative to the data folder).
        sources: where each image comes from: a file, or decoded (h, w, 3) uint8 RGB.
        labels: (N,) int64 index into `classes`; -1 where unlabelled.
        classes: class names, in label order.
        hashes: content hash of each image (sha256, hexadecimal), or None before `prepare`.
        pixels: the images at the size used, or None before `prepare`.
    """

    name: str
    ids: tuple[str, ...]
    sources: tuple[Path | np.ndarray, ...]
    labels: Int64[np.ndarray, " n"]
    classes: tuple[str, ...]
    hashes: tuple[str, ...] | None = None
    pixels: Pixels | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: Sequence[int] | np.ndarray | Tensor) -> ImageSplit:
        """The images at `indices`, in that order; a prepared split stays prepared and shares its pixels."""
        rows = [int(i) for i in indices]
        pixels = self.pixels
        return replace(
            self,
            ids=tuple(self.ids[i] for i in rows),
            sources=tuple(self.sources[i] for i in rows),
            labels=self.labels[rows],
            hashes=None if self.hashes is None else tuple(self.hashes[i] for i in rows),
            pixels=None if pixels is None else replace(pixels, rows=pixels.rows[rows]),
        )

    def batch(self, indices: Sequence[int] | np.ndarray | Tensor | None = None) -> UInt8[Tensor, "b 3 h w"]:
        """The images at `indices` (all of them if None), uint8 RGB in 0 … 255, channels-last in memory."""
        pixels = self._prepared_pixels()
        rows = pixels.rows if indices is None else pixels.rows[[int(i) for i in indices]]
        return torch.from_numpy(np.array(pixels.array[rows])).permute(0, 3, 1, 2)

    def class_counts(self) -> dict[str, int]:
        """Images by class name, in label order; unlabelled images under `unlabelled`, if there are any."""
        counts = {name: int((self.labels == k).sum()) for k, name in enumerate(self.classes)}
        unlabelled = int((self.labels < 0).sum())
        if unlabelled == len(self) and unlabelled:
            return {UNLABELLED: unlabelled}
        return {**counts, UNLABELLED: unlabelled} if unlabelled else counts

    @property
    def fingerprint(self) -> str:
        """Hash of the images' contents, their labels and the class names (sha256; prepared splits only)."""
        if self.hashes is None:
            raise _not_prepared(self.name)
        digest = hashlib.sha256()
        for text in (*self.hashes, "|", *self.classes):
            digest.update(f"{len(text)}:{text}".encode())
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def _prepared_pixels(self) -> Pixels:
        if self.pixels is None:
            raise _not_prepared(self.name)
        return self.pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """All splits of one task.

    Attributes:
        name: what to call it in a report.
        splits: by name: train, val, test, shift-<name>, val-<name>, unlabelled; those that exist.
        classes: class names, in label order (sorted).
        rules: plain sentences, how the splits came about and what was left alone.
        mirror: whether a mirrored image keeps its label (not so for digits).
        quarantined: files set aside, with their reasons.
        duplicates: images the leak audit removed.
    """

    name: str
    splits: Mapping[str, ImageSplit]
    classes: tuple[str, ...]
    rules: tuple[str, ...] = ()
    mirror: bool = True
    quarantined: tuple[Quarantined, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()

    def __getitem__(self, name: str) -> ImageSplit:
        if name not in self.splits:
            raise DataError(
                f"{self.name} has no split {name!r}; it has {', '.join(self.splits)}" + did_you_mean(name, self.splits)
            )
        return self.splits[name]

    def __contains__(self, name: object) -> bool:
        return name in self.splits

    def only(self, *names: str) -> ImageSet:
        """The same set with these splits alone, in this order."""
        return replace(self, splits={name: self[name] for name in names})

    def shifts(self) -> tuple[str, ...]:
        """Names of the reported shifts: the splits that start with `shift-`."""
        return tuple(name for name in self.splits if name.startswith("shift-"))

    def summary(self) -> DataSummary:
        """Counts by split and class, rules, quarantine and duplicates, for the report."""
        return DataSummary(
            name=self.name,
            classes=self.classes,
            counts={name: split.class_counts() for name, split in self.splits.items()},
            rules=self.rules,
            quarantined=self.quarantined,
            duplicates=self.duplicates,
        )

    @classmethod
    def from_folder(cls, path: str | Path, *, seed: int = 0) -> ImageSet:
        """Split folders or one level of class folders; see `headfirst.data.folders`."""
        from headfirst.data.folders import read_folder

        return read_folder(Path(path), seed=seed)

    @classmethod
    def from_manifest(cls, path: str | Path, *, home: str | None = None, seed: int = 0) -> ImageSet:
        """A CSV or Parquet table of paths and labels; see `headfirst.data.manifest`."""
        from headfirst.data.manifest import read_manifest

        return read_manifest(Path(path), home=home, seed=seed)

    @classmethod
    def digits(cls) -> ImageSet:
        """The embedded digits, MNIST at home and UCI digits away; see `headfirst.data.digits`."""
        from headfirst.data.digits import read_digits

        return read_digits()

    @classmethod
    def open(cls, where: str | Path, *, home: str | None = None, seed: int = 0) -> ImageSet:
        """Whatever is there: "digits", a manifest, a folder with a manifest in it, or a folder of images.

        Args:
            where: the word `digits` (a folder of that name is `./digits`), a file or a folder.
            home: the home domain of a manifest with several.
            seed: of the splits that have to be cut; those of the digits are fixed.

        Raises:
            DataError: naming what is missing or wrong there.
            InputError: `home` was given, but there is no manifest to apply it to.
        """
        if where == "digits":
            _refuse_home(home, "the embedded digits")
            return cls.digits()
        path = Path(where)
        if not path.exists():
            siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise DataError(
                f"{path} does not exist{did_you_mean(path.name, siblings)}; "
                "give a folder of images, a manifest.csv or manifest.parquet, or the word digits"
            )
        manifests = [path] if path.is_file() else [path / f"manifest.{end}" for end in ("csv", "parquet")]
        present = [manifest for manifest in manifests if manifest.is_file()]
        if len(present) > 1:
            raise DataError(f"{path} holds both manifest.csv and manifest.parquet; name the one to read")
        if present:
            return cls.from_manifest(present[0], home=home, seed=seed)
        _refuse_home(home, f"{path}, a folder without a manifest")
        return cls.from_folder(path, seed=seed)


def _refuse_home(home: str | None, what: str) -> None:
    if home is not None:
        raise InputError(f"home={home!r} names a domain of a manifest, but the images are {what}; leave it out")


def _not_prepared(name: str) -> InputError:
    return InputError(
        f"split {name!r} has no pixels yet; call headfirst.data.prepare(images, backbone.preprocessing) first"
    )

"""Images and their captions: splits of pairs, before and after their pixels are ready.

What enters: a table `path,caption`, a folder with a `.txt` beside each image, or WebDataset shards. What leaves: a
`PairSet`, with every file that is no pair listed and its reason.

Shape letters: N pairs of a split.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from headfirst.data.hashing import hash_number
from headfirst.data.imageset import ImageSplit
from headfirst.data.pixels import prepare_split
from headfirst.errors import DataError, InputError, did_you_mean
from headfirst.randomness import keyed_bits
from headfirst.types import Preprocessing, Progress, Quarantined, silent

VAL_SHARE = 0.1
"""Of the distinct captions, where no pair says its split."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """One split of pairs.

    Attributes:
        images: the images; its labels are those of the table, -1 where there are none.
        captions: one for each image, in one spelling (NFC) and without line breaks.
    """

    images: ImageSplit
    captions: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.captions) != len(self.images):
            raise InputError(f"each image needs one caption: {len(self.images)} images, {len(self.captions)} captions")

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def name(self) -> str:
        """The split's name."""
        return self.images.name

    def take(self, indices: Sequence[int] | np.ndarray | Tensor) -> Pairs:
        """The pairs at `indices`, in that order."""
        rows = [int(i) for i in indices]
        return Pairs(images=self.images.take(rows), captions=tuple(self.captions[i] for i in rows))

    @property
    def groups(self) -> Int64[np.ndarray, " n"]:
        """(N,) number of each pair's caption among the distinct ones: pairs of one caption are all partners."""
        number = {caption: i for i, caption in enumerate(dict.fromkeys(self.captions))}
        return np.array([number[caption] for caption in self.captions], dtype=np.int64)

    @property
    def fingerprint(self) -> str:
        """Hash of the images' contents and their captions (sha256; prepared pairs only)."""
        digest = hashlib.sha256(self.images.fingerprint.encode())
        for caption in self.captions:
            data = caption.encode("utf-8", "surrogatepass")
            digest.update(f"{len(data)}:".encode() + data)
        return digest.hexdigest()

    def prepare(
        self, preprocessing: Preprocessing, *, cache: Path | None = None, progress: Progress = silent
    ) -> tuple[Pairs, tuple[Quarantined, ...]]:
        """The pairs with their pixels, and those whose images cannot be read; see `headfirst.data.prepare`.

        Raises:
            DataError: no image of the split can be read.
        """
        images, unreadable = prepare_split(self.images, preprocessing, cache=cache, progress=progress)
        caption_of = dict(zip(self.images.ids, self.captions, strict=True))
        return Pairs(images=images, captions=tuple(caption_of[id_] for id_ in images.ids)), unreadable


@dataclass(frozen=True, kw_only=True, eq=False)
class PairSet:
    """All splits of pairs.

    Attributes:
        name: what to call it in a report.
        splits: by name: train, val, test, shift-<name>, val-<name>; those that exist.
        rules: plain sentences, how the splits came about and what was left alone.
        quarantined: what is no pair, with its reason: no caption, a link, a shard cut short.
    """

    name: str
    splits: Mapping[str, Pairs]
    rules: tuple[str, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()

    def __getitem__(self, name: str) -> Pairs:
        if name not in self.splits:
            raise DataError(
                f"{self.name} has no split {name!r}; it has {', '.join(self.splits)}" + did_you_mean(name, self.splits)
            )
        return self.splits[name]

    def __contains__(self, name: object) -> bool:
        return name in self.splits

    def reasons(self) -> dict[str, int]:
        """How many were set aside, by reason, the most frequent first."""
        return dict(Counter(q.reason for q in self.quarantined).most_common())

    def prepare(
        self, preprocessing: Preprocessing, *, cache: Path | None = None, progress: Progress = silent
    ) -> PairSet:
        """Every split with its pixels; unreadable images join `quarantined`."""
        splits, quarantined = {}, list(self.quarantined)
        for name, pairs in self.splits.items():
            splits[name], unreadable = pairs.prepare(preprocessing, cache=cache, progress=progress)
            quarantined.extend(unreadable)
        return replace(self, splits=splits, quarantined=tuple(quarantined))

    @classmethod
    def open(cls, where: str | Path, *, home: str | None = None, seed: int = 0, cache: Path | None = None) -> PairSet:
        """Whatever is there; see `headfirst.data.pair_files` and `headfirst.data.shards`.

        Args:
            where: `….csv`, `….parquet`, `….tar`, or a folder: with pairs.csv or pairs.parquet, with shards, or with
                images and their `.txt`.
            home: of a table with several domains, the one to train on; the others become shifts. None trains on all.
            seed: of the split, where no pair says its own.
            cache: where images out of shards are kept (`headfirst.data.cache_dir()` if None).

        Raises:
            DataError: there is nothing there, or not one pair.
            InputError: `home` is no domain of the table, or there is no table.
        """
        from headfirst.data.pair_files import read_pairs

        return read_pairs(Path(where), home=home, seed=seed, cache=cache)


def held_out(captions: Sequence[str], *, seed: int, share: float = VAL_SHARE) -> list[bool]:
    """Which pairs are held out: `share` of the distinct captions (at least one), drawn by seed and caption."""
    distinct = sorted(set(captions))
    numbers = np.array([hash_number(caption) for caption in distinct], dtype=np.uint64)
    order = np.argsort(keyed_bits(seed, numbers), kind="stable")
    chosen = {distinct[i] for i in order[: max(1, round(share * len(distinct)))]}
    return [caption in chosen for caption in captions]

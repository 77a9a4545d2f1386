"""Cutting splits and drawing k-shot samples: by a seed and the images' names, never by file order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from headfirst.data.hashing import hash_number
from headfirst.data.imageset import ImageSplit
from headfirst.errors import DataError, InputError
from headfirst.randomness import keyed_bits


def shuffled_by_name(names: Sequence[str], *, seed: int, stream: int | None = None) -> Int64[np.ndarray, " n"]:
    """Indices of `names` in an order that depends on the seed and the names, not on their order.

    Each name draws its own number, so adding or removing an image leaves the others in place.

    Args:
        stream: another order of the same seed. Where splits were cut by one order, what was put together from them is
            shuffled fairly by another only: in their own order, one split's names come last.
    """
    key = (seed,) if stream is None else (seed, stream)
    draws = keyed_bits(*key, np.array([hash_number(name) for name in names], dtype=np.uint64))
    return np.array(sorted(range(len(names)), key=lambda i: (int(draws[i]), names[i])), dtype=np.int64)


def few_shot(split: ImageSplit, k: int, *, seed: int) -> ImageSplit:
    """Exactly `k` images of each class.

    The draw depends on the seed and the images' ids alone. k-shot samples of one seed are nested: those of
    k = 5 are among those of k = 10.

    Args:
        split: a labelled split.
        k: images a class, at least 1.
        seed: of the draw.

    Returns:
        K·k images, sorted by id.

    Raises:
        DataError: naming the classes that are short.
    """
    rows = _first_of_each_class(split, k, seed=seed)
    short = [f"{name!r} has {len(found)}" for name, found in zip(split.classes, rows, strict=True) if len(found) < k]
    if short:
        more = f" and {len(short) - 10} other classes have fewer too" if len(short) > 10 else ""
        raise DataError(
            f"{k} shots need {k} images of every class in {split.name}, but {', '.join(short[:10])}{more}; "
            "ask for fewer shots, or add images"
        )
    return split.take(_by_id(split, rows))


def cap_per_class(split: ImageSplit, k: int, *, seed: int) -> ImageSplit:
    """At most `k` images of each class, drawn as `few_shot` does; a class that has fewer keeps them all."""
    return split.take(_by_id(split, _first_of_each_class(split, k, seed=seed)))


def stratified_parts(
    ids: Sequence[str], labels: np.ndarray, counts: Mapping[str, int], *, seed: int
) -> dict[str, np.ndarray]:
    """Disjoint parts with `counts[part]` images of each class.

    Args:
        ids: one name an image.
        labels: (N,) int64.
        counts: images a class and part; no class may have fewer than their sum.

    Returns:
        indices of each part, ascending.
    """
    order = shuffled_by_name(ids, seed=seed)
    parts: dict[str, list[int]] = {name: [] for name in counts}
    for label in np.unique(labels):
        members = order[labels[order] == label]
        start = 0
        for name, count in counts.items():
            parts[name].extend(members[start : start + count].tolist())
            start += count
    return {name: np.array(sorted(rows), dtype=np.int64) for name, rows in parts.items()}


def stratified_cut(
    ids: Sequence[str], labels: np.ndarray, shares: Mapping[str, float], *, seed: int
) -> dict[str, np.ndarray]:
    """Cut `shares` of every class off `train`: at least one image a class each, halves rounding up.

    Args:
        ids: one name an image.
        labels: (N,) int64, every image labelled.
        shares: share of each part, e.g. `{"val": 0.2, "test": 0.2}`; train keeps the rest.

    Returns:
        indices of train and of each part, ascending.

    Raises:
        ClassTooSmallError: a class cannot give one image to each part and keep one.
    """
    order = shuffled_by_name(ids, seed=seed)
    parts: dict[str, list[int]] = {"train": [], **{name: [] for name in shares}}
    for label in np.unique(labels):
        members = order[labels[order] == label].tolist()
        if len(members) <= len(shares):
            raise ClassTooSmallError(int(label), len(members), len(shares) + 1)
        start = 0
        for name, share in shares.items():
            stop = start + max(1, int(share * len(members) + 0.5))
            parts[name] += members[start:stop]
            start = stop
        parts["train"] += members[start:]
    return {name: np.array(sorted(rows), dtype=np.int64) for name, rows in parts.items()}


def grouped_cut(
    ids: Sequence[str], labels: np.ndarray, groups: Sequence[str], shares: Mapping[str, float], *, seed: int
) -> dict[str, np.ndarray]:
    """`stratified_cut` where a group (a patient, a camera) stays whole, on one side.

    Groups are taken largest first (ties by the seed), each into the part whose class counts it brings nearest
    to their targets, in squared error; so the shares hold as well as the groups allow.

    Args:
        groups: one group name an image.

    Returns:
        indices of train and of each part, ascending.

    Raises:
        ClassTooSmallError: the groups leave train without a class, or a part without images.
    """
    _, classes = np.unique(labels, return_inverse=True)
    names = sorted(set(groups))
    number = {name: g for g, name in enumerate(names)}
    group_of = np.array([number[group] for group in groups])
    counts = np.zeros((len(names), classes.max() + 1))
    np.add.at(counts, (group_of, classes), 1)
    all_shares = {"train": 1 - sum(shares.values()), **shares}
    targets = np.outer(list(all_shares.values()), counts.sum(axis=0))
    scale = 1 / np.maximum(counts.sum(axis=0), 1)  # a rare class weighs as much as a common one
    filled = np.zeros_like(targets)
    part_of = np.zeros(len(names), dtype=np.int64)
    order = shuffled_by_name(names, seed=seed)
    for g in order[np.argsort(-counts[order].sum(axis=1), kind="stable")]:
        gain = (((filled + counts[g] - targets) * scale) ** 2 - ((filled - targets) * scale) ** 2).sum(axis=1)
        part_of[g] = int(np.argmin(gain))
        filled[part_of[g]] += counts[g]
    missing = np.flatnonzero(filled[0] == 0)
    if len(missing):
        label = int(np.unique(labels)[missing[0]])
        raise ClassTooSmallError(label, int((counts[:, missing[0]] > 0).sum()), len(all_shares), "groups")
    image_part = part_of[group_of]
    parts = {name: np.flatnonzero(image_part == p) for p, name in enumerate(all_shares)}
    empty = [name for name, rows in parts.items() if not len(rows)]
    if empty:
        raise DataError(
            f"{len(names)} groups are too few to give {' and '.join(empty)} images of their own; "
            "add groups, or name the splits in a split column"
        )
    return parts


class ClassTooSmallError(DataError):
    """A class has too few images (or groups) to be on every side of a cut; the caller says its name."""

    def __init__(self, label: int, found: int, needed: int, unit: str = "images") -> None:
        super().__init__(f"class {label} has {found} {unit}; {needed} are needed, one for each split")
        self.label, self.found, self.needed, self.unit = label, found, needed, unit

    def named(self, classes: Sequence[str]) -> DataError:
        """The same refusal with the class's name."""
        return DataError(
            f"class {classes[self.label]!r} has {self.found} {self.unit}, but {self.needed} are needed to "
            "cut the splits, one for each; add images of it, leave it out, or cut the splits yourself"
        )


def _first_of_each_class(split: ImageSplit, k: int, *, seed: int) -> list[np.ndarray]:
    if k < 1:
        raise InputError(f"a number of shots is at least 1, got {k}")
    if (split.labels < 0).any():
        raise InputError(f"split {split.name!r} has unlabelled images; shots are drawn from labelled ones")
    order = shuffled_by_name(split.ids, seed=seed)
    return [order[split.labels[order] == label][:k] for label in range(len(split.classes))]


def _by_id(split: ImageSplit, rows: Sequence[np.ndarray]) -> list[int]:
    return sorted(np.concatenate(rows).tolist(), key=lambda i: split.ids[i])

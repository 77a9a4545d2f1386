"""Small pairs that can be learnt: the colour of an image is in its caption."""

from __future__ import annotations

import numpy as np

from headfirst.data import ImageSplit, Pairs

COLOURS = ("red", "green", "blue")


def make_pairs(name: str, count: int, *, seed: int, distinct: bool = False) -> Pairs:
    """`a photo of a red thing`, one of three, or with a number of dots that tells the captions apart."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = random.integers(0, 120, size=(count, 32, 32, 3))
    for i, label in enumerate(labels):
        images[i, ..., label] += 100
    split = ImageSplit(
        name=name,
        ids=tuple(f"{name}/{i:03d}" for i in range(count)),
        sources=tuple(image.astype(np.uint8) for image in images),
        labels=labels.astype(np.int64),
        classes=COLOURS,
    )
    endings = [" ." * (i // 3) if distinct else "" for i in range(count)]
    return Pairs(images=split, captions=tuple(f"a {COLOURS[k]} thing{e}" for k, e in zip(labels, endings, strict=True)))

"""How much of each class the generated images reach, asked of real images that no generator saw.

Shape letters: N training, H held-out and M generated images of one class, D features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.augment.filter import REAL_INSIDE, nearest_fellow
from headfirst.errors import InputError
from headfirst.metrics import binomial_interval
from headfirst.metrics.neighbours import nearest_of
from headfirst.types import Features


@dataclass(frozen=True, kw_only=True)
class ClassCoverage:
    """Of one class.

    Attributes:
        covered, num: held-out images that a generated one lies near, of how many.
        value, low, high: that share and its exact interval (Clopper-Pearson).
        by_real: the share that a real training image lies near.
    """

    class_name: str
    covered: int
    num: int
    value: float
    low: float
    high: float
    by_real: float


def class_coverage(
    held_out: Features, generated: Features, real: Features, *, level: float = 0.95
) -> tuple[ClassCoverage, ...]:
    """Share of each class's held-out images with a generated image of the class near them.

    Near is the distance within which 90 % of the class's training images have another one. It depends on the training
    images alone, so that held-out images are covered or not independently of each other and the interval is exact: low
    is what is surely reached. Classes with fewer than two training images, or none held out, are left out.

    Args:
        held_out: real images, seen neither by the generator nor by whatever filtered its images.
        generated: images that would enter training.
        real: the training images.
        level: of the interval.

    Raises:
        InputError: other classes or backbones.
    """
    if (
        len({f.classes for f in (held_out, generated, real)}) > 1
        or len({f.source for f in (held_out, generated, real)}) > 1
    ):
        raise InputError("coverage needs the same classes and the same backbone for all images; embed all with one")
    found = []
    for label, name in enumerate(real.classes):
        h, m, n = (f.values[f.labels == label].double() for f in (held_out, generated, real))
        if len(n) < 2 or not len(h):
            continue
        near = nearest_fellow(n).sort().values[math.ceil(REAL_INSIDE * len(n)) - 1]
        covered = _reached(h, m, near)
        share = binomial_interval(covered, len(h), level=level)
        found.append(
            ClassCoverage(
                class_name=name,
                covered=covered,
                num=len(h),
                value=share.value,
                low=share.low,
                high=share.high,
                by_real=_reached(h, n, near) / len(h),
            )
        )
    return tuple(found)


def _reached(h: Float[Tensor, "h d"], others: Float[Tensor, "m d"], near: Tensor) -> int:
    if not len(others):
        return 0
    return int(torch.count_nonzero(nearest_of(h, others).squared.sqrt() <= near))

"""How much guidance: what each weight gains in images of the right class, and what it costs in variety.

What enters: a diffusion model with classes, images, a backbone, weights. What leaves: a row for each weight, and one of
them recommended by a rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from headfirst.adapt import LinearProbe
from headfirst.augment import as_split
from headfirst.data import ImageSet
from headfirst.data.imageset import UNLABELLED
from headfirst.errors import InputError
from headfirst.features import embed
from headfirst.generate import Generator
from headfirst.metrics import density_coverage, frechet_distance
from headfirst.nn import PretrainedBackbone
from headfirst.study.generator_data import at_size
from headfirst.study.generator_evaluation import K_COVERAGE, LEAST
from headfirst.study.generator_scores import Score, share
from headfirst.types import Progress, silent

WEIGHTS = (1.0, 1.5, 2.0, 3.0, 5.0)


@dataclass(frozen=True, kw_only=True)
class GuidanceRow:
    """What images guided by w are like.

    Attributes:
        weight: w; 1 is the class as it is.
        recognised: share that a linear probe of real training images takes for the class it was made as.
        coverage: share of the real images that have a made one among their near ones: the variety.
        frechet: Fréchet distance to the real images, without the bias of few images.
    """

    weight: float
    recognised: Score
    coverage: Score
    frechet: Score


@dataclass(frozen=True, kw_only=True)
class GuidancePath:
    """A row for each weight, the recommended one, and why.

    Attributes:
        split: of the real images. The weight is chosen on it, so that its numbers are no report of the chosen one.
        generator: its fingerprint.
    """

    rows: tuple[GuidanceRow, ...]
    recommended: float
    sentence: str
    data: str
    split: str
    backbone: str
    generator: str
    num_generated: int
    num_real: int
    seed: int


def guidance_path(
    generator: Generator,
    images: ImageSet,
    backbone: PretrainedBackbone,
    *,
    weights: Sequence[float] = WEIGHTS,
    num: int = 1000,
    split: str = "val",
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> GuidancePath:
    """Make the same seeds with each weight, embed them, and hold them against real images.

    Args:
        images: with `train`, which teaches the probe, and the same classes as the generator.
        weights: positive; 1 is always among them.
        num: images for each weight.
        split: the real images, which neither the generator nor the probe has seen; best not the one to report on.

    Raises:
        InputError: a generator that cannot be guided, other classes, weights that cannot be, too few images.
        DataError: no such split.
    """
    if generator.kind != "diffusion" or not generator.classes:
        raise InputError(
            f"guidance goes towards a class, so it takes a diffusion model that was trained with classes, got a "
            f"{generator.kind} of {len(generator.classes)} classes"
        )
    wrong = [weight for weight in weights if not 0 < weight < math.inf]
    if wrong or num < LEAST:
        raise InputError(f"weights must be positive and num at least {LEAST}, got {wrong or weights} and {num}")
    if images.classes != generator.classes:
        raise InputError(
            f"{images.name} has the classes {', '.join(images.classes)}, the generator {', '.join(generator.classes)}; "
            "give the images it learned from"
        )
    if split in ("train", UNLABELLED):
        raise InputError(f"split {split!r} is learned from; give one that is not, such as val")
    size = generator.network.size
    held_out, train = (at_size(images[name], size, progress=progress) for name in (split, "train"))
    if len(held_out) < LEAST:
        raise InputError(f"split {split!r} of {images.name} has {len(held_out)} images; give at least {LEAST}")
    real, known = (embed(backbone, each, device=device, progress=progress) for each in (held_out, train))
    probe = LinearProbe(seed=seed).fit(known)
    rows = []
    for weight in sorted({1.0, *map(float, weights)}):
        sampling = replace(generator.network.sampling, guidance=weight)
        made = generator.sample(num, seed=seed, sampling=sampling, device=device, progress=progress)
        features = embed(backbone, as_split(made, name="generated"), device=device, progress=progress)
        distance = frechet_distance(features.values, real.values)
        spread = density_coverage(real.values, features.values, K_COVERAGE)
        right = int((probe.predict(features.values) == made.labels).sum())
        rows.append(
            GuidanceRow(
                weight=weight,
                recognised=share(right, num),
                coverage=share(round(spread.coverage * len(real)), len(real), spread.expected_coverage),
                frechet=Score(value=distance.corrected, low=distance.low, high=distance.high, expected=0.0),
            )
        )
    best, chosen = recommend(rows)
    return GuidancePath(
        rows=tuple(rows),
        recommended=chosen.weight,
        sentence=_sentence(rows, best, chosen),
        data=images.name,
        split=split,
        backbone=backbone.name,
        generator=generator.fingerprint,
        num_generated=num,
        num_real=len(real),
        seed=seed,
    )


def recommend(rows: Sequence[GuidanceRow]) -> tuple[GuidanceRow, GuidanceRow]:
    """The row of the least Fréchet distance, and the one that is recommended: the weight nearest to 1 whose interval
    reaches down to that one's. So nothing is guided, and no variety given up, that does not surely pay."""
    best = min(rows, key=lambda row: row.frechet.value)
    as_good = [row for row in rows if _low(row) <= _high(best)]
    return best, min(as_good, key=lambda row: (abs(row.weight - 1), row.frechet.value))


def _sentence(rows: Sequence[GuidanceRow], best: GuidanceRow, chosen: GuidanceRow) -> str:
    plain = next(row for row in rows if row.weight == 1)
    why = (
        "its Fréchet distance is the least"
        if chosen is best
        else f"of the weights that cannot be told from that of the least Fréchet distance, {best.weight:g}, it is the "
        "nearest to 1"
    )
    if chosen is plain:
        return f"guidance 1, which is none, is recommended: {why}"
    return (
        f"guidance {chosen.weight:g} is recommended: {why}; against none, {_change(plain, chosen, 'recognised')} of "
        f"made images are recognised and {_change(plain, chosen, 'coverage')} of real ones covered"
    )


def _change(a: GuidanceRow, b: GuidanceRow, name: str) -> str:
    return f"{100 * getattr(b, name).value:.1f} % instead of {100 * getattr(a, name).value:.1f} %"


def _low(row: GuidanceRow) -> float:
    return -math.inf if row.frechet.low is None else row.frechet.low


def _high(row: GuidanceRow) -> float:
    return math.inf if row.frechet.high is None else row.frechet.high

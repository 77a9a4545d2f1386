"""A generator's images held against real ones it never saw, in the features of a backbone.

What enters: a generator, a set of images, a backbone. What leaves: `GeneratorScores`, each number beside what real
training images get in its place and, where it is known, what a second sample of the real distribution would get.

Shape letters: N generated and M real images, T training images, D features, K classes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.adapt import LinearProbe
from headfirst.augment import as_split
from headfirst.data import ImageSet, ImageSplit
from headfirst.data.hashing import hash_array, hash_bytes
from headfirst.data.imageset import UNLABELLED
from headfirst.errors import DataError, InputError
from headfirst.features import embed
from headfirst.generate import Generator, bound
from headfirst.metrics import (
    binomial_interval,
    class_weight_distance,
    closest_pair,
    density_coverage,
    duplicate_estimate,
    frechet_distance,
    kernel_distance,
    memorisation_test,
    precision_recall,
)
from headfirst.metrics.neighbours import in_one_frame, nearest_of
from headfirst.nn import PretrainedBackbone
from headfirst.randomness import keyed_permutation
from headfirst.study.generator_data import at_size, training_pool
from headfirst.study.generator_scores import ClassScore, GeneratorScores, ModelBound, Repeats, Score
from headfirst.study.picture_grid import inline_png
from headfirst.types import Features, Progress, Samples, silent

K_RECALL, K_COVERAGE = 3, 5
"""Neighbours, as the sources have them: Kynkäänniemi et al. 2019 and Naeem et al. 2020."""
LEAST = 10
"""Images a side, below which nothing is computed."""
SHOWN = 8
"""Generated images that are shown beside the real ones nearest to them."""

BOUND_IMAGES, BOUND_DRAWS, BOUND_REFINE = 500, 500, 50
"""A VAE's bound is that of so many real images, by so many draws each."""

_STREAM = 0x67_656E


@dataclass(frozen=True, kw_only=True)
class Lookalike:
    """A generated image, the training and the held-out image nearest to it, and the distances in features.

    Pictures are `data:image/png;base64,…` addresses.
    """

    sample: str
    picture: str
    training: str
    training_picture: str
    training_distance: float
    held_out: str
    held_out_picture: str
    held_out_distance: float


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneratorEvaluation:
    """`scores`, and the generated images most like a training image, the most alike first."""

    scores: GeneratorScores
    lookalikes: tuple[Lookalike, ...]


def evaluate_generator(
    generator: Generator,
    images: ImageSet,
    backbone: PretrainedBackbone,
    *,
    num: int = 2000,
    split: str = "test",
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> GeneratorEvaluation:
    """Sample, embed, measure.

    Real images are brought to the generator's size first, so that a backbone that sees more does not count
    resolution. A set without any label has no splits: all of it is the real side, unless the generator learned from it.

    Args:
        images: as opened; its training images are those of the generator, or are told apart from them by content.
        backbone: any; its weights and preprocessing are part of every score.
        num: N.
        split: of the real images: one the generator never saw.
        seed: of the samples.

    Raises:
        InputError: fewer than 10 images on a side, a split that was learned from.
        DataError: no such split.
    """
    if num < LEAST:
        raise InputError(f"num must be at least {LEAST} for there to be something to measure, got {num}")
    size = generator.sample(1).pixels.shape[-1]
    real = real_images(generator, images, split, size, progress)
    pool, learned = _learned_from(generator, images, size, progress) if real.name != UNLABELLED else (None, False)
    made = generator.sample(num, seed=seed, device=device, progress=progress)

    def embedded(images: ImageSplit) -> Features:
        return embed(backbone, images, device=device, progress=progress)

    held_out = at_size(real, size, progress=progress)
    f_made, f_real = embedded(as_split(made, name="generated")), embedded(held_out)
    training = None if pool is None else at_size(pool, size, progress=progress)
    f_train = None if training is None else _labelled_again(embedded(training), images)
    few = f_train.take(keyed_permutation(len(f_train), seed, _STREAM)[:num].tolist()) if f_train else None

    of_generated = _distances(f_real.values, f_made.values)
    of_real = _distances(f_real.values, few.values) if few is not None and len(few) >= LEAST else {}
    by_class: tuple[ClassScore, ...] = ()
    if f_train is not None and _has_classes(f_train):
        probe = LinearProbe(seed=seed).fit(f_train)
        shares = torch.bincount(f_train.labels, minlength=len(f_train.classes)) / len(f_train)
        found = probe.predict(f_made.values)
        of_generated |= _classes(found, f_made, f_train.classes, shares)
        if _has_classes(f_real):
            of_real |= _classes(probe.predict(f_real.values), f_real, f_train.classes, shares)
        by_class = _by_class(found, f_made, f_train.classes)
    memorised = (
        memorisation_test(f_made.values, f_train.values, f_real.values, seed=seed) if learned and f_train else None
    )
    scores = GeneratorScores(
        generator=generator.fingerprint,
        kind=generator.kind,
        recipe=generator.recipe,
        data=images.name,
        split=real.name,
        real=_content(held_out),
        backbone=backbone.name,
        features=backbone.fingerprint,
        preprocessing=asdict(backbone.preprocessing),
        size=size,
        seed=seed,
        num_generated=num,
        num_real=len(f_real),
        num_reference=len(few) if few is not None else 0,
        of_generated=of_generated,
        of_real=of_real,
        repeats=_repeats(f_made.values, few.values if few is not None else f_real.values),
        by_class=by_class,
        memorisation=memorised,
        bound=_bound(generator, real, seed, progress),
        why_not="" if memorised else f"{images.name} does not hold the images that the generator learned from",
    )
    alike = _lookalikes(made, f_made, training, f_train, held_out, f_real) if training and f_train and learned else ()
    return GeneratorEvaluation(scores=scores, lookalikes=alike)


def real_images(
    generator: Generator, images: ImageSet, split: str, size: int, progress: Progress = silent
) -> ImageSplit:
    """The real images that a generator of S × S pixels is held against.

    Raises:
        InputError: a split that was learned from.
        DataError: no such split, or fewer than 10 images in it.
    """
    if list(images.splits) == [UNLABELLED]:
        if _learned_from(generator, images, size, progress)[1]:
            raise InputError(
                f"the generator learned from all images of {images.name}, and one that repeats them would score best; "
                "give images it never saw"
            )
        real = images[UNLABELLED]
    elif split in ("train", UNLABELLED):
        raise InputError(f"split {split!r} is learned from; give one that is not, such as test")
    else:
        real = images[split]
    if len(real) < LEAST:
        raise DataError(
            f"split {real.name!r} of {images.name} has {len(real)} images, too few to measure; give at least {LEAST}"
        )
    return real


def _learned_from(
    generator: Generator, images: ImageSet, size: int, progress: Progress
) -> tuple[ImageSplit | None, bool]:
    """The training images, and whether they are those of the generator."""
    if "train" not in images and UNLABELLED not in images:
        return None, False
    pool = None
    for asked in dict.fromkeys((bool(generator.classes), True, False)):
        pool = training_pool(images, size=size, with_classes=asked, progress=progress).split
        plain = replace(pool, labels=np.full(len(pool), -1))
        if generator.trained_on in (pool.fingerprint, plain.fingerprint):
            return pool, True
    return pool, False


def _distances(real: Float[Tensor, "m d"], other: Float[Tensor, "n d"]) -> dict[str, Score]:
    frechet, kernel = frechet_distance(other, real), kernel_distance(other, real)
    found, spread = precision_recall(real, other, K_RECALL), density_coverage(real, other, K_COVERAGE)
    return {
        "frechet": Score(value=frechet.value),
        "frechet_corrected": Score(value=frechet.corrected, low=frechet.low, high=frechet.high, expected=0.0),
        "kernel": Score(value=kernel.corrected, low=kernel.low, high=kernel.high, expected=0.0),
        "precision": _share(found.precision, len(other), found.expected),
        "recall": _share(found.recall, len(real), found.expected),
        "density": Score(value=spread.density, expected=spread.expected_density),
        "coverage": Score(value=spread.coverage, expected=spread.expected_coverage),
    }


def _share(value: float, n: int, expected: float | None = None) -> Score:
    """A share of n images, given the other side."""
    interval = binomial_interval(round(value * n), n)
    return Score(value=value, low=interval.low, high=interval.high, expected=expected)


def _labelled_again(features: Features, images: ImageSet) -> Features:
    """With the labels of `train`, where they were taken off."""
    if "train" not in images:
        return features
    train = images["train"]
    label_of = dict(zip(train.ids, train.labels.tolist(), strict=True))
    labels = torch.tensor([label_of.get(id_, -1) for id_ in features.ids])
    return replace(features, labels=labels, classes=train.classes)


def _has_classes(features: Features) -> bool:
    return bool((features.labels >= 0).all()) and len(features.labels.unique()) > 1


def _classes(
    found: Int[Tensor, " n"], of: Features, classes: tuple[str, ...], shares: Float[Tensor, " k"]
) -> dict[str, Score]:
    weights = class_weight_distance(found, shares.double())
    scores = {"class_weights": Score(value=weights.total_variation, expected=weights.expected)}
    if of.classes == classes and _has_classes(of):
        scores["recognised"] = _share((found == of.labels).double().mean().item(), len(found))
    return scores


def _by_class(found: Int[Tensor, " n"], of: Features, classes: tuple[str, ...]) -> tuple[ClassScore, ...]:
    if of.classes != classes:
        return ()
    return tuple(
        ClassScore(
            name=name,
            generated=int((of.labels == k).sum()),
            recognised=int(((of.labels == k) & (found == k)).sum()),
        )
        for k, name in enumerate(classes)
    )


def _bound(generator: Generator, real: ImageSplit, seed: int, progress: Progress) -> ModelBound | None:
    """What a VAE says of real images, in nats an image; nothing where it cannot be asked of them."""
    if generator.kind != "vae" or (generator.classes and real.classes != generator.classes):
        return None
    few = real.take(keyed_permutation(len(real), seed, _STREAM)[:BOUND_IMAGES])
    try:
        found = bound(generator, few, draws=BOUND_DRAWS, refine=BOUND_REFINE, seed=seed, progress=progress)
    except InputError:  # coloured images, and it knows grey alone; or images without a label
        return None
    half = 1.96 * found.per_image.std().item() / math.sqrt(len(few))
    return ModelBound(
        nats=found.mean, low=found.mean - half, high=found.mean + half, num_images=len(few), draws=BOUND_DRAWS
    )


def _repeats(made: Float[Tensor, "n d"], real: Float[Tensor, "m d"]) -> Repeats:
    threshold = closest_pair(real) / 2
    found = duplicate_estimate(made, threshold)
    return Repeats(
        pairs=found.pairs,
        threshold=threshold,
        support=found.support if math.isfinite(found.support) else None,
        low=found.low,
        high=found.high if math.isfinite(found.high) else None,
    )


def _content(split: ImageSplit) -> str:
    """Hash of the images and nothing else: neither labels nor their order."""
    digests = sorted(hash_array(np.ascontiguousarray(source)) for source in split.sources)
    return hash_bytes("".join(digests).encode())


def _lookalikes(
    made: Samples, f_made: Features, training: ImageSplit, f_train: Features, real: ImageSplit, f_real: Features
) -> tuple[Lookalike, ...]:
    """The generated images nearest to a training image."""
    g, t, scale = in_one_frame(f_made.values, f_train.values)
    near = nearest_of(g, t)
    first = near.squared.argsort(stable=True)[:SHOWN]
    h, r, held_scale = in_one_frame(f_made.values[first], f_real.values)
    other = nearest_of(h, r)
    ids, pixels = f_made.ids, made.pixels.permute(0, 2, 3, 1).contiguous().numpy()
    found = []
    for place, row in enumerate(first.tolist()):
        i, j = int(near.indices[row]), int(other.indices[place])
        found.append(
            Lookalike(
                sample=ids[row],
                picture=inline_png(pixels[row]),
                training=training.ids[i],
                training_picture=inline_png(np.asarray(training.sources[i])),
                training_distance=near.squared[row].sqrt().item() * scale,
                held_out=real.ids[j],
                held_out_picture=inline_png(np.asarray(real.sources[j])),
                held_out_distance=other.squared[place].sqrt().item() * held_scale,
            )
        )
    return tuple(found)

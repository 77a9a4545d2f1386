"""Claim 11: discriminative models learn p(y|x), generative ones the distribution.

Six classifiers by the number of labels: logistic regression and a linear support vector machine, which learn where the
classes part, against Gaussians of each class (LDA, naive Bayes) on the same inputs, and a class-conditional VAE and
diffusion model on pixels. The inputs are a backbone's features, and raw pixels.

What is kept under `work`: the VAEs and diffusion models, and what they say of the images.

Shape letters: S draws of labels, N images, K classes, P classes with training images, D features, C channels, S pixels
a side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.adapt import LinearProbe
from headfirst.claims.claim import ClaimResult, Comparison, judged, over_seeds
from headfirst.claims.claim_11_figure import curves_and_samples
from headfirst.claims.experiment import in_a_folder, ready, some_of_each
from headfirst.claims.few_label_classifiers import (
    CLASSIFIERS,
    CONDITIONAL,
    DIFFUSION,
    EVIDENCE,
    FEATURES,
    GENERATIVE,
    IMPORTANCE,
    LOGISTIC,
    MARGIN_WEIGHT,
    PIXELS,
    Classifier,
    FewLabelGenerators,
    as_pixels,
    gaussians,
    generators_of,
    log_density,
    noise_like,
    taken,
)
from headfirst.claims.trained import seen
from headfirst.data import ImageSet, ImageSplit, shuffled_by_name
from headfirst.errors import DataError
from headfirst.features import embed, side_by_side
from headfirst.generate import Generator
from headfirst.metrics import Interval, auroc, auroc_interval, frechet_distance
from headfirst.nn import PretrainedBackbone
from headfirst.study import LabelEfficiency, label_efficiency
from headfirst.types import Features, Predictions, Progress, silent

LABELS, QUICK_LABELS = (1, 2, 5, 10, 20, 50), (1, 2, 10, 50)
"""Labels a class, as many of these as the smallest class has. Named beforehand: with the first two, generative models
are to be ahead, with the last behind."""
DRAWS, QUICK_DRAWS = 10, 3
NUM_TEST = 1000

IMAGE_LABELS, IMAGE_DRAWS, QUICK_IMAGE_DRAWS = (5, 20, 50), 5, 2
"""Of generators of images: VAEs and diffusion models."""
STEPS, QUICK_STEPS = {CONDITIONAL: 400, DIFFUSION: 400}, {CONDITIONAL: 200, DIFFUSION: 200}
NUM_BY_BOUND = 300
"""Images that a generator classifies, a split."""
NUM_SAMPLES, NUM_DENSITY, SHOWN = 1000, 300, 20


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Fréchet distances to test images in the backbone's features, each over that of noise with the mean and variance
    of every coordinate, one a draw of labels.

    Attributes:
        distance: generative model → a draw's samples.
        fresh: another sample of real images.
        shown: generator of images → (N, C, S, S) of its first draw's.
    """

    distance: Mapping[str, list[float]]
    fresh: Mapping[str, float]
    shown: Mapping[str, Float[Tensor, "n c s s"]]


Scores = Mapping[str, Mapping[str, tuple[Tensor, Tensor]]]
"""Model → what home images are told from → (scores of home images, scores of the others), higher for home."""


@in_a_folder
def run(
    data: ImageSet,
    backbone: PretrainedBackbone,
    seeds: Sequence[int],
    *,
    quick: bool = False,
    work: Path,
    progress: Progress = silent,
) -> ClaimResult:
    """Accuracy by number of labels, samples, and densities of models that know p(x) or do not.

    Args:
        seeds: twice as many draws of labels, and of those of a generator of images as many, at least `IMAGE_DRAWS`.
    """
    labels, of_images = labels_of(data, QUICK_LABELS if quick else LABELS), labels_of(data, IMAGE_LABELS)
    draws = QUICK_DRAWS if quick else max(DRAWS, 2 * len(seeds))
    data = ready(data, backbone, progress)
    asked = {"train": data["train"], **{name: _some(data[name], NUM_TEST) for name in ("test", *data.shifts())}}
    inputs = {
        FEATURES: {name: embed(backbone, split, progress=progress) for name, split in asked.items()},
        PIXELS: as_pixels(asked),
    }
    found = {
        what: label_efficiency(_arms(held, data["train"]), data["train"], shots=labels, draws=draws,
                               splits=tuple(asked)[1:], start=LOGISTIC, progress=progress)
        for what, held in inputs.items()
    }  # fmt: skip
    generators = generators_of(
        data["train"],
        {name: _some(asked[name], NUM_BY_BOUND) for name in tuple(asked)[1:]},
        QUICK_STEPS if quick else STEPS,
        work,
    )
    draws_of_images = QUICK_IMAGE_DRAWS if quick else max(IMAGE_DRAWS, len(seeds))
    by_evidence = compared_with_generators(
        generators, inputs[PIXELS], of_images[-1:] if quick else of_images, draws_of_images, progress
    )
    sampled = samples(inputs, generators, backbone, labels[-1], of_images[-1], draws_of_images)
    scores = likelihoods(inputs, data, generators[CONDITIONAL], backbone, labels[-1], of_images[-1])
    return ClaimResult(
        number=11,
        title="Discriminative models learn p(y|x), generative ones the distribution",
        statement=f"(1) The small-sample advantage (Ng & Jordan 2001): with {_listed(labels[:2])} labels a class, LDA "
        "and naive Bayes are more accurate on test than logistic regression on the same inputs, and with "
        f"{labels[-1]} less; both on a backbone's features and on raw pixels. (2) Generative models can be sampled: "
        "features drawn from LDA and from naive Bayes, and images drawn from a class-conditional VAE and diffusion "
        "model, are nearer to those of test images (Fréchet distance) than noise with the mean and variance of every "
        "coordinate. A discriminative model has no distribution of x to draw from.",
        rows=_rows(found, by_evidence, sampled, scores),
        figure=curves_and_samples(found, by_evidence, sampled.distance, sampled.shown),
        fine_print=_fine_print(found, by_evidence, sampled, scores, generators, inputs),
        quick=quick,
    )


def labels_of(data: ImageSet, counts: Sequence[int]) -> tuple[int, ...]:
    """Those of the counts that every class of train has images for.

    Raises:
        DataError: a class has too few for a generator of images.
    """
    have = data["train"].class_counts()
    fewest = min((have.get(name, 0) for name in data.classes), default=0)
    if fewest < IMAGE_LABELS[0]:
        raise DataError(
            f"claim 11 needs {IMAGE_LABELS[0]} labelled images of every class in train, and a class has {fewest}; "
            "add some"
        )
    return tuple(k for k in counts if k <= fewest)


def compared_with_generators(
    generators: Mapping[str, FewLabelGenerators],
    pixels: Mapping[str, Features],
    labels: Sequence[int],
    draws: int,
    progress: Progress,
) -> LabelEfficiency:
    """Generators of images, and the other classifiers of pixels on the same labels and images."""
    some = generators[CONDITIONAL]
    held = {"train": pixels["train"]}
    for name, split in some.asked.items():
        place = {id_: row for row, id_ in enumerate(pixels[name].ids)}
        held[name] = pixels[name].take([place[id_] for id_ in split.ids])
    slowest_first = product((DIFFUSION, CONDITIONAL), reversed(labels), range(draws))
    jobs = [partial(generators[name], k, draw) for name, k, draw in slowest_first]
    side_by_side(jobs, stage="generators", progress=progress)  # kept under work, and read from there
    arms = {**_arms(held, some.train), **generators}
    return label_efficiency(arms, some.train, shots=list(labels), draws=draws, splits=tuple(some.asked),
                            raw=CONDITIONAL, start=LOGISTIC, progress=progress)  # fmt: skip


def samples(
    inputs: Mapping[str, Mapping[str, Features]],
    generators: Mapping[str, FewLabelGenerators],
    backbone: PretrainedBackbone,
    k: int,
    k_of_images: int,
    draws: int,
) -> Sampled:
    """Drawn from every generative model of so many labels a class, and so many draws of labels."""
    features, train = inputs[FEATURES], generators[CONDITIONAL].train
    real = features["test"].values

    def distance(values: Tensor) -> float:
        return frechet_distance(values, real).corrected

    found: dict[str, list[float]] = {name: [] for name in (*GENERATIVE, *generators)}
    fresh = features["train"].values[shuffled_by_name(train.ids, seed=0)[:NUM_SAMPLES]]
    others: dict[str, list[float]] = {name: [] for name in (FEATURES, PIXELS)}
    shown: dict[str, Tensor] = {}
    for draw in range(draws):
        few = taken(features, train, k, draw)
        noise = distance(noise_like(few.values, NUM_SAMPLES, draw))
        for name in GENERATIVE:
            found[name].append(distance(gaussians(name, few).sample(NUM_SAMPLES, seed=draw).values) / noise)
        others[FEATURES].append(noise)
        few = taken(inputs[PIXELS], train, k_of_images, draw)
        of_images = {name: each.of(k_of_images, draw) for name, each in generators.items()}
        noise = distance(seen(_noise_images(few, of_images[CONDITIONAL], NUM_SAMPLES, draw), backbone))
        others[PIXELS].append(noise)
        for name, generator in of_images.items():
            images = generator.sample(NUM_SAMPLES, seed=draw).pixels.float() / 255
            found[name].append(distance(seen(images, backbone)) / noise)
            if not draw:
                few_each = [generator.sample(2, seed=0, label=c).pixels for c in range(len(train.classes))]
                shown[name] = torch.cat(few_each)[:SHOWN].float() / 255
    return Sampled(
        distance=found,
        fresh={what: distance(fresh) / float(np.mean(noise)) for what, noise in others.items()},
        shown=shown,
    )


def likelihoods(
    inputs: Mapping[str, Mapping[str, Features]],
    data: ImageSet,
    vaes: FewLabelGenerators,
    backbone: PretrainedBackbone,
    k: int,
    k_of_vae: int,
) -> Scores:
    """log p(x) of home and other images, and for comparison the confidence of logistic regression; first draw."""
    asked = some_of_each(data, NUM_DENSITY)
    held = {name: embed(backbone, split).values for name, split in asked.items()}
    home = held.pop("test")
    own = {name: held.pop(name) for name in data.shifts()}
    noise = _noise_images(inputs[PIXELS]["test"], vaes.of(k_of_vae, 0), NUM_DENSITY, 0)
    others = {**own, "corrupted images": torch.cat(list(held.values())), "noise images": seen(noise, backbone)}
    few = taken(inputs[FEATURES], vaes.train, k, 0)
    scores: dict[str, Callable[[Tensor], Tensor]] = {
        name: partial(log_density, gaussians(name, few)) for name in GENERATIVE
    }
    probe = LinearProbe(seed=0).fit(few)
    scores[LOGISTIC] = lambda values: probe.logits(values).double().softmax(dim=1).amax(dim=1)
    found: dict[str, dict[str, tuple[Tensor, Tensor]]] = {
        name: {what: (score(home), score(values)) for what, values in others.items()} for name, score in scores.items()
    }
    said = vaes(k_of_vae, 0)
    log_p = {name: each.values.double().logsumexp(dim=1) for name, each in said.items()}
    found[CONDITIONAL] = {name: (log_p["test"], log_p[name]) for name in own}
    return found


def _arms(held: Mapping[str, Features], train: ImageSplit) -> dict[str, Any]:
    """Logistic regression is what `label_efficiency` fits to features; the others are functions of a draw."""

    def drawn(classifier: Classifier) -> Callable[[int, int], Mapping[str, Predictions]]:
        def fit(k: int, draw: int) -> Mapping[str, Predictions]:
            predictions = classifier(taken(held, train, k, draw))
            return {name: predictions(each) for name, each in held.items() if name != "train"}

        return fit

    return {LOGISTIC: held, **{name: drawn(classifier) for name, classifier in CLASSIFIERS.items()}}


def _some(split: ImageSplit, count: int) -> ImageSplit:
    return split.take(shuffled_by_name(split.ids, seed=0)[:count])


def _noise_images(like: Features, generator: Generator, num: int, seed: int) -> Float[Tensor, "n c s s"]:
    """Independent pixels with the mean and variance that each has in these images."""
    network = generator.network
    return noise_like(like.values, num, seed).reshape(-1, network.channels, network.size, network.size)


def _rows(
    found: Mapping[str, LabelEfficiency], by_evidence: LabelEfficiency, sampled: Sampled, scores: Scores
) -> tuple[Comparison, ...]:
    rows, aside = [], []
    for what, each in found.items():
        few, most = each.shots[:2], each.shots[-1]
        for split, name, k in product(each.splits, GENERATIVE, (*few, most)):
            primary = split == each.splits[0]
            (rows if primary else aside).append(_ahead(what, each, name, split, k, most, primary=primary))
    rows += [
        judged(f"distance to test images, drawn from {name} over noise", over_seeds(ratios), "below", 1.0)
        for name, ratios in sampled.distance.items()
    ]  # fmt: skip
    for name, of_others in scores.items():
        score = "its confidence" if name == LOGISTIC else "log p(x)"
        aside += [
            judged(f"test images from {what}, AUROC of {score}: {name}", auroc_interval(*pair, seed=0), "above", 0.5,
                   primary=False)
            for what, pair in of_others.items()
        ]  # fmt: skip
    most = by_evidence.shots[-1]
    for split, k in product(by_evidence.splits, dict.fromkeys((by_evidence.shots[0], most))):
        aside += [_ahead(PIXELS, by_evidence, name, split, k, most, primary=False) for name in (CONDITIONAL, DIFFUSION)]
        gap = by_evidence.difference(DIFFUSION, CONDITIONAL, split, k)
        aside.append(judged(f"{PIXELS}, {split}, {_labels(k)}: accuracy, {DIFFUSION} - {CONDITIONAL}",
                            Interval(gap.value, gap.low, gap.high), "above", primary=False))  # fmt: skip
    return (*rows, *aside)


def _ahead(what: str, found: LabelEfficiency, name: str, split: str, k: int, most: int, *, primary: bool) -> Comparison:
    """A generative model over logistic regression: to be ahead, but behind with the most labels."""
    gap = found.difference(name, LOGISTIC, split, k)
    side = "below" if k == most else "above"
    return judged(f"{what}, {split}, {_labels(k)}: accuracy, {name} - {LOGISTIC}",
                  Interval(gap.value, gap.low, gap.high), side, primary=primary)  # fmt: skip


def _fine_print(
    found: Mapping[str, LabelEfficiency],
    by_evidence: LabelEfficiency,
    sampled: Sampled,
    scores: Scores,
    generators: Mapping[str, FewLabelGenerators],
    inputs: Mapping[str, Mapping[str, Features]],
) -> tuple[str, ...]:
    each = found[FEATURES]
    test = each.splits[0]
    counted = each.accuracy(LOGISTIC, test, each.shots[0])
    dims = {what: held["train"].values.shape[1] for what, held in inputs.items()}
    accuracies = "; ".join(
        f"{what}, {_labels(k)}: "
        + ", ".join(f"{name} {100 * of.accuracy(name, test, k).value:.1f}%" for name in of.arms)
        for what, of in found.items() for k in (of.shots[0], of.shots[-1])
    )  # fmt: skip
    away = [
        f"{name} {100 * each.accuracy(name, split, each.shots[-1]).value:.1f}%"
        for split in each.splits[1:] for name in each.arms
    ]  # fmt: skip
    by_images = "; ".join(
        f"{_labels(k)}: "
        + ", ".join(f"{name} {100 * by_evidence.accuracy(name, test, k).value:.1f}%" for name in by_evidence.arms)
        for k in by_evidence.shots
    )
    counted_there, steps = by_evidence.accuracies[0], {name: each.steps for name, each in generators.items()}
    told = "; ".join(
        f"{name}: " + ", ".join(f"{what} {auroc(*pair):.2f}" for what, pair in of_others.items())
        for name, of_others in scores.items()
    )
    return (
        f"{counted.draws} draws of labels, the same for all models; {counted.n} test images; {dims[FEATURES]} features "
        f"or {dims[PIXELS]} pixels. Intervals are over images and draws. Logistic regression chooses its penalty by "
        "cross-validation on the labels, LDA its shrinkage in closed form, naive Bayes pools variances by a fixed "
        f"rule; the SVM's C is {MARGIN_WEIGHT:g} for features of unit norm.",
        f"Where the curves cross, on {test}: {'; '.join(_crossing(what, of) for what, of in found.items())}.",
        "A penalty is a prior: what few labels cost a discriminative model depends on how it is regularised.",
        f"Accuracy: {accuracies}.",
        *([f"Away, {_labels(each.shots[-1])}, on features: {', '.join(away)}."] if away else []),
        f"The VAE is a classifier by its bound, log p(x|y) by {IMPORTANCE} importance draws a class, after "
        f"{steps[CONDITIONAL]} steps. The diffusion model, after {steps[DIFFUSION]}, is one by its errors at "
        f"{EVIDENCE.num_levels} levels of noise from {EVIDENCE.sigma_min:g} to {EVIDENCE.sigma_max:g}: an image costs "
        f"{EVIDENCE.num_levels * EVIDENCE.draws * len(generators[DIFFUSION].train.classes)} evaluations of the "
        "network. Changed after a first look at the digits, at the first draw with 5 and with 50 labels and at 100 or "
        "200 other images of train, some of which are labels of other draws: from eight levels between 0.25 and 10 to "
        f"these, and from 200 or 300 steps of 64 images to {STEPS[DIFFUSION]} of 32.",
        f"On the same {counted_there.n} test images, {counted_there.draws} draws, of pixels, with {by_images}.",
        "Of the distance of noise, another sample of real images keeps "
        + ", ".join(f"{share:.2g} ({what})" for what, share in sampled.fresh.items())
        + "; negative is as near as can be told.",
        f"A density knows what it has not seen only as well as it fits: AUROC of log p(x), or of the confidence of "
        f"{LOGISTIC}, home against others (0.5 says nothing): {told}. Diffusion is not among them: its evidence "
        "is log p(x|y) only up to a constant of the image.",
    )


def _crossing(what: str, found: LabelEfficiency) -> str:
    said = []
    for name in GENERATIVE:
        gaps = {k: found.difference(name, LOGISTIC, found.splits[0], k) for k in found.shots}
        ahead = [k for k, gap in gaps.items() if gap.sign > 0]
        behind = [k for k, gap in gaps.items() if gap.sign < 0]
        said.append(f"{name} ahead with {_listed(ahead) or 'none'}, behind with {_listed(behind) or 'none'}")
    return f"{what}: {', '.join(said)} labels a class"


def _labels(k: int) -> str:
    return "1 label a class" if k == 1 else f"{k} labels a class"


def _listed(each: Sequence[object]) -> str:
    *most, last = map(str, each or ("",))
    return f"{', '.join(most)} and {last}" if most else last

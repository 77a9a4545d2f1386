"""Did it help, and what was learned: everything that is looked at after a pre-training.

What enters: the images, the backbone before and after. What leaves: a `PretrainReport`. Labels are read here for the
first time, and choose nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from headfirst.adapt import FineTune, LinearProbe
from headfirst.data import ImageSet, ImageSplit, few_shot, prepare_split, shuffled_by_name
from headfirst.data.imageset import UNLABELLED
from headfirst.errors import DistortionWarning
from headfirst.evaluation import versions
from headfirst.features import embed, embed_depths
from headfirst.metrics import bootstrap_interval
from headfirst.nn import PretrainedBackbone, is_untrained, untrained_like
from headfirst.pretrain import BackboneTraining
from headfirst.pretrain.masked import MaskedAutoencoder
from headfirst.randomness import Draw
from headfirst.study.label_arms import Arm, Fitter, raw_pixels
from headfirst.study.label_efficiency import RAW, START, LabelEfficiency, label_efficiency
from headfirst.study.pretrain_report import Depth, PretrainReport, Reconstruction, neighbours_of, outliers_of
from headfirst.study.thumbnails import inline_jpeg
from headfirst.types import Predictions, Progress, silent

SHOTS = (1, 5, 10)
"""Labels a class that the question is asked with."""
DEPTH_SHOTS = 10
"""Labels a class of the probes at several depths."""
MOST_ASKED = 2000
"""Images of each split that it is asked on."""
TUNED_LR, TUNED_STEPS = 1e-3, 100
"""Of fine-tuning a masked autoencoder; fixed beforehand."""
RANDOM = "random initialisation"
_RECONSTRUCTED = 8


def evidence(
    images: ImageSet,
    start: PretrainedBackbone,
    done: BackboneTraining,
    *,
    device: str = "cpu",
    progress: Progress = silent,
) -> PretrainReport:
    """Everything that is looked at afterwards."""
    shown = _asked(images, done.backbone, progress)
    first = next(iter(shown.values()))
    features = embed(done.backbone, first, device=device, progress=progress)
    return PretrainReport(
        name=images.name,
        method=done.recipe.pretext.method,
        seconds=done.seconds,
        readings=tuple({k: v for k, v in asdict(reading).items() if v is not None} for reading in done.readings),
        events=done.events,
        label_efficiency=did_it_help(
            shown, _arms(start, done), tuned=_tuned(done), mirror=images.mirror, device=device, progress=progress
        ),
        neighbours=neighbours_of(features, first),
        outliers=outliers_of(features, first),
        reconstructions=_reconstructions(done, first),
        depths=_depths(shown, done.backbone, device, progress),
        versions=versions(),
    )


def _arms(start: PretrainedBackbone, done: BackboneTraining) -> dict[str, PretrainedBackbone]:
    """What is compared, by name: a random network where the start is not one, the start, what was trained."""
    method = done.recipe.pretext.method
    if is_untrained(start):
        return {RANDOM: start, method: done.backbone}
    return {RANDOM: untrained_like(start, seed=0), START: start, method: done.backbone}


def _tuned(done: BackboneTraining) -> str | None:
    """The arm that is also fine-tuned: a masked autoencoder is judged so by its authors."""
    return done.recipe.pretext.method if isinstance(done.learner, MaskedAutoencoder) else None


def _asked(images: ImageSet, backbone: PretrainedBackbone, progress: Progress) -> dict[str, ImageSplit]:
    """What the report speaks of: what was learned from, and the labelled images of test and the shifts, at most
    `MOST_ASKED` of each of these."""
    found = {}
    for name in ("train" if "train" in images else UNLABELLED, "test", *images.shifts()):
        split = images[name] if name in ("train", UNLABELLED) else labelled(images, name)
        if split is not None:
            found[name] = prepare_split(split, backbone.preprocessing, progress=progress)[0]
    return found


def labelled(images: ImageSet, name: str) -> ImageSplit | None:
    """The labelled images of a split, at most `MOST_ASKED` drawn by name, if there are two at least."""
    if name not in images:
        return None
    split = images[name].take(np.flatnonzero(images[name].labels >= 0))
    return split.take(np.sort(shuffled_by_name(split.ids, seed=0)[:MOST_ASKED])) if len(split) > 1 else None


def did_it_help(
    shown: Mapping[str, ImageSplit],
    backbones: Mapping[str, PretrainedBackbone],
    *,
    tuned: str | None = None,
    mirror: bool = True,
    device: str = "cpu",
    progress: Progress = silent,
) -> LabelEfficiency | None:
    """Probes with few labels on raw pixels and on each backbone's features; None without labels to ask with.

    Args:
        shown: `train` and the evaluation splits, prepared as the backbones see them.
        backbones: by name; `starting backbone` or else `random initialisation` is what the others are compared with.
        tuned: the one that is also fine-tuned on the same few labels.
        mirror: whether a mirrored image keeps its label, for fine-tuning.
    """
    train = shown.get("train")
    splits = [name for name in shown if name not in ("train", "unlabelled")]
    if train is None or not splits:
        return None
    fewest = min((count for name, count in train.class_counts().items() if name in train.classes), default=0)
    shots = [k for k in SHOTS if k <= fewest]
    if not shots or len(train.classes) < 2:
        return None
    needed = _needed(train, shots)
    asked = {"train": needed, **{name: shown[name] for name in splits}}
    arms: dict[str, Arm] = {RAW: {name: raw_pixels(split) for name, split in asked.items()}}
    for name, backbone in backbones.items():
        arms[name] = {split: embed(backbone, each, device=device, progress=progress) for split, each in asked.items()}
    if tuned is not None:
        arms[f"{tuned}, fine-tuned"] = _fine_tuned(backbones[tuned], train, {s: shown[s] for s in splits}, mirror)
    start = START if START in arms else RANDOM
    return label_efficiency(arms, train, shots=shots, splits=splits, start=start, progress=progress)


def _fine_tuned(
    backbone: PretrainedBackbone, train: ImageSplit, asked: Mapping[str, ImageSplit], mirror: bool
) -> Fitter:
    """A classifier fine-tuned on the few labels of a draw."""

    def fit(k: int, draw: int) -> Mapping[str, Predictions]:
        few = few_shot(train, k, seed=draw)
        recipe = FineTune(lr=TUNED_LR, epochs=-(-TUNED_STEPS // -(-len(few) // FineTune().batch_size)), mirror=mirror)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DistortionWarning)  # one of fifteen fits that are only compared
            model = recipe.fit(backbone, few, seed=draw)
        return {name: model.predictions(split) for name, split in asked.items()}

    return fit


def _needed(train: ImageSplit, shots: Sequence[int]) -> ImageSplit:
    """The training images that any draw of labels takes."""
    drawn = {id_ for k in shots for draw in range(5) for id_ in few_shot(train, k, seed=draw).ids}
    return train.take([i for i, id_ in enumerate(train.ids) if id_ in drawn])


def _depths(
    shown: Mapping[str, ImageSplit], backbone: PretrainedBackbone, device: str, progress: Progress
) -> tuple[Depth, ...]:
    """A probe at every depth, on the first evaluation split."""
    splits = [name for name in shown if name not in ("train", "unlabelled")]
    train = shown.get("train")
    if train is None or not splits:
        return ()
    counts = [count for name, count in train.class_counts().items() if name in train.classes]
    if len(counts) < 2 or min(counts) < 1:
        return ()
    few = few_shot(train, min(DEPTH_SHOTS, min(counts)), seed=0)
    test = shown[splits[0]]
    found = []
    for number, (known, held) in enumerate(
        zip(*(embed_depths(backbone, each, device=device) for each in (few, test)), strict=True)
    ):
        if not (known.values != known.values[0]).any():
            continue
        right = (LinearProbe(seed=0).fit(known).predict(held) == held.labels).double()
        interval = bootstrap_interval(right[None], seed=0, bounds=(0.0, 1.0))
        found.append(Depth(name=f"stage {number}", value=interval.value, low=interval.low, high=interval.high))
        progress("probing depths", number + 1, len(backbone.stages))
    return tuple(found)


def _reconstructions(done: BackboneTraining, split: ImageSplit) -> tuple[Reconstruction, ...]:
    if not isinstance(done.learner, MaskedAutoencoder):
        return ()
    rows = shuffled_by_name(split.ids, seed=0)[:_RECONSTRUCTED]  # the first of a split are often of one class
    images = split.batch(rows)
    masked, drawn = done.learner.look(images, Draw(0, 0, rows))
    return tuple(
        Reconstruction(
            id=split.ids[row],
            **{
                name: inline_jpeg(each[i].permute(1, 2, 0).contiguous().numpy())
                for name, each in (("image", images), ("masked", masked), ("reconstruction", drawn))
            },
        )
        for i, row in enumerate(rows)
    )

"""Claim 1: self-supervision answers the cost of labels.

The networks begin from nothing. With no backbone named they are small, sized for a CPU (`SIDE` pixels): a residual net,
and for masked images, which a convolutional network cannot see, a ViT. Of a backbone that is named only the
architecture is used: its weights have seen images, perhaps these. A pretext that cannot be set to it takes the small
network of its kind.

What is kept under `work`: the features of every finished pre-training, what every training from scratch says, and the
checkpoints of the pre-trainings that are running. They run side by side (`side_by_side`), and are then read.

Shape letters: P pre-trainings, S draws of labelled images, N images.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from headfirst.adapt import FineTune
from headfirst.claims.claim import ClaimResult, Comparison, judged
from headfirst.claims.claim_01_figure import curves
from headfirst.claims.experiment import NUM_TEST, embed_unstored, in_a_folder, ready
from headfirst.data import Handwriting, ImageSet, ImageSplit, few_shot, prepare_split, shuffled_by_name, unlabelled_pool
from headfirst.errors import DataError, DistortionWarning, InputError
from headfirst.evaluation import load_predictions, save_predictions
from headfirst.features import load_features, save_features, side_by_side
from headfirst.metrics import Interval
from headfirst.nn import PretrainedBackbone, untrained_backbone
from headfirst.pretrain import Jigsaw, Masked, Pretext, Pretraining, Rotation, SimCLR
from headfirst.study import LabelEfficiency, label_efficiency, raw_pixels, small_network
from headfirst.types import Features, Predictions, Progress, silent

LABELS, QUICK_LABELS = (1, 2, 5, 10, 50), (1, 5, 10)
"""Labels a class, as many of these as the smallest class has."""
JUDGED, JUDGED_LABELS = "contrast", (1, 5, 10)
PRETEXTS: Mapping[str, Pretext] = {
    JUDGED: SimCLR(), "rotation": Rotation(), "jigsaw": Jigsaw(), "masked images": Masked()
}  # fmt: skip
RAW, SCRATCH = "raw pixels", "from scratch"

SMALL = {"small-resnet": ("contrast", "rotation", "jigsaw"), "small-vit": ("masked images",)}
SIDE = 32
SEEN = {"contrast": 40_000, "rotation": 25_000, "jigsaw": 38_000, "masked images": 17_000}
"""Images that a pre-training sees, over and over: about 40 seconds on one core each, of the small networks."""
QUICK_SHARE = 6
BATCH_SIZE = {"contrast": 128, "rotation": 128, "jigsaw": 128, "masked images": 64}
RATE = 2e-3

MIN_STEPS, QUICK_STEPS, MIN_EPOCHS = 150, 75, 10
"""From scratch: as many epochs as give at least so many steps, and at least so many."""
RATES, QUICK_RATES = (3e-4, 1e-3, 3e-3), (1e-3,)
MIN_DRAWS = 3

Arms = dict[str, Any]
"""Name → features of each split, a list of such, or a training: (labels a class, draw) → predictions of each split."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """An architecture, drawn anew with each seed, and the names of the pretexts that are set to it."""

    name: str
    make: Callable[[int], PretrainedBackbone]
    pretexts: tuple[str, ...]

    @property
    def scratch(self) -> str:
        """The arm of its supervised training."""
        return SCRATCH if JUDGED in self.pretexts else f"{SCRATCH} ({self.name})"


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """The pool without labels, the labelled images of all draws, validation, and what is asked."""

    pool: ImageSplit
    train: ImageSplit
    val: ImageSplit
    asked: Mapping[str, ImageSplit]
    mirror: bool
    handwriting: bool

    @property
    def embedded(self) -> dict[str, ImageSplit]:
        """The splits that a probe needs the features of."""
        return {"train": self.train, **self.asked}

    @property
    def fingerprint(self) -> str:
        """Of all images that a feature or a prediction depends on, or is of."""
        return _hash(*(split.fingerprint for split in (self.pool, self.val, *self.embedded.values())))

    def seen_by(self, backbone: PretrainedBackbone) -> Pictures:
        """The same images at the size that the backbone takes."""

        def sized(split: ImageSplit) -> ImageSplit:
            return prepare_split(replace(split, hashes=None, pixels=None), backbone.preprocessing)[0]

        asked = {name: sized(split) for name, split in self.asked.items()}
        return replace(self, pool=sized(self.pool), train=sized(self.train), val=sized(self.val), asked=asked)


@in_a_folder
def run(
    data: ImageSet,
    backbone: PretrainedBackbone | None,
    seeds: Sequence[int],
    *,
    quick: bool = False,
    work: Path,
    progress: Progress = silent,
) -> ClaimResult:
    """Four pretexts on images without labels, then probes with few labels, beside training from scratch on the same.

    Args:
        data: the pretexts learn from `train` and, where there is one, `unlabelled`.
        backbone: its architecture is what is trained, from nothing; None takes small networks.
        seeds: of the pre-trainings; there are as many draws of labels, at least `MIN_DRAWS`.
    """
    several = networks(backbone, unlabelled_pool(data))
    labels, draws = labels_of(data, QUICK_LABELS if quick else LABELS), max(MIN_DRAWS, len(seeds))
    pictures = looked_at(ready(data, several[0].make(0), progress), max(labels), draws)
    recipes = {name: recipe_of(name, pictures, quick=quick) for name in PRETEXTS}
    rates, steps = (QUICK_RATES, QUICK_STEPS) if quick else (RATES, MIN_STEPS)
    arms: Arms = {RAW: {name: raw_pixels(split) for name, split in pictures.embedded.items()}}
    jobs: list[Callable[[], object]] = []
    for network in several:
        seen = pictures.seen_by(network.make(0))
        arms[network.scratch] = _from_scratch(network, seen, rates, steps, work)
        jobs += [partial(_all_draws, network, seen, rates, steps, work, k, draws) for k in labels]
        for name in network.pretexts:
            made = [partial(_pretrained, network, recipes[name], seen, seed, work) for seed in seeds]
            jobs, arms[name] = jobs + made, made
    side_by_side(jobs, stage="trainings", progress=progress)
    arms = {name: [job() for job in each] if isinstance(each, list) else each for name, each in arms.items()}
    scratch = {name: network.scratch for network in several for name in network.pretexts}
    others = [arm for arm in scratch.values() if arm != SCRATCH]
    found = label_efficiency(arms, pictures.train, shots=labels, draws=draws, splits=tuple(pictures.asked),
                             start=SCRATCH, raw=others[0] if others else None, progress=progress)  # fmt: skip
    return ClaimResult(
        number=1,
        title="Self-supervision answers the cost of labels",
        statement=f"With {_listed([k for k in labels if k in JUDGED_LABELS])} labels a class, a probe on features that "
        f"{JUDGED} (SimCLR, named beforehand) learned without labels is more accurate on test than the same network "
        "trained from scratch on the same labelled images. Other pretexts, other numbers of labels and shifts are "
        "shown, not judged.",
        rows=tuple(_rows(found, scratch)),
        figure=curves(found),
        fine_print=_fine_print(found, scratch, several, recipes, rates, steps, pictures, seeds, draws),
        quick=quick,
    )


def networks(backbone: PretrainedBackbone | None, pool: ImageSplit) -> list[Network]:
    """The networks, each with the pretexts that are set to it; the first has the one that is judged."""
    able = () if backbone is None else tuple(name for name in PRETEXTS if _can_be_set(name, backbone.name))
    own = [Network(name=backbone.name, make=partial(_drawn, backbone.name), pretexts=able)] if backbone and able else []
    small = [
        Network(name=kind, make=partial(_drawn_small, kind, pool), pretexts=left)
        for kind, names in SMALL.items()
        if (left := tuple(name for name in names if name not in able))
    ]
    return sorted([*own, *small], key=lambda network: JUDGED not in network.pretexts)


def labels_of(data: ImageSet, counts: Sequence[int]) -> tuple[int, ...]:
    """Those of the counts that every class of train has images for.

    Raises:
        DataError: there are no classes, or one has too few for any.
    """
    have = data["train"].class_counts()
    fewest = min((have.get(name, 0) for name in data.classes), default=0)
    if fewest < counts[0]:
        raise DataError(f"claim 1 needs a labelled image of every class in train, and a class has {fewest}; add some")
    return tuple(k for k in counts if k <= fewest)


def looked_at(data: ImageSet, most: int, draws: int) -> Pictures:
    """What is learned from and asked about, of prepared and audited images."""
    train = data["train"]
    drawn = {id_ for draw in range(draws) for id_ in few_shot(train, most, seed=draw).ids}  # a draw's are nested
    return Pictures(
        pool=unlabelled_pool(data),
        train=train.take([i for i, id_ in enumerate(train.ids) if id_ in drawn]),
        val=data["val"],
        asked={name: _some(data[name]) for name in ("test", *data.shifts())},
        mirror=data.mirror,
        handwriting=data.name == "digits" and not data.mirror,
    )


def recipe_of(name: str, pictures: Pictures, *, quick: bool) -> Pretraining:
    """How a pretext is trained on so many images."""
    pretext, seen = PRETEXTS[name], SEEN[name] / (QUICK_SHARE if quick else 1)
    views = Handwriting() if pictures.handwriting and pretext.compares else None
    epochs = max(1, round(seen / len(pictures.pool)))
    return Pretraining(pretext=pretext, epochs=epochs, batch_size=BATCH_SIZE[name], lr=RATE, mirror=pictures.mirror,
                       views=views)  # fmt: skip


def _some(split: ImageSplit) -> ImageSplit:
    return split.take(shuffled_by_name(split.ids, seed=0)[:NUM_TEST])


def _drawn(name: str, seed: int) -> PretrainedBackbone:
    return untrained_backbone(name, seed=seed)


def _drawn_small(kind: str, pool: ImageSplit, seed: int) -> PretrainedBackbone:
    return small_network(kind, pool, size=SIDE, seed=seed).makers[-1]()  # the narrowest


def _can_be_set(pretext: str, backbone: str) -> bool:
    try:
        PRETEXTS[pretext].learner(_drawn(backbone, 0), seed=0, num_steps=1)
    except InputError:
        return False
    return True


def _pretrained(
    network: Network,
    recipe: Pretraining,
    pictures: Pictures,
    seed: int,
    work: Path,
) -> Mapping[str, Features]:
    """Features after one pre-training; from `work` where it was finished before."""
    start = network.make(seed)
    key = _hash(start.fingerprint, repr(recipe), str(seed), pictures.fingerprint)
    folder = work / f"{recipe.pretext.method}-{seed}-{key}"
    files = {split: folder / f"{split}.safetensors" for split in pictures.embedded}
    if not all(file.is_file() for file in files.values()):
        taught = recipe.fit(start, pictures.pool, seed=seed, directory=folder / "training")
        for split, images in pictures.embedded.items():
            save_features(embed_unstored(taught, images), files[split])
        shutil.rmtree(folder / "training", ignore_errors=True)
    return {split: load_features(file) for split, file in files.items()}


def _all_draws(
    network: Network, pictures: Pictures, rates: tuple[float, ...], steps: int, work: Path, k: int, draws: int
) -> None:
    """The trainings from scratch with k labels a class, into `work`."""
    fit = _from_scratch(network, pictures, rates, steps, work)
    for draw in range(draws):
        fit(k, draw)


def _from_scratch(
    network: Network, pictures: Pictures, rates: tuple[float, ...], steps: int, work: Path
) -> Callable[[int, int], Mapping[str, Predictions]]:
    """(labels a class, draw) → what the network says, trained on that draw alone from weights drawn with it.

    Of several rates the first draw chooses one on home validation, whose labels no probe sees; the others take it.
    """
    chosen: dict[int, float] = {}

    def fit(k: int, draw: int) -> Mapping[str, Predictions]:
        few, start = few_shot(pictures.train, k, seed=draw), network.make(draw)
        lr = rates[0] if len(rates) == 1 else chosen.get(k)
        recipe = FineTune(epochs=_epochs(len(few), steps), lr=lr, lr_grid=rates, layer_decay=1.0,
                          mirror=pictures.mirror, train_batch_norm=True)  # fmt: skip
        key = _hash(start.fingerprint, repr(recipe), str(draw), pictures.fingerprint)
        path = work / f"scratch-{k}-{draw}-{key}.safetensors"
        if not path.is_file():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DistortionWarning)  # there is nothing to distort
                val = pictures.val if lr is None else None  # only a choice needs it
                model = recipe.fit(start, few, val, seed=draw)
            said = [model.predictions(split) for split in pictures.asked.values()]
            save_predictions(said, path, record={"lr": model.record["lr"]})
        predictions, record = load_predictions(path)
        chosen.setdefault(k, record["lr"])
        return {each.split: each for each in predictions}

    return fit


def _epochs(num_images: int, least: int) -> int:
    steps = -(-num_images // FineTune().batch_size)
    return max(MIN_EPOCHS, -(-least // steps))


def _hash(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def _rows(found: LabelEfficiency, scratch: Mapping[str, str]) -> list[Comparison]:
    test, rows = found.splits[0], []
    compared = [(name, scratch[name]) for name in PRETEXTS if scratch[name] in (found.start, found.raw)]
    compared += [(name, SCRATCH) for name in (*PRETEXTS, RAW) if (name, SCRATCH) not in compared]
    for split in found.splits:
        for name, baseline in compared:
            for k in found.shots:
                gap = found.difference(name, baseline, split, k)
                primary = (split, name, baseline) == (test, JUDGED, SCRATCH) and k in JUDGED_LABELS
                rows.append(judged(f"accuracy on {split}, {_labels(k)}: {name} - {baseline}",
                                   Interval(gap.value, gap.low, gap.high), "above", primary=primary))  # fmt: skip
    saved = [s for s in found.saved if (s.baseline, s.split) == (SCRATCH, test) and s.labels < s.most]
    rows += [
        judged(f"labels a class that {SCRATCH} needs for as much as {s.arm} with {s.labels}",
               Interval(s.value, s.low, s.high), "above", float(s.labels), primary=False)
        for name in PRETEXTS for s in saved if s.arm == name
    ]  # fmt: skip
    return rows


def _fine_print(
    found: LabelEfficiency,
    scratch: Mapping[str, str],
    several: Sequence[Network],
    recipes: Mapping[str, Pretraining],
    rates: tuple[float, ...],
    steps: int,
    pictures: Pictures,
    seeds: Sequence[int],
    draws: int,
) -> tuple[str, ...]:
    test, k = found.splits[0], found.decisive
    ranked = sorted(PRETEXTS, key=lambda name: -found.accuracy(name, test, k).value)
    accuracies = {name: f"{100 * found.accuracy(name, test, k).value:.1f}%" for name in found.arms}
    behind = [name for name in ranked if found.difference(name, SCRATCH, test, k).sign < 0]
    ahead = [name for name in ranked if found.difference(name, SCRATCH, test, k).sign > 0]
    epochs = ", ".join(f"{name} {recipe.epochs}" for name, recipe in recipes.items())
    rate = f"its learning rate was {rates[0]:g}" if len(rates) == 1 else (
        f"its learning rate was chosen among {', '.join(map(str, rates))} on {len(pictures.val)} labelled validation "
        "images, which no probe was given, so that the comparison errs against the claim"
    )  # fmt: skip
    nets = "; ".join(f"{network.name}: {', '.join(network.pretexts)}" for network in several)
    return (
        f"Pre-trained from nothing on {len(pictures.pool)} images without labels ({nets}), for about the same time "
        f"each, in epochs: {epochs}. Seeds {list(seeds)}; {draws} draws of labels, the same for all; "
        f"{len(pictures.asked[test])} test images. Intervals are over images, draws and pre-trainings.",
        f"From scratch: at least {steps} steps and {MIN_EPOCHS} epochs with random crops, each draw from weights "
        f"of its own; {rate}.",
        f"Which pretext helps depends on the images. With {_labels(k)} "
        f"{', '.join(f'{name} is right on {accuracies[name]}' for name in ranked)}, {SCRATCH} on "
        f"{accuracies[SCRATCH]}, a probe on raw pixels on {accuracies[RAW]}; beyond the interval ahead of {SCRATCH}: "
        f"{_names(ahead)}; behind: {_names(behind)}. {_across(found, scratch)}Contrast has more than the images: its "
        "views say which changes keep the meaning.",
        f"Labels saved are read off the curve of {SCRATCH}, between {found.shots[0]} and {found.shots[-1]} labels a "
        "class; a number at either end says at most, or at least, so many.",
    )


def _across(found: LabelEfficiency, scratch: Mapping[str, str]) -> str:
    """What must be said where a pretext has a network of its own."""
    apart = [name for name in PRETEXTS if scratch[name] != SCRATCH]
    if not apart:
        return ""
    own = scratch[apart[0]]
    value = 100 * found.accuracy(own, found.splits[0], found.decisive).value
    return f"{_names(apart).capitalize()} need another network, which from scratch reaches {value:.1f}%. "


def _labels(k: int) -> str:
    return "1 label a class" if k == 1 else f"{k} labels a class"


def _names(names: Sequence[str]) -> str:
    return _listed(names) if names else "none"


def _listed(each: Sequence[object]) -> str:
    *most, last = map(str, each)
    return f"{', '.join(most)} and {last}" if most else last

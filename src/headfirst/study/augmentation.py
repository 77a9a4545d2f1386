"""Do generated images help a classifier with few labels? The gate: they enter training only if they surely do.

What enters: images, a backbone and a generator's recipe. What leaves: a report, the images that enter training (none
where the gate says none) and where each generated image comes from. The same call goes on where a stopped one was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from headfirst.augment import (
    KEPT,
    VERDICTS,
    Filtered,
    Provenance,
    as_split,
    class_coverage,
    provenance,
    rows_to_add,
)
from headfirst.data import ImageSet, ImageSplit, audit, cap_per_class, prepare, prepare_split
from headfirst.errors import DataError, InputError
from headfirst.evaluation import versions
from headfirst.features import embed
from headfirst.generate import Generator
from headfirst.metrics import bootstrap_interval, memorisation_test, paired_difference
from headfirst.nn import PretrainedBackbone
from headfirst.nn.storage import staged
from headfirst.study.augmentation_report import CROSS_VALIDATION, AugmentationReport, RatioRow, ShownSample
from headfirst.study.mixing_ratio import Augmentation, Choice, HeldOut, choose_ratio, held_out, probes
from headfirst.study.thumbnails import inline_jpeg, thumbnail
from headfirst.types import Features, Progress, Samples, silent

SHOWN = {verdict: 24 if verdict == KEPT else 12 for verdict in VERDICTS}


@runtime_checkable
class GeneratorRecipe(Protocol):
    """What trains a generator: `VAE(…)`, `GAN(…)`, `Diffusion(…)`."""

    def fit(
        self, images: ImageSplit, *, seed: int = 0, directory: Path | None = None, device: str = "cpu",
        force: bool = False, progress: Progress = silent,
    ) -> Generator: ...  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Augmented:
    """The report and what it is about.

    Attributes:
        added: the generated images that enter training, each once; empty where the gate says none.
        provenance: of every image of the last generator.
        generator: the last, trained on all training images.
    """

    report: AugmentationReport
    added: ImageSplit
    provenance: tuple[Provenance, ...]
    generator: Generator


def augment_images(
    images: ImageSet,
    backbone: PretrainedBackbone,
    generator: GeneratorRecipe,
    recipe: Augmentation | None = None,
    *,
    shots: int | None = None,
    directory: Path,
    device: str = "cpu",
    progress: Progress = silent,
) -> Augmented:
    """Choose the ratio by nested cross-validation on `train`, then measure every ratio on `test` and the shifts.

    Args:
        images: with `train` and `test`; `val`, where there is one, says how much is covered.
        generator: trained on few images on purpose (`force`): the gate is what keeps harm away.
        recipe: how the ratio is found; `Augmentation()` if None.
        shots: training images a class; None takes all.
        directory: for what a stopped run goes on from; it may be deleted afterwards.

    Raises:
        DataError: a class with too few labelled images; an unlabelled one; no test split.
        InputError: the generator knows other classes.
    """
    recipe = recipe or Augmentation()
    images, train, notes = _ready(images, backbone, shots, recipe.seed, progress)
    maker = _Maker(backbone, generator, recipe, train, directory, device, progress)
    real = embed(backbone, train, device=device, progress=progress)
    of = f"{generator!r} {train.fingerprint} {device}"
    crossed = held_out(real, maker.draw, recipe, directory=directory, of=of, progress=progress)
    choice = choose_ratio(crossed.right, seed=recipe.seed, level=recipe.level)
    last, samples = maker.trained(range(len(train)), recipe.seed)
    features = maker.features(samples)
    probe = recipe.probe.fit(real)
    filtered = recipe.filtered(features, real, probe)
    passed = features.take(filtered.kept())
    right = _right(images, backbone, real, passed, recipe, device, progress)
    val = _labelled(embed(backbone, images["val"], device=device, progress=progress)) if "val" in images else None
    report = AugmentationReport(
        name=images.name,
        generator=repr(generator),
        chosen=choice.ratio,
        rows=_rows(crossed, choice, right, real, passed, recipe),
        splits=(CROSS_VALIDATION, *right),
        num={CROSS_VALIDATION: len(real), **{split: found[0.0].shape[1] for split, found in right.items()}},
        verdicts=filtered.counts(features),
        cross_validated=crossed.verdicts,
        coverage=() if val is None else class_coverage(val, passed, real, level=recipe.level),
        memorisation=None
        if val is None
        else memorisation_test(features.values, real.values, val.values, seed=recipe.seed),
        shown=_shown(samples, filtered, probe.predict(features), train),
        notes=notes,
        recipe={
            "backbone": backbone.name,
            "backbone_sha256": backbone.fingerprint,
            "generator_sha256": last.fingerprint,
            "training images": len(train),
            "device": device,
            **{name: value for name, value in asdict(recipe).items() if name != "probe"},
            "l2": probe.l2,
        },
        versions=versions(),
    )
    used = _used(real, passed, filtered.kept(), choice.ratio)
    return Augmented(
        report=report,
        added=as_split(samples).take(sorted(set(used))),
        provenance=provenance(samples, filtered, train.ids, used),
        generator=last,
    )


def save_added(outcome: Augmented, directory: str | Path) -> int:
    """Write the images that enter training as `<directory>/<class>/<name>.png`, ready to be copied into `train/`.

    What an earlier run wrote there goes. Without any, there is no folder.

    Returns:
        How many.

    Raises:
        InputError: `directory` holds something else; a class whose name cannot be a folder's.
    """
    directory, split = Path(directory), outcome.added
    there = [path for path in directory.rglob("*") if path.is_file()]
    if foreign := [path for path in there if path.suffix != ".png"]:
        raise InputError(f"{directory} holds {foreign[0].name}, which is no synthetic image; give a folder of its own")
    if wrong := [name for name in split.classes if name in (".", "..") or Path(name).name != name]:
        raise InputError(f"class {wrong[0]!r} cannot be a folder's name; rename it in the manifest")
    shutil.rmtree(directory, ignore_errors=True)
    if not len(split):
        return 0
    with staged(directory) as staging:
        for id_, label, source in zip(split.ids, split.labels, split.sources, strict=True):
            folder = staging / split.classes[label]
            folder.mkdir(exist_ok=True)
            Image.fromarray(np.asarray(source)).save(folder / f"{id_.rsplit('/', 1)[-1]}.png")
    return len(split)


@dataclass(frozen=True)
class _Maker:
    """From rows of the training images to generated ones, and to their features."""

    backbone: PretrainedBackbone
    generator: GeneratorRecipe
    recipe: Augmentation
    train: ImageSplit
    directory: Path
    device: str
    progress: Progress

    def folder(self, rows: Sequence[int], seed: int) -> Path:
        """Of the training on these rows."""
        of = json.dumps([repr(self.generator), self.train.fingerprint, list(rows), seed, self.device])
        return self.directory / f"generator-{hashlib.sha256(of.encode()).hexdigest()[:16]}"

    def trained(self, rows: Sequence[int], seed: int) -> tuple[Generator, Samples]:
        """A generator trained on these rows, and enough of its images."""
        made = self.generator.fit(
            self.train.take(rows), seed=seed, directory=self.folder(rows, seed), device=self.device, force=True,
            progress=self.progress,
        )  # fmt: skip
        counts = np.bincount(self.train.labels[list(rows)], minlength=len(self.train.classes))
        wanted = [self.recipe.wanted(int(count)) for count in counts]
        return made, _sampled(made, self.train.classes, wanted, seed, self.device, self.progress)

    def features(self, samples: Samples) -> Features:
        """By way of a store of their own, which goes at once."""
        cache, split = self.directory / "cache", as_split(samples)
        split, _ = prepare_split(split, self.backbone.preprocessing, cache=cache, progress=self.progress)
        found = embed(self.backbone, split, cache=cache, device=self.device, progress=self.progress)
        found = replace(found, values=found.values.clone())
        shutil.rmtree(cache, ignore_errors=True)
        return found

    def draw(self, rows: Sequence[int], seed: int) -> Features:
        """Features of what is generated from these rows; the training goes, as the fold keeps what it gave."""
        found = self.features(self.trained(rows, seed)[1])
        shutil.rmtree(self.folder(rows, seed), ignore_errors=True)
        return found


def _ready(
    images: ImageSet, backbone: PretrainedBackbone, shots: int | None, seed: int, progress: Progress
) -> tuple[ImageSet, ImageSplit, tuple[str, ...]]:
    """The set without leaks, the training images, each once, and what was left out."""
    names = [name for name in ("train", "val", "test", *images.shifts()) if name in images]
    for name in ("train", "test"):
        images[name]  # refuses by name
    images = audit(prepare(images.only(*names), backbone.preprocessing, progress=progress), progress=progress)
    train, notes = images["train"], []
    if (train.labels < 0).any():
        raise DataError(
            f"{int((train.labels < 0).sum())} images of train have no label; augmentation makes images of a class from "
            "labelled ones, so put the others into unlabelled/"
        )
    if shots is not None:
        train = cap_per_class(train, shots, seed=seed)
        notes.append(f"At most {shots} images a class were taken for training.")
    assert train.hashes is not None
    once = sorted({digest: row for row, digest in reversed(list(enumerate(train.hashes)))}.values())
    if len(once) < len(train):
        notes.append(
            f"{len(train) - len(once)} training images are copies of others and were left out: a copy on the other "
            "side of a cut would reach the generator."
        )
    if "val" not in images:
        notes.append("There is no val split, so that coverage and memorisation were not measured.")
    return images, train.take(once), tuple(notes)


def _sampled(
    made: Generator, classes: tuple[str, ...], wanted: Sequence[int], seed: int, device: str, progress: Progress
) -> Samples:
    """So many images of each class."""
    if made.classes != classes:
        raise InputError(
            f"the generator must make images of {', '.join(classes)}, but knows "
            f"{', '.join(made.classes) or 'no classes'}"
        )
    parts = [
        made.sample(count, seed=seed, label=label, device=device, progress=progress)
        for label, count in enumerate(wanted)
        if count
    ]
    return replace(
        parts[0],
        pixels=torch.cat([part.pixels for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        indices=torch.cat([part.indices for part in parts]),
    )


def _right(
    images: ImageSet,
    backbone: PretrainedBackbone,
    real: Features,
    kept: Features,
    recipe: Augmentation,
    device: str,
    progress: Progress,
) -> dict[str, dict[float, Tensor]]:
    """(1, N) right or wrong by split and ratio, of probes on all training images."""
    models = probes(real, kept, recipe)
    found = {}
    for name in ("test", *images.shifts()):
        asked = _labelled(embed(backbone, images[name], device=device, progress=progress))
        if len(asked):
            found[name] = {ratio: (model.predict(asked) == asked.labels)[None] for ratio, model in models.items()}
    return found


def _rows(
    crossed: HeldOut,
    choice: Choice,
    right: dict[str, dict[float, Tensor]],
    real: Features,
    kept: Features,
    recipe: Augmentation,
) -> tuple[RatioRow, ...]:
    def row(ratio: float) -> RatioRow:
        by_split = {CROSS_VALIDATION: crossed.right, **right}
        extra = rows_to_add(real.labels.numpy(), kept.labels.numpy(), ratio)
        different = len(set(extra[extra >= len(real)].tolist()))
        return RatioRow(
            ratio=ratio,
            added=different,
            repeated=len(extra) - different,
            accuracy={
                split: bootstrap_interval(found[ratio], seed=recipe.seed, bounds=(0.0, 1.0), level=recipe.level)
                for split, found in by_split.items()
            },
            gain={}
            if ratio == 0
            else {
                CROSS_VALIDATION: choice.gains[ratio],
                **{
                    split: paired_difference(found[ratio], found[0.0], seed=recipe.seed, level=recipe.level)
                    for split, found in right.items()
                },
            },
        )

    return tuple(row(ratio) for ratio in (0.0, *recipe.ratios))


def _used(real: Features, features: Features, kept: Sequence[int], ratio: float) -> list[int]:
    """Rows of the samples in the training set, as often as each is in it."""
    extra = rows_to_add(real.labels.numpy(), features.labels.numpy(), ratio)
    return [kept[row - len(real)] for row in extra.tolist() if row >= len(real)]


def _labelled(features: Features) -> Features:
    return features.take(torch.nonzero(features.labels >= 0)[:, 0].tolist())


def _shown(samples: Samples, filtered: Filtered, called: Tensor, train: ImageSplit) -> tuple[ShownSample, ...]:
    """Some images of each verdict, spread evenly over them."""
    split, found = as_split(samples), []
    for verdict, most in SHOWN.items():
        rows = [row for row, said in enumerate(filtered.verdicts) if said == verdict]
        for row in [rows[i] for i in np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)]:
            near = int(filtered.nearest[row])
            source = split.sources[row]
            assert isinstance(source, np.ndarray)
            found.append(
                ShownSample(
                    id=split.ids[row],
                    class_name=samples.classes[int(samples.labels[row])],
                    called=samples.classes[int(called[row])],
                    verdict=verdict,
                    distance=filtered.distances[row].item(),
                    thumbnail=inline_jpeg(source),
                    nearest=train.ids[near],
                    nearest_thumbnail=thumbnail(train, near),
                )
            )
    return tuple(found)

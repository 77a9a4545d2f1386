"""What the claims share: the images they ask about, and what claims 3 and 7 train alike.

Claims 3 and 7 keep their few-shot adaptations over seeds on disk, as predictions.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headfirst.adapt import LPFT, FineTune, LinearProbe, TunedModel, on_backbone
from headfirst.claims.claim import ClaimResult
from headfirst.data import (
    CORRUPTIONS,
    ImageSet,
    ImageSplit,
    audit,
    cap_per_class,
    corrupt,
    few_shot,
    normalise,
    prepare,
    shuffled_by_name,
)
from headfirst.evaluation import load_predictions, save_predictions
from headfirst.features import embed
from headfirst.nn import PretrainedBackbone
from headfirst.train import join_world, training_folder
from headfirst.types import Features, Predictions, Progress

SHOTS = 20
"""Training images a class."""

MILD, SEVERE = 1, 4
"""Severities of the corruptions that make the small and the large shifts."""

NUM_TEST, NUM_CORRUPTED = 1000, 300
"""Test images that are asked about, and how many of them under each corruption."""


def in_a_folder(run: Callable[..., ClaimResult]) -> Callable[..., ClaimResult]:
    """A claim's `run` that keeps what it trains: without `work`, in a folder for the time being."""

    @functools.wraps(run)
    def kept(*args: Any, work: Path | None = None, **options: Any) -> ClaimResult:
        with training_folder(work, join_world(torch.device("cpu"))) as folder:
            return run(*args, work=folder, **options)

    return kept


def ready(data: ImageSet, backbone: PretrainedBackbone, progress: Progress) -> ImageSet:
    """Prepared and audited images; validation capped as `headfirst run --shots 20` does."""
    data = audit(prepare(data, backbone.preprocessing, progress=progress))
    return replace(data, splits={**data.splits, "val": cap_per_class(data["val"], SHOTS, seed=0)})


def questions(data: ImageSet) -> dict[str, ImageSplit]:
    """The splits the claims ask about: test, the data's own shifts, each corruption severe and mild."""
    test = data["test"].take(shuffled_by_name(data["test"].ids, seed=0)[:NUM_TEST])
    asked = {"test": test, **{name: data[name] for name in data.shifts()}}
    few = test.take(range(min(NUM_CORRUPTED, len(test))))
    for severity in (SEVERE, MILD):
        for kind in CORRUPTIONS:
            name = f"{kind.replace('_', ' ')} {severity}"
            asked[name] = corrupt(few, kind, severity, name=name)
    return asked


def large_shifts(data: ImageSet) -> list[str]:
    """Names, among `questions`, of the data's own shifts and the severe corruptions."""
    return [*data.shifts(), *(f"{kind.replace('_', ' ')} {SEVERE}" for kind in CORRUPTIONS)]


def some_of_each(data: ImageSet, count: int) -> dict[str, ImageSplit]:
    """`count` images of test and of each of the data's own shifts, and these test images severely corrupted."""

    def some(name: str) -> ImageSplit:
        split = data[name]
        return split.take(shuffled_by_name(split.ids, seed=0)[:count])

    found = {name: some(name) for name in ("test", *data.shifts())}
    for kind in CORRUPTIONS:
        name = f"{kind.replace('_', ' ')} {SEVERE}"
        found[name] = corrupt(found["test"], kind, SEVERE, name=name)
    return found


def groups_of_shifts(data: ImageSet) -> dict[str, list[str]]:
    """The `large_shifts` in two groups, those without members left out: the data's own, and the corruptions."""
    own = list(data.shifts())
    corrupted = [name for name in large_shifts(data) if name not in own]
    return {**({", ".join(own): own} if own else {}), f"corruptions of severity {SEVERE}": corrupted}


def embed_unstored(backbone: PretrainedBackbone, images: ImageSplit) -> Features:
    """Features past the store, for weights that will not be seen again."""
    with torch.inference_mode():
        values = torch.cat(
            [
                backbone(normalise(images.batch(rows), backbone.preprocessing))
                for rows in torch.arange(len(images)).split(64)
            ]
        )
    return Features(
        values=values.clone(),
        labels=torch.as_tensor(images.labels),
        classes=images.classes,
        ids=images.ids,
        split=images.name,
        source="a backbone in training",
    )


def adapted(
    data: ImageSet,
    backbone: PretrainedBackbone,
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    work: Path | None,
    progress: Progress,
) -> dict[tuple[str, str], Tensor]:
    """(method, split) → (S, N) whether each seed's model is right, for all of `questions`.

    The first seed chooses the learning rate of a method on home validation; the others take it.
    """
    asked = questions(data)
    fingerprint = _fingerprint(data, backbone)
    found: dict[tuple[str, str], list[Tensor]] = {}
    rates: dict[str, float] = {}
    for i, seed in enumerate(seeds):
        for j, method in enumerate(methods):
            path = None if work is None else work / f"{method}-{seed}-{fingerprint}.safetensors"
            if path is None or not path.is_file():
                model = _fit(method, data, backbone, seed, rates.get(method), progress)
                # The probe's features are those of the pretrained backbone: one extraction serves all seeds.
                inputs = [embed(backbone, split) if method == "probe" else split for split in asked.values()]
                predictions = [model.predictions(each, progress=progress) for each in inputs]
                record = {"lr": model.record.get("lr")}
                if path is not None:
                    save_predictions(predictions, path, record=record)
            else:
                predictions, record = load_predictions(path)
            if record["lr"] is not None:
                rates.setdefault(method, record["lr"])
            for p in predictions:
                found.setdefault((method, p.split), []).append(_correct(p))
            progress("models", i * len(methods) + j + 1, len(seeds) * len(methods))
    return {key: torch.stack(values) for key, values in found.items()}


def _fit(
    method: str, data: ImageSet, backbone: PretrainedBackbone, seed: int, lr: float | None, progress: Progress
) -> TunedModel:
    train = few_shot(data["train"], SHOTS, seed=seed)
    if method == "probe":
        return on_backbone(backbone, LinearProbe(seed=seed).fit(embed(backbone, train)), seed=seed)
    recipes: Mapping[str, type[FineTune]] = {"finetune": FineTune, "lp-ft": LPFT}
    recipe = recipes[method](lr=lr, mirror=data.mirror)
    return recipe.fit(backbone, train, data["val"], seed=seed, progress=progress)


def _correct(p: Predictions) -> Tensor:
    return p.values.argmax(dim=1) == p.labels


def _fingerprint(data: ImageSet, backbone: PretrainedBackbone) -> str:
    splits = {name: split.fingerprint for name, split in sorted(data.splits.items())}
    text = json.dumps(
        [splits, backbone.fingerprint, asdict(FineTune()), SHOTS, MILD, SEVERE, NUM_TEST, NUM_CORRUPTED], sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]

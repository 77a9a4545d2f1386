"""What a run finds out besides accuracy, computed once from the first seed's models and kept on disk.

What enters: the fits, and the method that is recommended. What leaves: `Evidence`, and the calibration record that the
shipped model carries.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from headfirst.adapt import Calibration, TunedModel
from headfirst.artefact import load_model
from headfirst.data import CORRUPTIONS, ImageSplit, corrupt
from headfirst.features import embed
from headfirst.study.choose import CORRUPTED, HOME, TUNED
from headfirst.study.detection import MOST, detections, sample
from headfirst.study.fits import Fits, Result
from headfirst.study.forecast import SEVERITIES, fit_forecaster
from headfirst.study.geometry import geometry
from headfirst.study.mistakes import with_neighbours
from headfirst.types import Detection, Features, Forecast, Geometry, Mistake, Predictions

MOST_CORRUPTED = 256
"""Validation images whose corrupted copies are looked at; of other splits, `MOST`."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The parts of a report that need the models themselves."""

    forecasts: tuple[Forecast, ...]
    detections: tuple[Detection, ...]
    geometry: Geometry
    mistakes: tuple[Mistake, ...] = ()


def save_evidence(evidence: Evidence, path: Path) -> None:
    """Write atomically."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(evidence)))
    temporary.replace(path)


def load_evidence(path: Path) -> Evidence:
    """What `save_evidence` wrote."""
    return TypeAdapter(Evidence).validate_python(json.loads(path.read_text()))


def gather(
    fits: Fits, results: Mapping[tuple[str, int], Result], method: str, wrong: Sequence[Mistake]
) -> tuple[Evidence, Calibration]:
    """Look at the recommended model, at the one whose agreement is asked, and at every tuned one.

    Args:
        wrong: mistakes of the recommended model; training images most like them to it are laid beside them.
    """
    seed = fits.recipe.seed
    methods = fits.recipe.all_methods
    partner = "probe" if method in TUNED else next((m for m in ("lp-ft", "finetune") if m in methods), None)
    wanted = {method, *(m for m in TUNED if m in methods), *((partner,) if partner else ())}
    models = {name: load_model(fits.work / "models" / name) for name in methods if name in wanted}
    store = fits.work / "features"

    def look(model: TunedModel, split: ImageSplit) -> Features:
        own = model.method in TUNED  # weights that will not be seen again stay out of the store
        return embed(model.classifier.backbone, split, cache=store if own else None, device=fits.device,
                     progress=fits.progress)  # fmt: skip

    def look_at(split: ImageSplit, rows: list[int]) -> Features:
        if method in TUNED:
            return look(model, split.take(rows))
        return look(model, split).take(rows)  # the pretrained backbone's are all in the store already

    splits = {split.name: sample(split, MOST) for split in fits.reported}
    if "unlabelled" in fits.images.splits and len(fits.images["unlabelled"]):
        splits["unlabelled"] = sample(fits.images["unlabelled"], MOST)
    model, other = models[method], models[partner] if partner else None
    validation = model.predictions(look(model, fits.images[HOME]))
    few = sample(fits.images[HOME], MOST_CORRUPTED)
    copies = [
        corrupt(few, kind, severity, name=f"val-{kind}-{severity}") for kind in CORRUPTIONS for severity in SEVERITIES
    ]
    forecaster = fit_forecaster(
        validation,
        [model.predictions(look(model, copy)) for copy in copies],
        [other.predictions(look(other, copy)) for copy in copies] if other else None,
    )
    told: dict[str, tuple[Predictions, Predictions | None]] = {
        mine.split: (mine, theirs)
        for mine, theirs in zip(
            results[method, seed].reported,
            results[partner, seed].reported if partner else [None] * len(fits.reported),
            strict=True,
        )
    }
    if "unlabelled" in splits:
        unlabelled = splits["unlabelled"]
        told["unlabelled"] = (
            model.predictions(look(model, unlabelled)),
            other.predictions(look(other, unlabelled)) if other else None,
        )
    train = fits.train_split(seed)
    trained = look(model, train)
    seen = {name: look(model, split) for name, split in splits.items()}
    home = seen.pop("test")
    labelled = [split.name for split in fits.reported]
    evidence = Evidence(
        forecasts=tuple(f for pair in told.values() for f in forecaster.forecasts(*pair)),
        detections=detections(
            model, trained, look(model, fits.images[HOME]), look(model, fits.images[CORRUPTED]), home, seen,
            seed=seed,
        ),
        geometry=geometry(
            fits.train_features(seed),
            {name: embed(fits.backbone, splits[name], device=fits.device, progress=fits.progress) for name in labelled},
            {
                name: {split: look(tuned, splits[split]) for split in labelled}
                for name, tuned in models.items()
                if name in TUNED
            },
            fits.backbone,
            models,
            seed=seed,
        ),
        mistakes=tuple(
            mistake
            for images, rows, found in _rows_by_split(fits.reported, wrong)
            for mistake in with_neighbours(found, look_at(images, rows), train, trained)
        ),
    )  # fmt: skip
    shutil.rmtree(store, ignore_errors=True)
    calibration = Calibration(
        temperature=forecaster.temperature,
        logits=validation.values,
        labels=validation.labels,
        chosen_on=HOME,
        forecast=forecaster.record(),
    )
    return evidence, calibration


def _rows_by_split(
    splits: Sequence[ImageSplit], wrong: Sequence[Mistake]
) -> Iterator[tuple[ImageSplit, list[int], list[Mistake]]]:
    """Of each split the rows of its mistaken images and the mistakes, in their order."""
    for split in splits:
        found = [mistake for mistake in wrong if mistake.split == split.name]
        if found:
            row = {id_: i for i, id_ in enumerate(split.ids)}
            yield split, [row[mistake.id] for mistake in found], found

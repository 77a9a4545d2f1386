"""A model and labelled images → a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from headfirst.data import ImageSet, ImageSplit, prepare
from headfirst.errors import DataError, InputError
from headfirst.evaluation.rows import by_method_and_split, confusion, report_rows
from headfirst.evaluation.versions import versions
from headfirst.nn import ImageClassifier
from headfirst.types import Predictions, Progress, Report, silent


@runtime_checkable
class EvaluatedModel(Protocol):
    """What `evaluate` needs of a model; every image adaptation's result has it."""

    @property
    def classifier(self) -> ImageClassifier: ...
    @property
    def method(self) -> str: ...
    @property
    def chosen_on(self) -> str: ...
    @property
    def recipe(self) -> Mapping[str, object]: ...

    def predictions(
        self, inputs: ImageSplit, /, *, device: str = "cpu", progress: Progress = silent
    ) -> Predictions: ...


def evaluate(
    models: EvaluatedModel | Sequence[EvaluatedModel],
    images: ImageSet,
    *,
    baseline: str = "probe",
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> Report:
    """Measure models on every labelled split of `images`, with intervals and paired differences.

    Args:
        models: one or more results of an adaptation's `fit`, with the same preprocessing.
        images: e.g. `images.only("test", "shift-sketch")`; prepared on the fly.
        baseline: the method that differences are taken to.
        seed: of the bootstrap.

    Raises:
        InputError: a split among `images` trained or chose one of the models: its numbers would flatter.
    """
    models = list(models) if isinstance(models, Sequence) else [models]
    if not models:
        raise InputError("evaluate needs at least one model")
    names = [name for name, split in images.splits.items() if (split.labels >= 0).all() and len(split)]
    for model in models:
        if flattered := {"train", *model.chosen_on.split(", ")} & set(names):
            raise InputError(
                f"{model.method} learnt from or was chosen on {', '.join(sorted(flattered))}; report on splits it has "
                'not seen, as in images.only("test")'
            )
    if not names:
        raise DataError(f"{images.name} has no labelled images to evaluate on")
    images = prepare(images.only(*names), models[0].classifier.backbone.preprocessing, progress=progress)
    found = [m.predictions(images[name], device=device, progress=progress) for m in models for name in names]
    return Report(
        rows=report_rows(found, baseline=baseline, seed=seed),
        confusions=tuple(confusion(group) for group in by_method_and_split(found).values()),
        data=images.summary(),
        recipe={model.method: dict(model.recipe) for model in models},
        versions=versions(),
    )

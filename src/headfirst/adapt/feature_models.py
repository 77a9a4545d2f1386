"""What every model fitted to features answers alike."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from headfirst.adapt.refusals import raw_values, require_labelled
from headfirst.types import Features, Predictions


@runtime_checkable
class FeatureModel(Protocol):
    """A classifier with logits: `LinearProbeModel`, `LDAModel`, `NaiveBayesModel`."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def method(self) -> str: ...

    @property
    def chosen_on(self) -> str: ...

    def logits(self, values: Tensor) -> Tensor: ...


def answer(model: FeatureModel, features: Features, *, seed: int) -> Predictions:
    """The model's logits of a split, labelled or not.

    Raises:
        DataError: features labelled with other classes.
    """
    return Predictions(
        values=model.logits(raw_values(features, model.classes)),
        kind="logits",
        labels=features.labels,
        classes=model.classes,
        ids=features.ids,
        split=features.split,
        method=model.method,
        seed=seed,
        chosen_on=model.chosen_on,
    )


def accuracy_of(model: FeatureModel, features: Features) -> float:
    """Share of labelled features that get their class.

    Raises:
        DataError: an unlabelled image, other classes.
    """
    require_labelled(features)
    predicted = model.logits(raw_values(features, model.classes)).argmax(dim=1)
    return (predicted == features.labels).double().mean().item()

"""What features must be before a head is fitted to them or asked about them."""

from __future__ import annotations

import torch
from torch import Tensor

from headfirst.errors import DataError
from headfirst.types import Features


def require_labelled(features: Features) -> None:
    """Refuse a split with no images or with unlabelled ones, naming the first."""
    if len(features) == 0:
        raise DataError(f"{features.split!r} has no images; give features of at least one")
    unlabelled = torch.nonzero(features.labels < 0).flatten()
    if len(unlabelled):
        raise DataError(
            f"every image of {features.split!r} must be labelled, but {len(unlabelled)} of {len(features)} are not, "
            f"first {features.ids[int(unlabelled[0])]!r}; label them or leave them out"
        )


def require_finite(features: Features) -> None:
    """Refuse features that are NaN or infinite, naming the first image."""
    bad = torch.nonzero(~features.values.isfinite().all(dim=1)).flatten()
    if len(bad):
        raise DataError(
            f"features must be finite, but {len(bad)} of {len(features)} in {features.split!r} are not, first "
            f"{features.ids[int(bad[0])]!r}; check that image and the backbone's weights"
        )


def require_two_classes(features: Features, what: str) -> None:
    """Refuse labelled features of one class only; `what` needs two."""
    first = int(features.labels[0])
    if bool((features.labels == first).all()):
        raise DataError(
            f"{what} needs images of at least two classes, but those of {features.split!r} are all "
            f"{features.classes[first]!r}; label images of another class"
        )


def require_unlike(features: Features, scale: Tensor) -> None:
    """Refuse features whose root-mean-square distance `scale` from their mean is but rounding."""
    if scale <= 1e-12 * features.values.double().abs().max():
        raise DataError(
            f"the {len(features)} features of {features.split!r} are all alike, so nothing can be told apart; "
            "check that the images differ and that the backbone's weights were loaded"
        )


def require_classes(features: Features, classes: tuple[str, ...]) -> None:
    """Refuse features labelled with other classes than the model's; without any (unlabelled) they pass."""
    if features.classes and features.classes != classes:
        raise DataError(
            f"the model knows the classes {', '.join(classes)}, but {features.split!r} is labelled "
            f"{', '.join(features.classes)}; give features with the same classes in the same order"
        )


def raw_values(inputs: Features | Tensor, classes: tuple[str, ...]) -> Tensor:
    """(N, D) of features whose classes pass, or the tensor as it is."""
    if isinstance(inputs, Tensor):
        return inputs
    require_classes(inputs, classes)
    return inputs.values

"""A backbone with a head, ready to be asked: images or features in, predictions out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headfirst.data import ImageSplit, normalise
from headfirst.errors import DataError, InputError
from headfirst.metrics import abstention_threshold
from headfirst.nn import ImageClassifier
from headfirst.types import Features, Predictions, Progress, silent


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """What labelled images that trained nothing say of a model's confidence.

    Attributes:
        temperature: T > 0; the calibrated probabilities are softmax(logits / T).
        logits: (V, K) float32, the model's raw logits of those images.
        labels: (V,) int64, their labels.
        chosen_on: the split they are of.
        forecast: what forecasting accuracy away from home needs besides, as JSON holds it.

    Raises:
        InputError: the temperature is not positive and finite, or logits and labels do not fit.
    """

    temperature: float
    logits: Tensor
    labels: Tensor
    chosen_on: str
    forecast: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"a temperature is positive and finite, got {self.temperature}")
        shapes = f"logits {tuple(self.logits.shape)} and labels {tuple(self.labels.shape)}"
        if self.logits.ndim != 2 or self.labels.shape != self.logits.shape[:1] or not len(self.labels):
            raise InputError(f"calibration needs logits (V, K) and labels (V,) of at least one image, got {shapes}")
        if not bool(self.logits.isfinite().all()):
            raise InputError("calibration needs finite logits, got NaN or infinity; did training diverge?")
        if not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.logits.shape[1]:
            raise InputError(f"calibration needs labels from 0 to {self.logits.shape[1] - 1}; leave the others out")


@dataclass(frozen=True, kw_only=True, eq=False)
class TunedModel:
    """What every image adaptation returns: a new `ImageClassifier` and how it came about.

    Attributes:
        classifier: backbone and head, in eval mode.
        method: `zero-shot`, `probe`, `finetune`, `lp-ft`, `flyp`, `wise-ft` …
        recipe: the recipe's fields, as JSON holds them.
        seed: seed of training.
        chosen_on: the split that chose the hyper-parameters, "fixed" where there were none to choose.
        record: what the fit found out (learning rate, seconds, trained parameters, trials).
        calibration: the temperature, and the validation logits it was fitted on; None: confidence is uncalibrated.
    """

    classifier: ImageClassifier
    method: str
    recipe: Mapping[str, Any]
    seed: int
    chosen_on: str
    record: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        if self.calibration is not None and self.calibration.logits.shape[1] != len(self.classes_):
            raise InputError(
                f"the calibration is of {self.calibration.logits.shape[1]} classes, the model of {len(self.classes_)}"
            )

    @property
    def classes_(self) -> tuple[str, ...]:
        """Class names in label order (scikit-learn's name for them)."""
        return self.classifier.classes

    def predictions(
        self,
        inputs: ImageSplit | Features,
        *,
        batch_size: int = 64,
        device: str = "cpu",
        progress: Progress = silent,
    ) -> Predictions:
        """Logits for a prepared split of images, or for features made by this very backbone."""
        _check_classes(inputs.classes, self.classes_)
        if isinstance(inputs, Features):
            if inputs.source != self.classifier.backbone.fingerprint:
                raise InputError(
                    f"the features of {inputs.split!r} come from another backbone than this model's (fine-tuning makes "
                    "a new one); embed the images with model.classifier.backbone first, or pass the images"
                )
            with torch.inference_mode():
                values = self.classifier.head(inputs.values.float())
        else:
            values = logits(self.classifier, inputs, batch_size=batch_size, device=device, progress=progress)
        return Predictions(
            values=values,
            kind="logits",
            labels=torch.as_tensor(np.asarray(inputs.labels)),
            classes=self.classes_,
            ids=inputs.ids,
            split=inputs.split if isinstance(inputs, Features) else inputs.name,
            method=self.method,
            seed=self.seed,
            chosen_on=self.chosen_on,
        )

    def predict(self, inputs: ImageSplit | Features) -> Int[Tensor, " n"]:
        """(N,) index of the most likely class."""
        return self.predictions(inputs).values.argmax(dim=1)

    def predict_proba(self, inputs: ImageSplit | Features) -> Float[Tensor, "n k"]:
        """(N, K) softmax probabilities, float64; calibrated where the model has a temperature."""
        return self.probabilities(self.predictions(inputs))

    def probabilities(self, predictions: Predictions) -> Float[Tensor, "n k"]:
        """(N, K) float64 softmax(logits / T) of this model's own predictions; T = 1 where it is uncalibrated.

        Raises:
            InputError: the predictions are no logits, or of other classes.
        """
        if predictions.kind != "logits" or predictions.classes != self.classes_:
            raise InputError(
                f"expected this model's own logits, got {predictions.kind} of the classes "
                f"{', '.join(predictions.classes)}; pass what model.predictions returned"
            )
        temperature = 1.0 if self.calibration is None else self.calibration.temperature
        return replace(predictions, values=predictions.values.double() / temperature).probabilities()

    def abstention_threshold(self, max_error: float) -> float:
        """The least confidence to answer at, so that at most `max_error` of the answers are wrong.

        From the stored validation logits, by `headfirst.metrics.abstention_threshold`; inf where nothing qualifies.

        Raises:
            InputError: the model has no calibration record.
        """
        if self.calibration is None:
            raise InputError(
                "abstaining needs labelled validation images, but this model was saved without a calibration record; "
                "make it anew with a validation split, or leave out the threshold"
            )
        probabilities = (self.calibration.logits.double() / self.calibration.temperature).softmax(dim=1)
        confidence, best = probabilities.max(dim=1)
        return abstention_threshold(confidence, best == self.calibration.labels, max_error)

    def score(self, inputs: ImageSplit | Features) -> float:
        """Accuracy on labelled inputs."""
        labels = torch.as_tensor(np.asarray(inputs.labels))
        if (labels < 0).any():
            raise DataError("a score needs labels, but some of these images have none")
        return (self.predict(inputs) == labels).double().mean().item()


def logits(
    classifier: ImageClassifier,
    images: ImageSplit,
    *,
    batch_size: int = 64,
    device: str = "cpu",
    progress: Progress = silent,
) -> Float[Tensor, "n k"]:
    """(N, K) logits of a prepared split, float32 on the CPU; the classifier's mode and device are put back."""
    preprocessing = classifier.backbone.preprocessing
    was_training, home = classifier.training, next(classifier.parameters()).device
    classifier.eval().to(device)
    rows = []
    try:
        with torch.inference_mode():
            for start in range(0, len(images), batch_size):
                indices = np.arange(start, min(start + batch_size, len(images)))
                batch = images.batch(indices).to(device)
                rows.append(classifier(normalise(batch, preprocessing)).float().cpu())
                progress(f"predicting {images.name}", int(indices[-1]) + 1, len(images))
    finally:
        classifier.train(was_training).to(home)
    return torch.cat(rows)


def module_fingerprint(module: nn.Module) -> str:
    """sha256 over the names, types, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name}:{array.dtype}:{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _check_classes(given: tuple[str, ...], known: tuple[str, ...]) -> None:
    if given and given != known:
        raise DataError(
            f"the model knows the classes {', '.join(known)}, but these images are labelled "
            f"{', '.join(given)}; evaluate on images with the same classes in the same order"
        )

"""A backbone with a head, ready to be asked: images or features in, predictions out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headfirst.data import ImageSplit, normalise
from headfirst.errors import DataError, InputError
from headfirst.nn import ImageClassifier
from headfirst.types import Features, Predictions, Progress, silent


@dataclass(frozen=True, kw_only=True, eq=False)
class TunedModel:
    """What every image adaptation returns: a new `ImageClassifier` and how it came about.

    Attributes:
        classifier: backbone and head, in eval mode.
        method: `probe`, `finetune`, `lp-ft` or `wise-ft`.
        recipe: the recipe's fields, as JSON holds them.
        seed: seed of training.
        chosen_on: the split that chose the hyper-parameters, "fixed" where there were none to choose.
        record: what the fit found out (learning rate, seconds, trained parameters, trials).
    """

    classifier: ImageClassifier
    method: str
    recipe: Mapping[str, Any]
    seed: int
    chosen_on: str
    record: Mapping[str, Any] = field(default_factory=dict)

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
        """(N, K) softmax probabilities, float64; uncalibrated."""
        return self.predictions(inputs).probabilities()

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

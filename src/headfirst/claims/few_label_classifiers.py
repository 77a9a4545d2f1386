"""Classifiers of few labels, discriminative and generative, and what the latter say of p(x).

Shape letters: N images, K classes, P classes with training images, D features, C channels, S pixels a side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.adapt import LDA, GaussianNaiveBayes, LDAModel, NaiveBayesModel
from headfirst.claims.trained import trained
from headfirst.data import ImageSplit, few_shot
from headfirst.evaluation import load_predictions, save_predictions
from headfirst.generate import VAE, Generator, LikelihoodModel, pictures
from headfirst.types import Features, Predictions

LOGISTIC, SVM, DISCRIMINANT, BAYES, CONDITIONAL = "logistic regression", "linear SVM", "LDA", "naive Bayes", "VAE"
GENERATIVE = (DISCRIMINANT, BAYES)
FEATURES, PIXELS = "features", "pixels"
MARGIN_WEIGHT = 10.0
"""C of the support vector machine, for features of unit root-mean-square norm."""
IMPORTANCE = 5
"""Draws for the bound of an image and a class."""
VAE_BATCH, LATENT = 64, 8
"""Fewer latents than the fewest images that a VAE learns, five of each of two classes."""

Classifier = Callable[[Features], Callable[[Features], Predictions]]
"""From labelled features to what it says of others."""


def taken(held: Mapping[str, Features], train: ImageSplit, k: int, draw: int) -> Features:
    """The features of `few_shot(train, k, seed=draw)`."""
    place = {id_: row for row, id_ in enumerate(held["train"].ids)}
    return held["train"].take([place[id_] for id_ in few_shot(train, k, seed=draw).ids])


def as_pixels(asked: Mapping[str, ImageSplit]) -> dict[str, Features]:
    """(N, C·S·S) in [0, 1], all of the size that train has."""
    first = pictures(asked["train"])
    shown = {name: pictures(split, size=first.size, grey=first.grey) for name, split in asked.items()}
    return {
        name: Features(
            values=images.batch().flatten(1),
            labels=torch.from_numpy(images.labels).long(),
            classes=images.split.classes,
            ids=images.split.ids,
            split=name,
            source=f"pixels, {images.size}×{images.size}",
        )
        for name, images in shown.items()
    }


def support_vectors(few: Features) -> Callable[[Features], Predictions]:
    """One linear machine a class against the rest, by scikit-learn; its scores stand as logits, which they are not."""
    from sklearn.svm import LinearSVC

    mean = few.values.mean(dim=0)
    scale = (few.values - mean).square().sum(dim=1).mean().sqrt()
    machine = LinearSVC(C=MARGIN_WEIGHT, random_state=0, max_iter=5000)
    machine.fit(((few.values - mean) / scale).double().numpy(), few.labels.numpy())

    def predictions(held: Features) -> Predictions:
        scores: Any = machine.decision_function(((held.values - mean) / scale).double().numpy())
        values = np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
        every = torch.full((len(held), len(held.classes)), -1e9)
        every[:, torch.as_tensor(machine.classes_).long()] = torch.from_numpy(values).float()
        return _said(held, every, "svm")

    return predictions


CLASSIFIERS: Mapping[str, Classifier] = {
    SVM: support_vectors,
    DISCRIMINANT: lambda few: LDA().fit(few).predictions,
    BAYES: lambda few: GaussianNaiveBayes().fit(few).predictions,
}


@dataclass(frozen=True, kw_only=True)
class VAEs:
    """Class-conditional VAEs of few labelled images, and what they say of others."""

    train: ImageSplit
    asked: Mapping[str, ImageSplit]
    steps: int
    work: Path

    def of(self, k: int, draw: int) -> Generator:
        """The VAE of `few_shot(train, k, seed=draw)`."""
        few = few_shot(self.train, k, seed=draw)
        batches = -(-len(few) // VAE_BATCH)
        recipe = VAE(latent_dim=LATENT, width=16, hidden=128, epochs=max(1, self.steps // batches),
                     batch_size=VAE_BATCH, conditional=True, fewest=2)  # fmt: skip
        return trained(recipe, few, draw, self.work)

    def __call__(self, k: int, draw: int) -> Mapping[str, Predictions]:
        """log p(x, y) of every image and class, as logits, by `IMPORTANCE` draws; from `work` where it was found."""
        generator = self.of(k, draw)
        about = (generator.fingerprint, str(IMPORTANCE), *(split.fingerprint for split in self.asked.values()))
        key = hashlib.sha256("|".join(about).encode()).hexdigest()[:16]
        path = self.work / f"bounds-{k}-{draw}-{key}.safetensors"
        if not path.is_file():
            model = LikelihoodModel(generator=generator, draws=IMPORTANCE, seed=draw)
            save_predictions([model.predictions(split) for split in self.asked.values()], path, record={})
        return {each.split: each for each in load_predictions(path)[0]}


def noise_like(values: Float[Tensor, "n d"], num: int, seed: int) -> Float[Tensor, "m d"]:
    """Independent Gaussian coordinates with the mean and variance of these."""
    generator = torch.Generator().manual_seed(seed)
    return values.mean(dim=0) + values.std(dim=0) * torch.randn(num, values.shape[1], generator=generator)


def gaussians(name: str, few: Features) -> LDAModel | NaiveBayesModel:
    """One of `GENERATIVE`, fitted."""
    return LDA().fit(few) if name == DISCRIMINANT else GaussianNaiveBayes().fit(few)


def log_density(model: LDAModel | NaiveBayesModel, values: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """log p(x) = log Σ_y π_y N(x; μ_y, Σ_y), up to a constant, float64."""
    offsets = values.double()[:, None] - model.means  # (N, P, D)
    if isinstance(model, LDAModel):
        whitened = model.covariance.power(offsets.flatten(0, 1), -0.5).reshape(offsets.shape)
        exponents = whitened.square().sum(dim=2)
    else:
        exponents = (offsets.square() / model.variances + model.variances.log()).sum(dim=2)
    return (model.prior.log() - exponents / 2).logsumexp(dim=1)


def _said(about: Features, values: Tensor, method: str) -> Predictions:
    return Predictions(values=values, kind="logits", labels=about.labels, classes=about.classes, ids=about.ids,
                       split=about.split, method=method, seed=0, chosen_on="fixed")  # fmt: skip

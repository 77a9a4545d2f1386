"""Classifiers of few labels, discriminative and generative, and what the latter say of p(x).

Shape letters: N images, K classes, P classes with training images, D features, C channels, S pixels a side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
from headfirst.generate import (
    VAE,
    Diffusion,
    DiffusionClassifier,
    DiffusionClassifierModel,
    Generator,
    LikelihoodModel,
    pictures,
)
from headfirst.nn import UNetShape
from headfirst.types import Features, Predictions

LOGISTIC, SVM, DISCRIMINANT, BAYES = "logistic regression", "linear SVM", "LDA", "naive Bayes"
CONDITIONAL, DIFFUSION = "VAE", "diffusion"
GENERATIVE = (DISCRIMINANT, BAYES)
FEATURES, PIXELS = "features", "pixels"
MARGIN_WEIGHT = 10.0
"""C of the support vector machine, for features of unit root-mean-square norm."""
IMPORTANCE = 5
"""Draws for the bound of an image and a class."""
VAE_RECIPE = VAE(latent_dim=8, width=16, hidden=128, batch_size=64, conditional=True, fewest=2)
"""Fewer latents than the fewest images that a VAE learns, five of each of two classes."""
EVIDENCE = DiffusionClassifier(
    diffusion=Diffusion(shape=UNetShape(widths=(24, 48), head_dim=24), conditional=True, class_drop=0.0, fewest=2),
    num_levels=5,
    sigma_max=4.5,
)  # fmt: skip
"""At each level that it asks, a class costs an image one evaluation of the network: fewer levels than by default."""

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
class FewLabelGenerators:
    """Class-conditional generators of few labelled images, and what they say of others.

    Attributes:
        recipe: of its epochs, as many are taken as make `steps`.
        says: a generator and a seed → what tells log p(x, y), but for a constant of x, of every image and class.
        about: all that this depends on besides.
    """

    train: ImageSplit
    asked: Mapping[str, ImageSplit]
    recipe: VAE | Diffusion
    says: Callable[[Generator, int], LikelihoodModel | DiffusionClassifierModel]
    about: str
    steps: int
    work: Path

    def of(self, k: int, draw: int) -> Generator:
        """The generator of `few_shot(train, k, seed=draw)`."""
        few = few_shot(self.train, k, seed=draw)
        batches = -(-len(few) // self.recipe.batch_size)
        return trained(replace(self.recipe, epochs=max(1, self.steps // batches)), few, draw, self.work)

    def __call__(self, k: int, draw: int) -> Mapping[str, Predictions]:
        """What `says` says, as logits; from `work` where it was found."""
        generator = self.of(k, draw)
        about = (generator.fingerprint, self.about, *(split.fingerprint for split in self.asked.values()))
        key = hashlib.sha256("|".join(about).encode()).hexdigest()[:16]
        path = self.work / f"bounds-{k}-{draw}-{key}.safetensors"
        if not path.is_file():
            model = self.says(generator, draw)
            save_predictions([model.predictions(split) for split in self.asked.values()], path, record={})
        return {each.split: each for each in load_predictions(path)[0]}


def by_bound(generator: Generator, seed: int) -> LikelihoodModel:
    """A VAE's bound of log p(x|y), by `IMPORTANCE` draws."""
    return LikelihoodModel(generator=generator, draws=IMPORTANCE, seed=seed)


def by_denoising(generator: Generator, seed: int) -> DiffusionClassifierModel:
    """A diffusion model's evidence for y at the levels of `EVIDENCE`."""
    return DiffusionClassifierModel(generator=generator, sigmas=EVIDENCE.sigmas, draws=EVIDENCE.draws, seed=seed)


def generators_of(
    train: ImageSplit, asked: Mapping[str, ImageSplit], steps: Mapping[str, int], work: Path
) -> dict[str, FewLabelGenerators]:
    """The VAEs and the diffusion models, trained for so many steps."""
    kinds = {
        CONDITIONAL: (VAE_RECIPE, by_bound, str(IMPORTANCE)),
        DIFFUSION: (EVIDENCE.diffusion, by_denoising, repr(EVIDENCE)),
    }
    return {
        name: FewLabelGenerators(
            train=train, asked=asked, recipe=recipe, says=says, about=about, steps=steps[name], work=work
        )
        for name, (recipe, says, about) in kinds.items()
    }


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

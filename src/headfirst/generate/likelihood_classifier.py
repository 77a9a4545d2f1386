"""A class-conditional VAE as a classifier: the class under which an image is most likely.

What enters: labelled images. What leaves: for each image and class log p(x | y) + log p(y), from below.

Shape letters: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from headfirst.data import ImageSplit
from headfirst.errors import InputError
from headfirst.generate.generator import Generator
from headfirst.generate.pictures import as_pictures
from headfirst.generate.vae import VAE
from headfirst.generate.vae_bound import bound
from headfirst.types import Predictions, Progress, silent


@dataclass(frozen=True, kw_only=True)
class LikelihoodClassifier:
    """Bayes' rule with the likelihood of a VAE.

    Attributes:
        vae: how each class's images are learned, all in one network.
        draws: of each image and class for the importance-weighted bound.
        fewest_steps: the recipe's epochs are raised until training takes so many; few images make short epochs. Many
            more, and the network knows its few images by heart: no other is likely, least of all under its own class.

    Source: the generative classifier of Ng & Jordan, "On Discriminative vs. Generative Classifiers", NeurIPS 2001, with
    the bound of Burda, Grosse & Salakhutdinov, ICLR 2016, for the likelihood.
    """

    vae: VAE = field(default_factory=lambda: VAE(conditional=True))
    draws: int = 16
    fewest_steps: int = 100

    def __post_init__(self) -> None:
        if self.draws < 2 or self.vae.conditional is False:
            raise InputError(
                f"a likelihood classifier needs at least 2 draws and a VAE with classes, got {self.draws} draws and "
                f"conditional={self.vae.conditional}"
            )

    def fit(
        self,
        train: ImageSplit,
        *,
        val: ImageSplit | None = None,
        seed: int = 0,
        directory: Path | None = None,
        device: str = "cpu",
        force: bool = False,
        watch: Callable[[int, Generator], None] | None = None,
        progress: Progress = silent,
    ) -> LikelihoodModel:
        """Learn what the images of each class look like. Arguments and errors as `VAE.fit`.

        Raises:
            InputError: besides, a class without an image.
        """
        counts = train.class_counts()
        if empty := [name for name in train.classes if not counts.get(name)]:
            raise InputError(f"every class needs an image, and {', '.join(empty)} has none; add some or leave it out")
        epochs = -(-self.fewest_steps // self.vae.optimisation.steps_per_epoch(len(train)))
        recipe = replace(self.vae, conditional=True, epochs=max(self.vae.epochs, epochs))
        generator = recipe.fit(
            train, val=val, seed=seed, directory=directory, device=device, force=force, watch=watch, progress=progress
        )
        return LikelihoodModel(generator=generator, draws=self.draws, seed=seed)


@dataclass(frozen=True, kw_only=True, eq=False)
class LikelihoodModel:
    """A class-conditional generator that is asked which class an image is most likely of."""

    generator: Generator
    draws: int
    seed: int

    def predictions(self, split: ImageSplit, *, progress: Progress = silent) -> Predictions:
        """log p(x | y) + log p(y) of every image and class, p(y) the classes' shares in training, as logits.

        Differences of some hundred pixels' nats: far too confident as they are; fit a temperature.

        Raises:
            InputError: images the generator cannot take.
        """
        network = self.generator.network
        shown = as_pictures(split, size=network.size, channels=network.channels)
        columns = []
        for label, share in enumerate(self.generator.shares):
            labels = torch.full((len(shown),), label)
            found = bound(self.generator, shown, draws=self.draws, labels=labels, seed=self.seed)
            columns.append(found.per_image + torch.tensor(share, dtype=torch.float64).log())
            progress("likelihoods", label + 1, len(self.generator.classes))
        return Predictions(
            values=torch.stack(columns, dim=1).float(),
            kind="logits",
            labels=torch.from_numpy(shown.labels),
            classes=self.generator.classes,
            ids=shown.split.ids,
            split=split.name,
            method="vae",
            seed=self.seed,
            chosen_on="fixed",
        )

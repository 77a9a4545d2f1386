"""A class-conditional diffusion model as a classifier: the class that helps most to see through noise.

What enters: labelled images. What leaves: for each image and class log p(x | y) + log p(y), but for a constant of the
image.

Shape letters: N images, K classes, M levels, R draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.data import ImageSplit
from headfirst.errors import InputError
from headfirst.generate.diffusion import Diffusion, log_snr_uniform_sigmas
from headfirst.generate.diffusion.samplers.stepping import falling_levels, scalars
from headfirst.generate.generator import Generator
from headfirst.generate.pictures import as_pictures
from headfirst.randomness import keyed_normal
from headfirst.types import Denoiser, Predictions, Progress, silent

BATCH = 64
"""Images that are asked at once."""
_NOISE = 81  # stream of the keyed generator


def denoising_evidence(
    denoisers: Sequence[Denoiser],
    x: Float[Tensor, "n ..."],
    sigmas: Float[Tensor, " m"],
    noise: Float[Tensor, "r levels ..."],
) -> Float[Tensor, "n k"]:
    """-∫ E |x - D_k(x + σ ε; σ)|² / σ² d ln σ of each image and class, by the trapezoidal rule, float64.

    Over all levels and of exact denoisers it is log p(x | k) but for a constant, the same for all classes. The noise is
    the same for all classes too, so that what all of them fail to see cancels, and the same for all images, so that an
    image's row depends on no other.

    Args:
        denoisers: D_k, one a class.
        x: images without noise, on the denoisers' scale.
        sigmas: at least two levels, falling, none of them 0; a narrower range leaves out what classes differ by there.
        noise: ε, standard normal: R draws for each level, of the shape of one image.

    Raises:
        InputError: levels that cannot be, no denoiser, noise of another shape.

    Source: the identity: Kong, Brekelmans & Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, equation 8; the
    classifier: Li et al., "Your Diffusion Model is Secretly a Zero-Shot Classifier", ICCV 2023, and Clark & Jaini,
    "Text-to-Image Diffusion Models are Zero-Shot Classifiers", NeurIPS 2023, who weigh levels otherwise.
    """
    levels = falling_levels(sigmas, x)
    if levels[-1] == 0 or not len(denoisers):
        raise InputError(f"evidence needs a denoiser and levels above 0, got {len(denoisers)} and {levels[-1]:g}")
    if noise.ndim < 3 or noise.shape[1:] != (len(levels), *x.shape[1:]) or not len(noise):
        raise InputError(
            f"noise must be (R, {len(levels)}, …) with … an image's {tuple(x.shape[1:])}, got {tuple(noise.shape)}"
        )
    ends = [levels[0], *levels, levels[-1]]
    widths = [math.log(a / b) / 2 for a, b in zip(ends[:-2], ends[2:], strict=True)]
    found = torch.zeros(len(x), len(denoisers), dtype=torch.float64, device=x.device)
    for j, at in enumerate(scalars(levels, x)):
        for draw in noise[:, j]:
            noisy = x + at * draw
            for k, denoiser in enumerate(denoisers):
                wrong = (x - denoiser(noisy, at)).flatten(1).double().square().sum(1)
                found[:, k] -= widths[j] / (levels[j] ** 2 * len(noise)) * wrong
    return found


@dataclass(frozen=True, kw_only=True)
class DiffusionClassifier:
    """Bayes' rule with the likelihood of a diffusion model, as far as some levels and draws tell it.

    Attributes:
        diffusion: how each class's images are learned, all in one network.
        num_levels, sigma_min, sigma_max: levels that are asked, in equal ratios. With less noise a network's errors say
            little of the class and weigh most, with more nothing is seen of the image. A small network (50 digits a
            class, 400 steps) told 76, 71 and 73 % of 100 other digits, by three draws of noise, and 69, 63 and 68 %
            when asked from 0.25 on.
        draws: of noise, for each level.
        fewest_steps: the recipe's epochs are raised until training takes so many; few images make short epochs.

    Source: see `denoising_evidence`.
    """

    diffusion: Diffusion = field(default_factory=lambda: Diffusion(conditional=True, class_drop=0.0))
    num_levels: int = 8
    sigma_min: float = 1.0
    sigma_max: float = 10.0
    draws: int = 1
    fewest_steps: int = 400

    def __post_init__(self) -> None:
        if self.draws < 1 or self.num_levels < 2 or self.diffusion.conditional is False:
            raise InputError(
                "a diffusion classifier needs a draw, two levels and a model with classes, got "
                f"draws={self.draws}, num_levels={self.num_levels} and conditional={self.diffusion.conditional}"
            )
        _ = self.sigmas  # checks the levels

    @property
    def sigmas(self) -> Float[Tensor, " m"]:
        """The levels, falling."""
        return log_snr_uniform_sigmas(self.num_levels, self.sigma_min, self.sigma_max)

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
    ) -> DiffusionClassifierModel:
        """Learn what the images of each class look like. Arguments and errors as `Diffusion.fit`.

        Raises:
            InputError: besides, a class without an image.
        """
        counts = train.class_counts()
        if empty := [name for name in train.classes if not counts.get(name)]:
            raise InputError(f"every class needs an image, and {', '.join(empty)} has none; add some or leave it out")
        epochs = -(-self.fewest_steps // self.diffusion.optimisation(len(train)).steps_per_epoch(len(train)))
        recipe = replace(self.diffusion, conditional=True, epochs=max(self.diffusion.epochs, epochs))
        generator = recipe.fit(
            train, val=val, seed=seed, directory=directory, device=device, force=force, watch=watch, progress=progress
        )
        return DiffusionClassifierModel(generator=generator, sigmas=self.sigmas, draws=self.draws, seed=seed)


@dataclass(frozen=True, kw_only=True, eq=False)
class DiffusionClassifierModel:
    """A class-conditional diffusion model that is asked under which class it sees through noise best.

    Attributes:
        sigmas: (M,) levels, falling.
        draws, seed: of the noise, which is the same for every image.
    """

    generator: Generator
    sigmas: Float[Tensor, " m"]
    draws: int
    seed: int

    def predictions(self, split: ImageSplit, *, device: str = "cpu", progress: Progress = silent) -> Predictions:
        """`denoising_evidence` + log p(y) of every image and class, p(y) the classes' shares in training, as logits.

        They cost N K M R evaluations of the network. Far too confident as they are; fit a temperature.

        Raises:
            InputError: images the generator cannot take.
        """
        network = self.generator.network
        shown = as_pictures(split, size=network.size, channels=network.channels)
        shape = (network.channels, network.size, network.size)
        places = np.arange(self.draws)[:, None, None], np.arange(len(self.sigmas))[:, None], np.arange(math.prod(shape))
        noise = torch.from_numpy(keyed_normal(_NOISE, self.seed, *places)).float().unflatten(-1, shape).to(device)
        prior = torch.tensor(self.generator.shares, dtype=torch.float64).log()
        network.to(device).eval()
        rows = []
        for some in np.array_split(np.arange(len(shown)), -(-len(shown) // BATCH)):
            denoisers = [network.denoiser(torch.full((len(some),), k, device=device)) for k in range(len(prior))]
            with torch.inference_mode():
                x = 2 * shown.batch(some).to(device) - 1
                rows.append(denoising_evidence(denoisers, x, self.sigmas, noise).cpu() + prior)
            progress("seeing through noise", int(some[-1]) + 1, len(shown))
        network.to("cpu")
        return Predictions(
            values=torch.cat(rows).float(),
            kind="logits",
            labels=torch.from_numpy(shown.labels),
            classes=self.generator.classes,
            ids=shown.split.ids,
            split=split.name,
            method="diffusion",
            seed=self.seed,
            chosen_on="fixed",
        )

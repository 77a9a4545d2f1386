"""The latent diffusion model: a diffusion model of what a trained VAE says of images.

What enters: images and a VAE. What leaves: a `Generator` with the VAE inside.

Shape letters: N images, Z latent dimensions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headfirst.errors import InputError
from headfirst.generate.diffusion.latent_network import LatentDiffusionNetwork
from headfirst.generate.diffusion.network import DiffusionNetwork
from headfirst.generate.diffusion.recipe import WEIGHTS, Diffusion
from headfirst.generate.diffusion.training_levels import LogNormalLevels
from headfirst.generate.generator import Generator
from headfirst.generate.pictures import Pictures, as_pictures
from headfirst.generate.vae_bound import encode
from headfirst.nn import MLPShape, VAENetwork
from headfirst.nn.seeds import seeded
from headfirst.randomness import keyed_normal

_POSTERIOR, _MEASURE = 80, 82  # streams of the keyed generator


@dataclass(frozen=True, kw_only=True)
class LatentDiffusion(Diffusion):
    """A diffusion model of a VAE's latents; all but what is denoised, and in what numbers, is `Diffusion`'s.

    The VAE reads the images once. Each epoch learns from one draw of each image's q(z | x), scaled so that every
    dimension has mean 0 and deviation 1: levels of noise are told in those units.

    Attributes:
        vae: of `VAE.fit`. With classes it needs theirs on every image; without, the denoiser may have its own.
        size: of its images; None takes it from there.

    Raises:
        InputError: another generator than a VAE, another size than its own, an augmentation.
    """

    vae: Generator
    shape: MLPShape = field(default_factory=MLPShape)
    levels: LogNormalLevels = field(default_factory=lambda: LogNormalLevels(mean=-0.5, std=1.2))
    sigma_min: float = 0.005
    sigma_max: float = 40.0
    epochs: int = 150
    batch_size: int = 128

    kind = "latent-diffusion"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.vae.network, VAENetwork):
            raise InputError(f"latents are a VAE's, and this generator is a {self.vae.kind}; give a trained VAE")
        own = self.vae.network.size
        if self.size not in (None, own):
            raise InputError(f"the VAE knows images of {own} pixels a side, got {self.size}; give {own} or another VAE")
        if self.augmentation is not None:
            raise InputError("augmentation is of pixels, and latents are learned; train the VAE on more images instead")
        object.__setattr__(self, "size", own)

    def network(self, about: Pictures, *, seed: int = 0) -> LatentDiffusionNetwork:
        """Untrained, its weights drawn from the seed; the latents measured on these images."""
        rows = np.arange(len(about))
        z = self._latents(about)(rows, seed, _MEASURE).double()
        std, mean = torch.std_mean(z, dim=0, correction=0)
        if not bool((std > 0).all()):
            raise InputError("all images have one latent in a dimension, so there is nothing to learn; give others")
        with seeded(seed, WEIGHTS):
            denoising = DiffusionNetwork(
                size=1,
                channels=z.shape[1],
                num_classes=len(about.classes),
                shape=self.shape,
                sigma_data=1.0,
                sigma_min=self.sigma_min,
                sigma_max=self.sigma_max,
                sampling=self.sampling,
            )
        vae = copy.deepcopy(self.vae.network)
        return LatentDiffusionNetwork(vae=vae, denoising=denoising, mean=mean.float(), std=std.float())

    def shown(self, network: Any, pool: Pictures) -> Callable[..., tuple[Tensor, None]]:
        latents = self._latents(pool)
        mean, std = network.mean.cpu(), network.std.cpu()

        def x0(rows: np.ndarray, *key: int) -> tuple[Tensor, None]:
            return ((latents(rows, *key) - mean) / std)[:, :, None, None], None

        return x0

    def admitted(self, shown: Pictures) -> Pictures:
        """The images as the VAE reads them.

        Raises:
            InputError: colours where it knows grey alone; labels that it knows are missing.
        """
        network, classes = self.vae.network, self.vae.classes
        shown = as_pictures(shown, size=network.size, channels=network.channels)
        if classes and shown.classes != classes:
            has = ", ".join(shown.classes) or "images without labels"
            raise InputError(
                f"the VAE knows the classes {', '.join(classes)}, got {has}; give images of those, or a VAE that was "
                "trained on these (or --without-classes)"
            )
        return shown

    def _latents(self, pool: Pictures) -> Callable[..., Tensor]:
        """Draws z of the rows' q(z | x), the same for the same key."""
        q, latent = encode(self.vae, pool), self.vae.network.latent

        def draw(rows: np.ndarray, *key: int) -> Tensor:
            noise = keyed_normal(_POSTERIOR, *key, rows[:, None], np.arange(q.location.shape[1]))
            at = torch.from_numpy(rows)
            return latent.sample(q.location[at], q.spread[at], torch.from_numpy(noise).float())

        return draw

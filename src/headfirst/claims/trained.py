"""Generators of images that a claim trains, kept so that no training is done twice, and features of what they make.

Shape letters: N images, Z noise, C channels, S pixels a side, D features.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.data import ImageSplit, normalise, preprocess
from headfirst.errors import DataError
from headfirst.generate import GAN, VAE, Diffusion, Generator, load_generator
from headfirst.generate.diffusion import Sampling
from headfirst.nn import PretrainedBackbone, UNetShape

AUTOENCODER = VAE(width=16, hidden=128, epochs=10, conditional=False)
QUICK_AUTOENCODER = replace(AUTOENCODER, epochs=5)
"""Claim 15's at β = 1 are claim 12's: in one folder they are trained once."""

DENOISER = Diffusion(
    shape=UNetShape(widths=(24, 48), head_dim=24),
    epochs=10,
    conditional=False,
    sampling=Sampling(method="dpm_pp_2m", num_steps=8),
)
"""Diffusion of images, briefly trained: what claims 12 and 16 ask does not need more."""

_BATCH = 64


def trained(recipe: VAE | GAN | Diffusion, images: ImageSplit, seed: int, work: Path) -> Generator:
    """What the recipe learns from prepared images; from `work` where it was finished before, and a stopped training
    goes on.

    Raises:
        DataError: too few images.
    """
    if len(images) < recipe.fewest:
        raise DataError(
            f"this claim trains generators, which learn {recipe.fewest} images or fewer by heart; {images.name} has "
            f"{len(images)}, add some"
        )
    name = type(recipe).__name__.lower()
    key = hashlib.sha256(f"{recipe!r}|{images.fingerprint}".encode()).hexdigest()[:16]
    folder, unfinished = (work / f"{name}-{seed}-{key}{end}" for end in ("", "-training"))
    if not (folder / "generator.json").is_file():
        recipe.fit(images, seed=seed, directory=unfinished).save(folder)
        shutil.rmtree(unfinished, ignore_errors=True)
    return load_generator(folder)


def made(generator: Generator, noise: Float[Tensor, "n z"]) -> Float[Tensor, "n c s s"]:
    """Images in [0, 1] of a generator without classes."""
    with torch.inference_mode():
        parts = [generator.network(some, None) for some in noise.float().split(_BATCH)]
    return torch.cat(parts).clamp(0, 1).clone()


def seen(images: Float[Tensor, "n c s s"], backbone: PretrainedBackbone) -> Float[Tensor, "n d"]:
    """The backbone's features of images in [0, 1], grey or RGB, rounded to the 8 bits that a file has."""
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
    sized = np.stack([preprocess(image, backbone.preprocessing) for image in pixels.contiguous().numpy()])
    parts = torch.from_numpy(sized).permute(0, 3, 1, 2).split(_BATCH)
    with torch.inference_mode():
        features = torch.cat([backbone(normalise(part, backbone.preprocessing)) for part in parts])
    return features.clone()


def strip(images: Float[Tensor, "n c s s"]) -> np.ndarray:
    """Side by side, one white pixel between them: (S, N (S + 1) - 1, 3), in [0, 1]."""
    padded = torch.nn.functional.pad(images.clamp(0, 1).expand(-1, 3, -1, -1), (0, 1), value=1.0)
    return torch.cat(list(padded), dim=2)[:, :, :-1].permute(1, 2, 0).numpy()

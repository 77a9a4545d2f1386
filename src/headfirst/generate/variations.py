"""Variations of images by a diffusion model: what it makes of each, partly hidden by noise.

What enters: a `Generator` of kind diffusion, images. What leaves: as many images, each with the class it had.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from headfirst.data import ImageSplit
from headfirst.errors import InputError
from headfirst.generate.diffusion import Sampling, from_image, level_of_strength, streams
from headfirst.generate.generator import Generator
from headfirst.generate.pictures import Pictures, Translated, as_pictures, as_rgb
from headfirst.types import Progress, silent

_NOISE = 82  # stream of the keyed generator


def vary(
    generator: Generator,
    images: ImageSplit | Pictures,
    *,
    strength: float = 0.5,
    seed: int = 0,
    sampling: Sampling | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> Translated:
    """Noise each image to `level_of_strength`, and sample from there, towards its class where it has one.

    Image i of a seed is the same whichever images stand beside it, but for the rounding of the last block.

    Args:
        strength: in (0, 1], the share of the sampler's steps that is done again.
        sampling: how; None is the generator's own way.

    Raises:
        InputError: no diffusion model, a strength that cannot be, images the generator cannot take.
        DataError: no image can be read.
    """
    if generator.kind != "diffusion":
        raise InputError(
            f"variations are sampled from noised images, which a {generator.kind} cannot; train --model diffusion"
        )
    network = generator.network
    how = sampling or network.sampling
    begin = level_of_strength(strength, network.sigma_min, network.sigma_max, rho=how.rho)
    steps = max(1, math.ceil(strength * how.num_steps - 1e-9))
    sigmas = replace(how, num_steps=steps).sigmas(network.sigma_min, begin).to(device)
    shown = as_pictures(images, size=network.size, channels=network.channels)
    labels = _labels(generator, shown)
    network.to(device).eval()
    parts = []
    for block in range(0, len(shown), network.sample_batch):
        indices = np.arange(block, block + network.sample_batch)
        rows = indices.clip(max=len(shown) - 1)  # the network always runs on so many
        given = labels[rows].to(device) if generator.classes else None
        denoiser = network.denoiser(given, guidance=how.guidance, rescale=how.rescale, interval=how.interval)
        x, own = (2 * shown.batch(rows).double() - 1).to(device), streams(seed, indices.tolist(), _NOISE)
        with torch.inference_mode():
            made = from_image(denoiser, x, sigmas, sampler=how.run, generator=own)
        parts.append(as_rgb((made + 1) / 2).cpu())
        progress("varying", min(block + network.sample_batch, len(shown)), len(shown))
    network.to("cpu")
    return Translated.of(torch.cat(parts)[: len(shown)], shown, generator.fingerprint)


def _labels(generator: Generator, shown: Pictures) -> torch.Tensor:
    """Of the generator's classes, by name; where an image has none of them, their number, which is any class."""
    any_class = len(generator.classes)
    table = [generator.classes.index(c) if c in generator.classes else any_class for c in shown.split.classes]
    return torch.tensor([table[label] if label >= 0 else any_class for label in shown.labels.tolist()])

"""The loss of a diffusion model: that of a batch, and that of images at levels and with noise of their own.

What enters: a denoising network, images, levels, noise. What leaves: the loss of each image, or its mean.

Shape letters: N images, C channels, S pixels a side, A numbers of an augmentation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.generate.diffusion.training_levels import LogNormalLevels
from headfirst.generate.diffusion.weighting import Weighting
from headfirst.generate.generator import Generator
from headfirst.generate.pictures import Pictures
from headfirst.randomness import keyed_normal

_CHECK = 76  # stream of the keyed generator


def diffusion_loss(
    network: Any,
    images: Float[Tensor, "n c s s"],
    labels: Int[Tensor, " n"] | None,
    sigma: Float[Tensor, " n"],
    noise: Float[Tensor, "n c s s"],
    *,
    weighting: Weighting,
    augmentation: Float[Tensor, "n a"] | None = None,
) -> Float[Tensor, " n"]:
    """w(σ) |D(x0 + σ ε; σ) - x0|², the mean over the pixels of each image.

    Args:
        network: with `denoise` and `sigma_data`, as `DiffusionNetwork`.
        images: x0, what the network is to find.
        noise: ε, standard normal.
    """
    noisy = images + sigma[:, None, None, None] * noise
    guess = network.denoise(noisy, sigma, labels, augmentation=augmentation)
    return weighting(sigma, network.sigma_data) * (guess - images).square().flatten(1).mean(dim=1)


def mean_loss(
    generator: Generator,
    images: Pictures,
    *,
    levels: LogNormalLevels,
    weighting: Weighting,
    seed: int,
    device: torch.device,
) -> float:
    """Mean loss of the images, each at a quantile of the levels and with noise of its own: the same at every call.

    Args:
        generator: of kind diffusion or latent-diffusion; it is told the images' classes where they are its own.
    """
    network, parts = generator.network.to(device), []
    known = bool(generator.classes) and images.classes == generator.classes
    for rows in np.array_split(np.arange(len(images)), -(-len(images) // network.sample_batch)):
        labels = torch.from_numpy(images.labels[rows]).to(device) if known else None
        noise = keyed_normal(_CHECK, seed, rows[:, None], np.arange(network.noise_dim))
        sigma = levels.quantile(torch.from_numpy((rows + 0.5) / len(images)))
        with torch.inference_mode():
            x = network.x0(images.batch(rows).to(device), labels)
            losses = diffusion_loss(
                network,
                x,
                labels,
                sigma.float().to(device),
                torch.from_numpy(noise).float().to(device).view_as(x),
                weighting=weighting,
            )
        parts.append(losses.cpu())
    generator.network.cpu()
    return torch.cat(parts).double().mean().item()

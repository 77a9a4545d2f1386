"""Images made of images: started from one, turned into the noise that makes it, or led from one noise to another.

What enters: a denoiser, images or noise, levels. What leaves: images or noise. Shape letters: N images, M levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError
from headfirst.generate.diffusion.noise import Streams, normal_like
from headfirst.generate.diffusion.samplers import dpm_pp_2m
from headfirst.generate.diffusion.samplers.adaptive import AdaptiveSample, probability_flow
from headfirst.generate.latent_space import spherical_path
from headfirst.types import Denoiser


def from_image(
    denoiser: Denoiser,
    images: Float[Tensor, "n ..."],
    sigmas: Float[Tensor, " m"],
    *,
    sampler: Callable[..., Tensor] = dpm_pp_2m,
    generator: Streams = None,
) -> Float[Tensor, "n ..."]:
    """What a sampler makes of x₀ + σ ε, σ the first of the levels: the more noise, the less is kept of an image.

    Of normal data, N(μ, s²), an exact flow keeps its distribution, and correlates by s / √(s² + σ²) with the image.

    Args:
        images: x₀, on the denoiser's scale.
        sigmas: falling, from the level that the images are noised to; `level_of_strength` gives one.
        sampler: any of this package's, with its signature.
        generator: of ε and of what the sampler draws: one, or one for each image.

    Source: Meng et al., "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations", ICLR 2022,
    algorithm 1, with any sampler for their reverse SDE.
    """
    x = images + sigmas[0].to(images) * normal_like(images, generator)
    return sampler(denoiser, x, sigmas, generator=generator)


def level_of_strength(strength: float, sigma_min: float, sigma_max: float, *, rho: float = 7.0) -> float:
    """σ = (σ_min^(1/ρ) + strength (σ_max^(1/ρ) - σ_min^(1/ρ)))^ρ: a share of the way from an image to noise.

    The way is that of `karras_sigmas`, so a strength is a share of a sampler's steps.

    Raises:
        InputError: a strength outside (0, 1].

    >>> level_of_strength(0.5, 0.01, 1.0, rho=2.0)
    0.3025
    """
    if not 0 < strength <= 1:
        raise InputError(f"strength must lie in (0, 1], got {strength}; 1 keeps nothing of an image, 0.5 its outline")
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return (low + strength * (high - low)) ** rho


def invert(
    denoiser: Denoiser,
    images: Float[Tensor, "n ..."],
    sigma_min: float,
    sigma_max: float,
    *,
    rtol: float = 1e-4,
    sigma_data: float = 0.5,
) -> AdaptiveSample:
    """The noise that makes an image: the probability flow from σ_min up to σ_max, which `adaptive` runs back.

    An image without noise is taken for one at σ_min, so that σ_min should be below what can be seen. Of a guided
    denoiser the way back is exact too, but its noise is not normal.

    Args:
        images: (N, …) at level `sigma_min`.
        rtol, sigma_data: as in `adaptive`. Where paths part on the way down, the way there and back errs by more.

    Raises:
        InputError, DivergenceError: as `adaptive`.

    Source: Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021, 4.3.
    """
    if not 0 < sigma_min < sigma_max < math.inf:
        raise InputError(f"levels must satisfy 0 < sigma_min < sigma_max < inf, got {sigma_min} and {sigma_max}")
    with torch.no_grad():
        return probability_flow(denoiser, images, sigma_min, sigma_max, rtol=rtol, sigma_data=sigma_data)


def interpolate(
    denoiser: Denoiser,
    a: Float[Tensor, ...],
    b: Float[Tensor, ...],
    steps: int,
    sigmas: Float[Tensor, " m"],
    *,
    sampler: Callable[..., Tensor] = dpm_pp_2m,
    path: Callable[[Tensor, Tensor, int], Tensor] = spherical_path,
) -> Float[Tensor, "n ..."]:
    """Images of the noises on the way from a to b, both of one image at level sigmas[0]; N = steps.

    Args:
        path: `spherical_path` keeps the length that noise has, `linear_path` does not: half way, two independent noises
            are shorter by √½, and their images duller.
        sampler: one that draws nothing on the way, or the way is not smooth.

    Raises:
        InputError: as `path`.
    """
    return sampler(denoiser, path(a.flatten(), b.flatten(), steps).view(steps, *a.shape), sigmas)

"""Sampling a consistency model: each evaluation is an image, each step adds noise to it again.

What enters: a denoiser that jumps to the end of its path, as distillation makes it. What leaves: images.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from headfirst.generate.diffusion.noise import Streams, normal_like
from headfirst.generate.diffusion.samplers.stepping import falling_levels, scalars
from headfirst.types import Denoiser


def consistency(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator: Streams = None) -> Tensor:
    """x ← f(x; s) + t z, f the consistency function. M levels, M - 1 evaluations; two levels and a 0 are one step.

    With a student that was given the guidance scale this is the sampler of latent consistency models too.

    Args:
        denoiser: f(x; σ), the image at the end of the path through x.
        generator: one, or one for each image; None draws from torch's own.

    The rest and errors as `euler`.

    Source: Song et al., "Consistency Models", ICML 2023, algorithm 1, with ε = 0 inside the root; Luo et al., "Latent
    Consistency Models", 2023, algorithm 3.
    """
    levels = falling_levels(sigmas, x)
    at = scalars(levels, x)
    for i, (_, t) in enumerate(pairwise(levels)):
        x = denoiser(x, at[i])
        if t > 0:
            x = torch.add(x, normal_like(x, generator), alpha=t)
    return x

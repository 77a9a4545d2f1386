"""Unpaired style shift: images as a VAE sees them, moved to the statistics that other images have in its latents.

What enters: a `Generator` of kind vae, images, images of another style. What leaves: a copy of the first in the style
of the second, as far as means and deviations of latents are style.

Shape letters: N images of the content, M of the style, Z latent dimensions.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.data import ImageSplit
from headfirst.errors import InputError
from headfirst.generate.generator import Generator
from headfirst.generate.pictures import Pictures, Translated, as_pictures, as_rgb
from headfirst.generate.vae_bound import decode, encode


def match_statistics(
    content: Float[Tensor, "n z"], style: Float[Tensor, "m _"], *, strength: float = 1.0
) -> Float[Tensor, "n z"]:
    """(1 - α) c + α (σ_s (c - μ_c) / σ_c + μ_s), mean μ and deviation σ of each dimension over the rows.

    Args:
        content, style: (N, Z) and (M, Z).
        strength: α in [0, 1]; 0 gives `content`, bit for bit, 1 rows with the mean and deviation of `style`.

    Raises:
        InputError: a strength that cannot be, fewer than two rows, other dimensions, or a content that does not vary.

    Source: Huang & Belongie, "Arbitrary Style Transfer in Real-Time with Adaptive Instance Normalization", ICCV 2017,
    equations 8 and 14; Zhou et al., "Domain Generalization with MixStyle", ICLR 2021, equation 5, mix statistics alike.
    Deviations: both are over the places of one image's feature maps, these over the images of a set, so that a set
    becomes like a set and an image keeps its place in it.

    >>> match_statistics(torch.tensor([[0.0], [2.0]]), torch.tensor([[10.0], [30.0]])).flatten()
    tensor([10., 30.])
    """
    if not 0 <= strength <= 1:
        raise InputError(f"strength must lie in [0, 1], got {strength}; 1 takes over all of the style's statistics")
    if content.ndim != 2 or style.ndim != 2 or content.shape[1] != style.shape[1]:
        raise InputError(f"latents must be (N, Z) and (M, Z), got {tuple(content.shape)} and {tuple(style.shape)}")
    if len(content) < 2 or len(style) < 2:
        raise InputError(
            f"a mean and a deviation need at least two images of the content and of the style, got {len(content)} and "
            f"{len(style)}"
        )
    c, s = content.double(), style.double()
    spread = c.std(dim=0)
    if not bool((spread > 0).all()):
        raise InputError(f"all {len(content)} images of the content have the same latents, so nothing can be matched")
    matched = s.std(dim=0) * (c - c.mean(dim=0)) / spread + s.mean(dim=0)
    return (c + strength * (matched - c)).to(content.dtype)


def restyle(
    generator: Generator,
    content: ImageSplit | Pictures,
    style: ImageSplit | Pictures,
    *,
    strength: float = 1.0,
    labels: Tensor | None = None,
) -> Translated:
    """The decoder's mean image of each image's latent mean after `match_statistics`; nothing is drawn.

    A VAE blurs what it reconstructs. What is the style's doing is the difference to `strength=0`, which is the
    reconstruction alone, bit for bit.

    Args:
        generator: a VAE, best one that has seen images of both kinds.
        content: what is shown, at least two images; a class-conditional generator keeps their classes.
        style: how, at least two images; with labels for a class-conditional generator.
        strength: α in [0, 1].
        labels: (N,) what a class-conditional generator takes the content for; their own if None.

    Raises:
        InputError: as `match_statistics` and `encode`.
        DataError: no image can be read.
    """
    network = generator.network
    if generator.kind == "vae":
        content = as_pictures(content, size=network.size, channels=network.channels)
    latents = encode(generator, content, labels=labels).location
    moved = match_statistics(latents, encode(generator, style).location, strength=strength)
    assert isinstance(content, Pictures)
    given = torch.from_numpy(content.labels) if labels is None and generator.classes else labels
    return Translated.of(as_rgb(decode(generator, moved, given)), content, generator.fingerprint)

"""The two networks of a paired translation: images to images, and a judge of patches.

What enters: images in [0, 1]. What leaves a `UNet`: as many images in [0, 1]. What leaves a `PatchDiscriminator`: a
logit a patch, high for real pairs. No layer mixes the rows of a batch.

Shape letters: N images, A channels of the source, C of the target, S pixels a side, P = S / 4 patches a side.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.errors import InputError
from headfirst.nn.gan_network import SLOPE, ResidualBlock, halvings, he_normal


class UNet(nn.Module):
    """Down to the smallest stage and up again, each stage on the way up beside its like from the way down.

    The first and last convolutions work at half the side, where 2×2 pixels are channels. Nothing is drawn: one source
    has one translation.

    Args:
        size: S, a multiple of 4 in 8 … 64.
        source_channels, channels: A and C, 1 or 3.
        width: channels at half the side.

    Attributes:
        config: what builds it again.

    Raises:
        InputError: a size, width or number that cannot be.

    Source: Ronneberger, Fischer & Brox, "U-Net", MICCAI 2015; for translation Isola et al., "Image-to-Image Translation
    with Conditional Adversarial Networks", CVPR 2017, section 3.2.1. Deviations: our GAN's residual blocks, without
    normalisation; no dropout, which was their noise and changed little.
    """

    def __init__(self, *, size: int, source_channels: int = 1, channels: int = 1, width: int = 16) -> None:
        super().__init__()
        _grey_or_colour(source_channels)
        self.config: dict[str, Any] = {
            "size": size,
            "source_channels": source_channels,
            "channels": channels,
            "width": width,
        }
        widths = [w for _, w in halvings(size, channels, width)]
        depth = 2 * len(widths) - 1
        steps = list(itertools.pairwise(widths))
        self.begin = nn.Conv2d(4 * source_channels, width, 3, padding=1)
        self.down = nn.ModuleList(ResidualBlock(w, depth=depth) for w in widths)
        self.widen = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) for a, b in steps)
        self.join = nn.ModuleList(nn.Conv2d(a + b, a, 1, bias=False) for a, b in steps)
        self.up = nn.ModuleList(ResidualBlock(a, depth=depth) for a, _ in steps)
        self.end = nn.Conv2d(width, 4 * channels, 3, padding=1)
        for layer in (self.begin, *self.widen, *self.join, self.end):
            he_normal(layer, gain=1.0)

    def forward(self, noise: None, source: Float[Tensor, "n a s s"]) -> Float[Tensor, "n c s s"]:
        """Translations, in [0, 1]; `noise` has its place in the game of a generator, and is none here."""
        x = self.begin(F.pixel_unshuffle(2 * source - 1, 2))
        passed = []
        for i, block in enumerate(self.down):
            if i:
                passed.append(x)
                x = self.widen[i - 1](F.avg_pool2d(x, 2))
            x = block(x)
        for i in reversed(range(len(passed))):
            x = torch.cat([passed[i], F.interpolate(x, scale_factor=2, mode="nearest")], dim=1)
            x = self.up[i](self.join[i](x))
        return F.pixel_shuffle(self.end(F.leaky_relu(x, SLOPE)), 2).sigmoid()


class PatchDiscriminator(nn.Module):
    """A pair of images to a logit for each patch of 18 × 18 pixels, 4 pixels apart.

    Args:
        source_channels, channels, width: as for `UNet`, at half the side.

    Raises:
        InputError: channels or a width that cannot be.

    Source: Isola et al., CVPR 2017, section 3.2.2: both images enter, and each patch is judged alone. Deviations: three
    layers for images of few pixels (there five, and patches of 70); no normalisation.
    """

    def __init__(self, *, source_channels: int = 1, channels: int = 1, width: int = 16) -> None:
        super().__init__()
        _grey_or_colour(source_channels)
        _grey_or_colour(channels)
        if width < 1:
            raise InputError(f"width must be at least 1, got {width}")
        self.layers = nn.Sequential(
            nn.Conv2d(source_channels + channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )
        for layer, gain in ((0, 1.0), (2, nn.init.calculate_gain("leaky_relu", SLOPE)), (4, 1.0)):
            he_normal(self.layers[layer], gain=gain)

    def forward(self, images: Float[Tensor, "n c s s"], source: Float[Tensor, "n a s s"]) -> Float[Tensor, "n p p"]:
        """The logits of pairs."""
        return self.layers(2 * torch.cat([images, source], dim=1) - 1).squeeze(1)


def _grey_or_colour(channels: int) -> None:
    if channels not in (1, 3):
        raise InputError(f"images have 1 channel (grey) or 3 (colour), got {channels}")

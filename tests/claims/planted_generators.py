"""Images that are a known function of 16 numbers, and generators whose weights are that function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from headfirst.data import ImageSet, ImageSplit
from headfirst.generate import GaussianDecoder, GaussianLatent, Generator

Z, SIDE = 16, 8
MAP = torch.randn(Z, SIDE**2, generator=torch.Generator().manual_seed(0)) / 4


def image_of(z: Tensor) -> Tensor:
    """(N, 1, 8, 8) in [0, 1]."""
    return (z @ MAP).sigmoid().unflatten(1, (1, SIDE, SIDE))


def noise_of(image: Tensor) -> Tensor:
    """(N, 16), the other way."""
    return torch.linalg.lstsq(
        MAP.T.double(), image.flatten(1).double().clamp(0.002, 0.998).logit().T
    ).solution.T.float()


class Planted(nn.Module):
    """A network as a generator has it: any function from noise to images, and of a VAE an encoder."""

    def __init__(self, decode: Callable[[Tensor], Tensor] = image_of,
                 encode: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None) -> None:  # fmt: skip
        super().__init__()
        self.config: dict[str, object] = {}
        self.noise_dim, self.size, self.channels = Z, SIDE, 1
        self.decoder, self.latent = GaussianDecoder(variance=0.01), GaussianLatent()
        self.weight = nn.Parameter(torch.zeros(1))
        self._decode, self._encode = decode, encode

    def forward(self, noise: Tensor, labels: None = None) -> Tensor:
        return self._decode(noise)

    def decode(self, latents: Tensor, labels: None) -> Tensor:
        return self._decode(latents)

    def encode(self, images: Tensor, labels: None) -> tuple[Tensor, Tensor]:
        assert self._encode is not None
        return self._encode(images)


def generator(network: Planted) -> Generator:
    return Generator(kind="vae", network=network.eval(), classes=(), shares=(), trained_on="planted", recipe="planted")


def images(**counts: int) -> ImageSet:
    """Train and test of the known function."""
    splits = {}
    for seed, (name, count) in enumerate(counts.items()):
        z = torch.randn(count, Z, generator=torch.Generator().manual_seed(100 + seed))
        pixels = (image_of(z) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
        splits[name] = ImageSplit(
            name=name,
            ids=tuple(f"{name}/{i}" for i in range(count)),
            sources=tuple(pixels.contiguous().numpy()),
            labels=np.zeros(count, dtype=np.int64),
            classes=("all",),
        )
    return ImageSet(name="planted", splits=splits, classes=("all",))


def raw(of: Tensor, _: object) -> Tensor:
    """In place of a backbone's features: every second pixel of every second row."""
    return of[:, 0, ::2, ::2].flatten(1)

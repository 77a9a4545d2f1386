"""A small convolutional encoder and decoder, with classes or without.

What enters: images in [0, 1] and their classes. What leaves: location and spread of each latent; from latents, what the
decoder's distribution needs of each pixel. No layer looks at more than one image.

Shape letters: N images, C channels, S pixels a side, Z latent dimensions, O outputs a pixel, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.errors import InputError
from headfirst.nn.decoders import BernoulliDecoder, Decoder, DiscretisedLogisticDecoder, GaussianDecoder
from headfirst.nn.latents import GaussianLatent, Latent, LogisticLatent

DECODERS: dict[str, Any] = {d.name: d for d in (BernoulliDecoder, GaussianDecoder, DiscretisedLogisticDecoder)}
LATENTS: dict[str, Any] = {latent.name: latent for latent in (GaussianLatent, LogisticLatent)}


class VAENetwork(nn.Module):
    """Two halvings down to S/4, one hidden layer, Z latents; the same way back by sub-pixel convolutions.

    Args:
        size: S, a multiple of 4 from 8 to 64.
        channels: C, 1 or 3.
        latent_dim: Z.
        width: channels at S/4; half as many at S/2.
        hidden: units of the layer between the pictures and the latents.
        num_classes: K; 0 without classes.

    Attributes:
        prior_mean, prior_factor: m_y (K, Z) and A_y (K, Z, Z), lower triangular, of each class's prior, at first 0 and
            the identity; `headfirst.generate.class_priors` fits them. Training's loss knows N(0, I) alone.

    Raises:
        InputError: numbers that cannot be.

    Source: Kingma & Welling, ICLR 2014; classes as in Sohn, Lee & Yan, "Learning Structured Output Representation using
    Deep Conditional Generative Models", NeurIPS 2015: one-hot beside what the hidden layers read, the prior without
    them.
    """

    prior_mean: Tensor
    prior_factor: Tensor

    def __init__(
        self,
        *,
        size: int,
        channels: int,
        latent_dim: int,
        width: int,
        hidden: int,
        num_classes: int,
        decoder: Decoder,
        latent: Latent,
    ) -> None:
        super().__init__()
        if size % 4 or not 8 <= size <= 64 or channels not in (1, 3):
            raise InputError(
                f"images must have 1 or 3 channels and a side that is a multiple of 4 from 8 to 64, got {channels} "
                f"and {size}; give another size"
            )
        if latent_dim < 1 or width < 4 or width % 4 or hidden < 1 or num_classes < 0:
            raise InputError(
                f"latent_dim and hidden must be at least 1, width a multiple of 4 and num_classes at least 0, got "
                f"{latent_dim}, {hidden}, {width} and {num_classes}"
            )
        self.noise_dim, self.num_classes, self.decoder, self.latent = latent_dim, num_classes, decoder, latent
        self.size, self.channels = size, channels
        self.register_buffer("prior_mean", torch.zeros(num_classes, latent_dim))
        self.register_buffer("prior_factor", torch.eye(latent_dim).repeat(num_classes, 1, 1))
        self.config: dict[str, Any] = {
            "size": size,
            "channels": channels,
            "latent_dim": latent_dim,
            "width": width,
            "hidden": hidden,
            "num_classes": num_classes,
            "decoder": _as_json(decoder),
            "latent": _as_json(latent),
        }
        side, half = size // 4, width // 2
        self.inner = (side, side, width)
        self.down = nn.Sequential(
            nn.Conv2d(channels, half, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(half, width, 4, stride=2, padding=1),
            nn.SiLU(),
        )
        self.to_hidden = nn.Linear(width * side * side + num_classes, hidden)
        self.to_latent = nn.Linear(hidden, 2 * latent_dim)
        self.from_latent = nn.Linear(latent_dim + num_classes, hidden)
        self.from_hidden = nn.Linear(hidden, width * side * side)
        self.up = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(width, 4 * half, 3, padding=1),
            nn.PixelShuffle(2),
            nn.SiLU(),
            nn.Conv2d(half, 4 * decoder.num_outputs(channels), 3, padding=1),
            nn.PixelShuffle(2),
        )

    @classmethod
    def from_config(cls, *, decoder: Mapping[str, Any], latent: Mapping[str, Any], **numbers: int) -> VAENetwork:
        """The network whose `config` this is, untrained.

        Raises:
            KeyError: no such decoder or latent.
        """
        return cls(decoder=_of_json(decoder, DECODERS), latent=_of_json(latent, LATENTS), **numbers)

    def encode(
        self, images: Float[Tensor, "n c s s"], labels: Int[Tensor, " n"] | None
    ) -> tuple[Float[Tensor, "n z"], Float[Tensor, "n z"]]:
        """Location and spread of q(z | x), as `latent` reads them; labels None for a network without classes."""
        pixels = (2 * images - 1).contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
        inner = self.down(pixels).permute(0, 2, 3, 1).flatten(1)
        hidden = F.silu(self.to_hidden(self._with_classes(inner, labels)))
        location, spread = self.to_latent(hidden).chunk(2, dim=1)
        return location, spread

    def decode(self, latents: Float[Tensor, "n z"], labels: Int[Tensor, " n"] | None) -> Float[Tensor, "n o s s"]:
        """What `decoder` reads."""
        hidden = F.silu(self.from_latent(self._with_classes(latents, labels)))
        return self.up(self.from_hidden(hidden).unflatten(1, self.inner).permute(0, 3, 1, 2))

    def forward(self, noise: Float[Tensor, "n z"], labels: Int[Tensor, " n"] | None) -> Float[Tensor, "n c s s"]:
        """Mean images, in [0, 1], of latents that the prior draws at standard normal noise."""
        zero = torch.zeros_like(noise)
        latents = self.latent.sample(zero, zero, noise)
        if labels is not None and self.num_classes:
            latents = self.prior_mean[labels] + torch.einsum("nij,nj->ni", self.prior_factor[labels], latents)
        return self.decoder.mean(self.decode(latents, labels))

    def log_prior(self, latents: Float[Tensor, "n z"], labels: Int[Tensor, " n"] | None) -> Float[Tensor, " n"]:
        """log p(z), or log p(z | y) of a network with classes: that of z = m_y + A_y u, u from the latent's prior."""
        zero = torch.zeros_like(latents)
        if labels is None:
            return self.latent.log_density(latents, zero, zero)
        offsets = (latents - self.prior_mean[labels])[..., None]
        u = torch.linalg.solve_triangular(self.prior_factor[labels], offsets, upper=False)[..., 0]
        log_volume = self.prior_factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        return self.latent.log_density(u, zero, zero) - log_volume[labels]

    def _with_classes(self, rows: Tensor, labels: Tensor | None) -> Tensor:
        if (labels is None) != (self.num_classes == 0):
            has = f"{self.num_classes} classes" if self.num_classes else "no classes"
            raise InputError(f"the network has {has}, and labels are {'missing' if labels is None else 'given'}")
        if labels is None:
            return rows
        return torch.cat([rows, F.one_hot(labels, self.num_classes).to(rows)], dim=1)


def _as_json(part: Any) -> dict[str, Any]:
    return {"name": part.name, **asdict(part)}


def _of_json(about: Mapping[str, Any], known: Mapping[str, Any]) -> Any:
    return known[about["name"]](**{k: v for k, v in about.items() if k != "name"})

"""The network of a latent diffusion model: a denoiser of a VAE's latents, and the VAE that encodes and decodes them.

What enters: noise of the latents. What leaves: latents that the denoiser makes of it, decoded to images.

Shape letters: N images, C channels, S pixels a side, Z latent dimensions. A latent is held as (Z, 1, 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headfirst.generate.diffusion.network import DiffusionNetwork
from headfirst.generate.diffusion.sampling import Sampling
from headfirst.generate.generator import NETWORKS
from headfirst.nn import VAENetwork
from headfirst.types import Denoiser


class LatentDiffusionNetwork(nn.Module):
    """x = (z - mean) / std is what is denoised, z a latent of the VAE, whose weights do not learn.

    Args:
        vae: a `VAENetwork`.
        denoising: of images of one pixel with Z channels.
        mean, std: (Z,) of the latents; None stands for 0 and 1.

    Attributes:
        config: what builds it again.
        noise_dim, x_shape: Z and (Z, 1, 1).
        size, channels: S and C of the images.

    Source: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022; here each
    dimension is scaled by its own deviation.
    """

    sample_batch = 64
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        vae: VAENetwork,
        denoising: DiffusionNetwork,
        mean: Float[Tensor, " z"] | None = None,
        std: Float[Tensor, " z"] | None = None,
    ) -> None:
        super().__init__()
        self.vae, self.denoising = vae.requires_grad_(False), denoising
        self.size, self.channels, self.num_classes = vae.size, vae.channels, denoising.num_classes
        self.noise_dim, self.x_shape, self.sampling = denoising.noise_dim, denoising.x_shape, denoising.sampling
        self.sigma_data, self.sigma_min, self.sigma_max = (
            denoising.sigma_data, denoising.sigma_min, denoising.sigma_max,
        )  # fmt: skip
        self.register_buffer("mean", torch.zeros(self.noise_dim) if mean is None else mean)
        self.register_buffer("std", torch.ones(self.noise_dim) if std is None else std)
        self.config: dict[str, Any] = {"vae": dict(vae.config), "denoising": denoising.config}

    @classmethod
    def from_config(cls, *, vae: Mapping[str, Any], denoising: Mapping[str, Any]) -> LatentDiffusionNetwork:
        """The network whose `config` this is, untrained."""
        return cls(vae=VAENetwork.from_config(**vae), denoising=DiffusionNetwork.from_config(**denoising))

    def standardised(self, z: Float[Tensor, "n z"]) -> Float[Tensor, "n z 1 1"]:
        """x of latents."""
        return ((z - self.mean) / self.std)[:, :, None, None]

    def x0(self, images: Float[Tensor, "n c s s"], labels: Int[Tensor, " n"] | None) -> Float[Tensor, "n z 1 1"]:
        """What the denoiser is to find of images in [0, 1]: the mean of q(z | x)."""
        return self.standardised(self.vae.encode(images, self._told(labels))[0])

    def denoise(
        self,
        x: Float[Tensor, "n z 1 1"],
        sigma: Float[Tensor, " n"],
        labels: Int[Tensor, " n"] | None,
        extra: Float[Tensor, " n"] | None = None,
        augmentation: None = None,
    ) -> Float[Tensor, "n z 1 1"]:
        """As `DiffusionNetwork.denoise`."""
        return self.denoising.denoise(x, sigma, labels, extra, augmentation)

    def denoiser(self, labels: Int[Tensor, " n"] | None = None, **guidance: Any) -> Denoiser:
        """As `DiffusionNetwork.denoiser`."""
        return self.denoising.denoiser(labels, **guidance)

    def draw(
        self,
        noise: Float[Tensor, "n z"],
        labels: Int[Tensor, " n"] | None,
        sampling: Sampling | None = None,
        *,
        seed: int = 0,
        indices: Sequence[int] | None = None,
    ) -> Float[Tensor, "n c s s"]:
        """Images in [0, 1] of standard normal noise; arguments as in `DiffusionNetwork.draw`."""
        x = self.denoising.path_end(noise, labels, sampling, seed=seed, indices=indices)
        z = self.mean + self.std * x.flatten(1).to(self.mean)
        return self.vae.decoder.mean(self.vae.decode(z, self._told(labels)))

    def forward(self, noise: Float[Tensor, "n z"], labels: Int[Tensor, " n"] | None) -> Float[Tensor, "n c s s"]:
        """Images in [0, 1] of standard normal noise, drawn as `sampling` says."""
        return self.draw(noise, labels)

    def _told(self, labels: Tensor | None) -> Tensor | None:
        """What the VAE is told: it may know no classes where the denoiser does."""
        return labels if self.vae.num_classes else None


NETWORKS["latent-diffusion"] = LatentDiffusionNetwork.from_config

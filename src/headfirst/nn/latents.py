"""What the numbers that an encoder gives for each latent dimension mean: a distribution, and the prior it is held to.

What enters: location and spread, (N, D), and standard normal noise. What leaves: latents, and nats.

Shape letters: N images, D latent dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.special import ndtr

from headfirst.nn.likelihoods import gaussian_log_likelihood
from headfirst.nn.logistic_latent import logistic_kl, logistic_log_density, logistic_sample
from headfirst.nn.variational import gaussian_kl_per_dimension, reparameterised


@runtime_checkable
class Latent(Protocol):
    """A family of distributions over latents; location and spread 0 are its prior."""

    name: ClassVar[str]

    def sample(self, location: Tensor, spread: Tensor, noise: Tensor) -> Float[Tensor, "n d"]:
        """z, through which gradients flow to location and spread."""
        ...

    def kl(self, location: Tensor, spread: Tensor, noise: Tensor) -> Float[Tensor, "n d"]:
        """KL to the prior of each dimension in nats: exact, or from the draw that `noise` gives."""
        ...

    def log_density(self, sample: Tensor, location: Tensor, spread: Tensor) -> Float[Tensor, " n"]:
        """log q(z | x)."""
        ...

    def variance(self, spread: Tensor) -> Tensor:
        """Of q(z | x) in each dimension."""
        ...

    def prior_cdf(self, sample: Tensor) -> Tensor:
        """Share of the prior below each number of `sample`, float64."""
        ...


@dataclass(frozen=True, kw_only=True)
class GaussianLatent:
    """N(μ, σ²), prior N(0, 1); the spread is log σ²."""

    name: ClassVar[str] = "gaussian"

    def sample(self, location: Tensor, spread: Tensor, noise: Tensor) -> Float[Tensor, "n d"]:
        """See `Latent`."""
        return reparameterised(location, spread, noise)

    def kl(self, location: Tensor, spread: Tensor, noise: Tensor) -> Float[Tensor, "n d"]:
        """See `Latent`; exact."""
        return gaussian_kl_per_dimension(location, spread)

    def log_density(self, sample: Tensor, location: Tensor, spread: Tensor) -> Float[Tensor, " n"]:
        """See `Latent`."""
        return gaussian_log_likelihood(location, spread, sample)

    def variance(self, spread: Tensor) -> Tensor:
        """See `Latent`."""
        return spread.exp()

    def prior_cdf(self, sample: Tensor) -> Tensor:
        """See `Latent`."""
        return ndtr(sample.double())


@dataclass(frozen=True, kw_only=True)
class LogisticLatent:
    """Logistic of location μ and scale s, prior μ = 0, s = 1; the spread is log s.

    Sampled by its inverse distribution function, at the uniform number Φ(noise).
    """

    name: ClassVar[str] = "logistic"

    def sample(self, location: Tensor, spread: Tensor, noise: Tensor) -> Float[Tensor, "n d"]:
        """See `Latent`."""
        return logistic_sample(location, spread, ndtr(noise))

    def kl(self, location: Tensor, spread: Tensor, noise: Tensor) -> Float[Tensor, "n d"]:
        """See `Latent`; of one draw, unbiased."""
        each = logistic_kl(*(x.reshape(-1, 1) for x in (location, spread, ndtr(noise))))
        return each.reshape(location.shape)

    def log_density(self, sample: Tensor, location: Tensor, spread: Tensor) -> Float[Tensor, " n"]:
        """See `Latent`."""
        return logistic_log_density(sample, location, spread)

    def variance(self, spread: Tensor) -> Tensor:
        """See `Latent`: π² s² / 3."""
        return (2 * spread).exp() * math.pi**2 / 3

    def prior_cdf(self, sample: Tensor) -> Tensor:
        """See `Latent`."""
        return torch.sigmoid(sample.double())

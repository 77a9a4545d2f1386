"""A mixture of Gaussians, whose best denoiser is known: what samplers are held against.

Shape letters: N points, D coordinates, K components.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from headfirst.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianMixture:
    """p(x₀) = Σ_k w_k N(μ_k, s_k² I), a `Denoiser` itself.

    Attributes:
        means: (K, D).
        stds: (K,) s_k, positive, or (K, D), one for each coordinate.
        weights: (K,) w_k, positive; their sum is made 1.
    """

    means: Float[Tensor, "k d"]
    stds: Tensor
    weights: Float[Tensor, " k"] | None = None

    def __post_init__(self) -> None:
        k = len(self.means)
        if self.means.ndim != 2 or len(self.stds) != k or (self.weights is not None and len(self.weights) != k):
            raise InputError(f"means must be (K, D), with K stds and weights, got {tuple(self.means.shape)} means")
        if not bool((self.stds > 0).all()) or (self.weights is not None and not bool((self.weights > 0).all())):
            raise InputError("stds and weights must be positive")

    @property
    def num_dims(self) -> int:
        """D."""
        return self.means.shape[1]

    def _parts(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """log w_k N(x; μ_k, s_k² + σ²), (N, K), and s_k² + σ², (K, D)."""
        means, weights = self.means.to(x), torch.ones(len(self.means)) if self.weights is None else self.weights
        variance = self._variance(x) + sigma**2
        squares = ((x[:, None] - means) ** 2 / variance).sum(-1)
        log_weights = (weights / weights.sum()).to(x).log()
        return log_weights - 0.5 * (squares + (2 * math.pi * variance).log().sum(-1)), variance

    def _variance(self, x: Tensor) -> Tensor:
        stds = self.stds if self.stds.ndim == 2 else self.stds[:, None]
        return (stds.to(x) ** 2).expand(self.means.shape)

    def __call__(self, x: Float[Tensor, "n d"], sigma: Tensor | float) -> Float[Tensor, "n d"]:
        """E[x₀ | x] = Σ_k r_k (μ_k + s_k² / (s_k² + σ²) (x - μ_k)), r_k the share of component k in p(x; σ)."""
        logs, variance = self._parts(x, sigma)
        means = self.means.to(x)
        guesses = means + self._variance(x) / variance * (x[:, None] - means)
        return (logs.softmax(-1)[..., None] * guesses).sum(1)

    def log_density(self, x: Float[Tensor, "n d"], sigma: Tensor | float = 0.0) -> Float[Tensor, " n"]:
        """log p(x; σ), nats, of points with noise of standard deviation σ added."""
        return self._parts(x, sigma)[0].logsumexp(-1)

    def sample(self, num: int, *, generator: Generator | None = None) -> Float[Tensor, "n d"]:
        """`num` points."""
        weights = torch.ones(len(self.means)) if self.weights is None else self.weights
        k = torch.multinomial(weights.double(), num, replacement=True, generator=generator)
        noise = torch.randn(num, self.num_dims, generator=generator, dtype=self.means.dtype)
        return self.means[k] + self._variance(self.means).sqrt()[k] * noise

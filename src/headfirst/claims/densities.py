"""Known densities on a line and their divergences by quadrature, which claim 13 asks about.

A generator moves and stretches a base density, G(z) = μ + s z with θ = (μ, log s), so that its own density is known
too; at θ = 0 it is the base. Float64 throughout, but for `Mixture.sample`, which feeds networks.

Shape letters: N points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

REACH = 15.0
"""The densities have no mass to speak of beyond ± this."""

GRID = torch.linspace(-REACH, REACH, 6001, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Σ w N(m, sd²)."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]

    def log_density(self, x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The logarithm of the density at x."""
        w, z, sd = self._parts(x)
        return torch.logsumexp(w.log() - sd.log() - z.square() / 2 - math.log(2 * math.pi) / 2, dim=1)

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Independent draws, float32."""
        which = torch.multinomial(
            torch.tensor(self.weights), math.prod(shape), replacement=True, generator=generator
        ).reshape(shape)
        noise = torch.randn(shape, generator=generator)
        return torch.tensor(self.means)[which] + torch.tensor(self.sds)[which] * noise

    def nodes(self, count: int) -> Float[Tensor, " n"]:
        """The quantiles at (i + ½) / N, by bisection: a mean over them is an expectation."""
        u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        low, high = torch.full_like(u, -REACH), torch.full_like(u, REACH)
        for _ in range(60):
            middle = (low + high) / 2
            w, z, _sd = self._parts(middle)
            below = (w * torch.special.ndtr(z)).sum(dim=1) < u
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        w, m, sd = (torch.tensor(values, dtype=torch.float64) for values in (self.weights, self.means, self.sds))
        return w, (x[:, None] - m) / sd, sd


GAUSSIAN = Mixture(weights=(1.0,), means=(0.0,), sds=(1.0,))
TWO_MODES = Mixture(weights=(0.6, 0.4), means=(-1.5, 1.5), sds=(0.6, 0.6))
BASES: Mapping[str, Mixture] = {"one mode": GAUSSIAN, "two modes": TWO_MODES}


def generated(theta: Tensor, z: Tensor) -> Tensor:
    """G(z) = μ + s z, of θ (2,) or (2, S, 1) and z (N,) or (S, N)."""
    return theta[0] + theta[1].exp() * z


def log_density_of(base: Mixture, theta: Float[Tensor, " 2"], x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """log q_θ(x), the density of G(z) with z from the base."""
    return base.log_density((x - theta[0]) * (-theta[1]).exp()) - theta[1]


def integral(values: Tensor) -> Float[Tensor, ""]:
    """∫ by the trapezium rule over `GRID`, at whose ends nothing is left."""
    return values.sum() * (GRID[1] - GRID[0])


def kl(log_p: Tensor, log_q: Tensor) -> Float[Tensor, ""]:
    """KL(p ‖ q) in nats, of log-densities on `GRID`."""
    return integral(log_p.exp() * (log_p - log_q))


def jsd(log_p: Tensor, log_q: Tensor) -> Float[Tensor, ""]:
    """Jensen-Shannon divergence in nats, in [0, log 2], of log-densities on `GRID`."""
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return (kl(log_p, log_m) + kl(log_q, log_m)) / 2


def softened_kl(log_p: Tensor, log_q: Tensor) -> Float[Tensor, ""]:
    """KL(q ‖ p) - 2 JSD(p, q), which is 2 KL(½p + ½q ‖ p) and so never negative."""
    return kl(log_q, log_p) - 2 * jsd(log_p, log_q)


def gradient_of(divergence: Callable[[Tensor, Tensor], Tensor], p: Mixture, base: Mixture, theta: Tensor) -> Tensor:
    """(2,) ∂ divergence(p, q_θ) / ∂θ: through the density, where a generator's goes through its samples."""
    theta = theta.clone().requires_grad_()
    return torch.autograd.grad(divergence(p.log_density(GRID), log_density_of(base, theta, GRID)), theta)[0]

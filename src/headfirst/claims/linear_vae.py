"""A linear VAE whose best encoder and bound are known (probabilistic PCA), for claim 14.

x = W z + noise of variance η, z ~ N(0, I), with the true W and η as decoder, which stays; the encoder
q(z|x) = N(Vx, diag e^b) begins at the prior. The posterior is N(S Wᵀ x / η, S), S = (I + WᵀW / η)⁻¹; the columns of W
are orthogonal, so that S is diagonal and the encoder can reach it. The bound's distance to E log p(x) is then
E KL(q(z|x) ‖ p(z|x)), in closed form.

Shape letters: N points, D observed dimensions, L latent ones, T steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.generate import gaussian_kl, gaussian_log_likelihood, reparameterised

SPECTRUM = (5.0, 3.0, 1.2, 0.6)
"""Variances of the data along the columns of W; elsewhere η."""
NUM_OBSERVED, NOISE = 8, 0.2
BATCH = 64

Surrogate = Callable[[Tensor, Tensor, Tensor, Callable[[Tensor], Tensor]], Tensor]
"""(mean, log-variance, noise, z → log p(x|z)) → (N,) whose gradient estimates that of E log p(x|z)."""


def through_the_sample(
    mean: Tensor, log_variance: Tensor, noise: Tensor, log_likelihood: Callable[[Tensor], Tensor]
) -> Float[Tensor, " n"]:
    """Pathwise: log p(x|z) at z = μ + σ ε."""
    return log_likelihood(reparameterised(mean, log_variance, noise))


def by_the_score(
    mean: Tensor, log_variance: Tensor, noise: Tensor, log_likelihood: Callable[[Tensor], Tensor]
) -> Float[Tensor, " n"]:
    """Score function: log p(x|z) log q(z|x), the first and z held fixed."""
    z = reparameterised(mean, log_variance, noise).detach()
    return log_likelihood(z) * gaussian_log_likelihood(mean, log_variance, z)


def by_the_score_with_baseline(
    mean: Tensor, log_variance: Tensor, noise: Tensor, log_likelihood: Callable[[Tensor], Tensor]
) -> Float[Tensor, " n"]:
    """Score function of log p(x|z) less its mean over the other points of the batch."""

    def centred(z: Tensor) -> Tensor:
        return leave_one_out(log_likelihood(z))

    return by_the_score(mean, log_variance, noise, centred)


def cut(
    mean: Tensor, log_variance: Tensor, noise: Tensor, log_likelihood: Callable[[Tensor], Tensor]
) -> Float[Tensor, " n"]:
    """log p(x|z) at a draw through which no gradient flows."""
    return log_likelihood(reparameterised(mean, log_variance, noise).detach())


def leave_one_out(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Each value less the mean of the others, which does not depend on its own draw."""
    return values - (values.sum() - values) / (len(values) - 1)


def decoder() -> Float[Tensor, "d l"]:
    """W, its columns orthogonal, with WᵀW = diag(spectrum - η)."""
    noise = torch.randn(NUM_OBSERVED, len(SPECTRUM), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis, _upper = torch.linalg.qr(noise)
    return basis * (torch.tensor(SPECTRUM, dtype=torch.float64) - NOISE).sqrt()


def gap_to_best(W: Float[Tensor, "d l"], V: Float[Tensor, "l d"], b: Float[Tensor, " l"]) -> float:
    """E log p(x) less the bound, in nats: E KL(q(z|x) ‖ p(z|x)) over x ~ N(0, WWᵀ + ηI)."""
    precision = torch.eye(len(b), dtype=torch.float64) + W.T @ W / NOISE
    off = V - torch.linalg.solve(precision, W.T / NOISE)
    covariance = W @ W.T + NOISE * torch.eye(len(W), dtype=torch.float64)
    spread = (precision.diagonal() * b.exp()).sum() + (precision @ off @ covariance @ off.T).trace()
    return ((spread - len(b) - b.sum() - torch.logdet(precision)) / 2).item()


def learn(surrogate: Surrogate, *, rate: float, steps: int, seed: int) -> list[float]:
    """`gap_to_best` of the encoder before each of the steps (Adam, fresh points) and after the last."""
    W, generator = decoder(), torch.Generator().manual_seed(seed)
    V = torch.zeros(len(SPECTRUM), NUM_OBSERVED, dtype=torch.float64, requires_grad=True)
    b = torch.zeros(len(SPECTRUM), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([V, b], lr=rate)
    log_noise = torch.tensor(NOISE, dtype=torch.float64).log()
    gaps = [gap_to_best(W, V.detach(), b.detach())]
    for _ in range(steps):
        z, observed, noise = (
            torch.randn(BATCH, size, generator=generator, dtype=torch.float64)
            for size in (len(SPECTRUM), NUM_OBSERVED, len(SPECTRUM))
        )
        x = z @ W.T + NOISE**0.5 * observed
        mean = x @ V.T
        log_variance = b.expand_as(mean)

        def log_likelihood(z: Tensor, x: Tensor = x) -> Tensor:
            return gaussian_log_likelihood(z @ W.T, log_noise, x)

        bound = surrogate(mean, log_variance, noise, log_likelihood) - gaussian_kl(mean, log_variance)
        optimiser.zero_grad()
        (-bound.mean()).backward()
        optimiser.step()
        gaps.append(gap_to_best(W, V.detach(), b.detach()))
    return gaps

"""The importance-weighted bound on log p(x), with the error of its draws.

What enters: log p(x, z) and log q(z | x) of K draws for N images. What leaves: log p(x) estimated from below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ImportanceBound:
    """What K draws an image say of log p(x), in nats; float64, without a gradient."""

    per_image: Float[Tensor, " n"]
    standard_errors: Float[Tensor, " n"]
    """Of each image's estimate, from the spread of its weights. Too small where few draws carry all the weight."""

    effective_draws: Float[Tensor, " n"]
    """(Σ w)² / Σ w², from 1 to K; near 1, neither the estimate nor its error is to be believed."""

    mean: float
    standard_error: float
    """Of the mean over these images, from the draws alone: other images would vary it further."""


def importance_weighted_bound(log_joint: Tensor, log_posterior: Tensor) -> ImportanceBound:
    """L_K = log 1/K Σ_k p(x, z_k) / q(z_k | x), z_k drawn from q: in expectation at most log p(x), which it tends to.

    The standard error is the delta method's: the spread of the weights over √K and their mean. The bound lies below
    log p(x) by about half the squared standard error. The weights are never exponentiated before their largest is taken
    off, so any finite logarithms will do.

    Args:
        log_joint: (K, N), log p(x, z_k) in nats: the decoder's log-likelihood plus the prior's log-density.
        log_posterior: (K, N), log q(z_k | x) in nats, of the same draws.

    Raises:
        InputError: other shapes, no image, fewer than two draws, or numbers that are not finite.

    Source: Burda, Grosse & Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016, equation 8.

    >>> import torch
    >>> bound = importance_weighted_bound(torch.tensor([[-5.0], [-5.0]]), torch.tensor([[-2.0], [-2.0]]))
    >>> bound.mean, bound.standard_error, bound.effective_draws.item()
    (-3.0, 0.0, 2.0)
    """
    if log_joint.ndim != 2 or log_joint.shape != log_posterior.shape or log_joint.shape[1] == 0:
        raise InputError(
            "log_joint and log_posterior must both be (K, N), draws by images, got "
            f"{tuple(log_joint.shape)} and {tuple(log_posterior.shape)}"
        )
    K, N = log_joint.shape
    if K < 2:
        raise InputError(f"the error of the bound needs at least two draws an image, got {K}")
    log_w = log_joint.detach().double() - log_posterior.detach().double()
    if not log_w.isfinite().all():
        raise InputError(
            f"log weights must be finite, got {int((~log_w.isfinite()).sum())} of {log_w.numel()} that are not; the "
            "model or its draws have diverged"
        )
    largest = log_w.amax(dim=0)
    w = (log_w - largest).exp()
    mean = w.mean(dim=0)
    errors = w.std(dim=0) / math.sqrt(K) / mean
    per_image = largest + mean.log()
    return ImportanceBound(
        per_image=per_image,
        standard_errors=errors,
        effective_draws=w.sum(dim=0).square() / w.square().sum(dim=0),
        mean=per_image.mean().item(),
        standard_error=errors.square().sum().sqrt().item() / N,
    )

"""The Gaussian side of a variational autoencoder: its sample, its KL divergence and free bits.

What enters: an encoder's mean and log-variance. What leaves: latents, and nats. Halves are computed in float32.

Shape letters: N images, D latent dimensions.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError


def reparameterised(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """z = μ + exp(½ log σ²) ε: a draw of N(μ, σ²) through which gradients flow to μ and log σ².

    Args:
        mean, log_variance: (N, D), or any one shape; log-variances below 177 stay finite in float32.
        noise: ε, the same shape, standard normal.

    Raises:
        InputError: shapes that differ.

    Source: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, section 2.4.

    >>> reparameterised(torch.tensor([[1.0]]), torch.tensor([[0.0]]), torch.tensor([[-2.0]]))
    tensor([[-1.]])
    """
    if not mean.shape == log_variance.shape == noise.shape:
        raise InputError(
            f"mean, log_variance and noise must have one shape, got {tuple(mean.shape)}, {tuple(log_variance.shape)} "
            f"and {tuple(noise.shape)}"
        )
    mean, log_variance, noise = (_wide(x) for x in (mean, log_variance, noise))
    return mean + (log_variance / 2).exp() * noise


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Float[Tensor, " n"]:
    """KL(N(μ, σ²) ‖ N(0, 1)) of each image, in nats, summed over its latent dimensions.

    KL = ½ Σ_d (μ_d² + σ_d² - 1 - log σ_d²)

    Args:
        mean, log_variance: (N, D), or (N, …) for latents with a shape. In float32 value and gradient are finite for
            every log-variance below 88.7, where σ² itself overflows (float64: 709.7), and every |μ| below 1.8e19;
            downwards there is no limit.

    Returns:
        (N,), at least 0.

    Raises:
        InputError: shapes that differ or have no latent dimension.

    Source: Kingma & Welling, ICLR 2014, appendix B. Written with expm1, which keeps the digits near σ² = 1.

    >>> gaussian_kl(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.zeros(2, 2))
    tensor([5., 0.])
    """
    return gaussian_kl_per_dimension(mean, log_variance).flatten(1).sum(dim=1)


def gaussian_kl_per_dimension(mean: Tensor, log_variance: Tensor) -> Tensor:
    """`gaussian_kl` before the sum, in the shape of the mean: what free bits and the count of active units need.

    Raises:
        InputError: as `gaussian_kl`.
    """
    if mean.shape != log_variance.shape or mean.ndim < 2:
        raise InputError(
            f"mean and log_variance must both be (N, D), one row an image, got {tuple(mean.shape)} and "
            f"{tuple(log_variance.shape)}"
        )
    mean, log_variance = _wide(mean), _wide(log_variance)
    return (mean.square() + (log_variance.expm1() - log_variance)) / 2


def free_bits(kl: Tensor, minimum: float) -> Float[Tensor, ""]:
    """The KL term with a floor under each latent dimension, averaged over the batch: below it nothing is gained.

    Σ_d max(λ, 1/N Σ_i KL_id)

    Args:
        kl: (N, D), nats (`gaussian_kl_per_dimension`).
        minimum: λ in nats a dimension, at least 0; 0 gives the mean KL.

    Returns:
        Scalar; dimensions below the floor add λ and have no gradient.

    Raises:
        InputError: another shape, no image, or a floor that is negative or not finite.

    Source: Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow", NeurIPS 2016, equation 15,
    with every dimension as a group of its own.

    >>> free_bits(torch.tensor([[0.0, 3.0], [0.2, 1.0]]), 0.5).item()           # 0.1 is raised to 0.5; 2 stays
    2.5
    """
    if kl.ndim != 2 or 0 in kl.shape:
        raise InputError(f"kl must be (N, D), nats of each image and latent dimension, got {tuple(kl.shape)}")
    if not 0 <= minimum < float("inf"):
        raise InputError(f"minimum, nats a dimension, must be at least 0 and finite, got {minimum}")
    return kl.mean(dim=0).clamp(min=minimum).sum()


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))

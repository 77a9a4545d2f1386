"""A latent that is logistic instead of Gaussian: heavier tails, sampled by its inverse distribution function.

What enters: an encoder's location and log-scale, and uniform numbers. What leaves: latents, and nats.

Shape letters: N images, D latent dimensions.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from headfirst.errors import InputError


def logistic_sample(location: Tensor, log_scale: Tensor, uniform: Tensor) -> Tensor:
    """z = μ + s log(u / (1 - u)): a draw of the logistic distribution through which gradients flow to μ and log s.

    Args:
        location, log_scale: (N, D), or any one shape; log-scales below 85 stay finite in float32.
        uniform: u in [0, 1], the same shape. Its ends, which generators can give, are moved inside by half the step of
            a generator of that type: |log(u / (1 - u))| is at most 17.4 in float32.

    Raises:
        InputError: shapes that differ, numbers outside [0, 1].

    Source: inverse transform sampling; Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, section 2.4.

    >>> logistic_sample(torch.tensor([[2.0]]), torch.tensor([[0.0]]), torch.tensor([[0.5]]))
    tensor([[2.]])
    """
    location, log_scale, u = _checked(location, log_scale, uniform)
    return location + log_scale.exp() * (u.log() - (-u).log1p())


def logistic_log_density(sample: Tensor, location: Tensor, log_scale: Tensor) -> Float[Tensor, " n"]:
    """log q(z) of each row, in nats, summed over its dimensions; location and log-scale 0 are the prior.

    log q(z) = Σ_d log S(y_d) + log S(-y_d) - log s_d,  y = (z - μ) / s,  S the logistic function

    Args:
        sample, location, log_scale: (N, D), or (N, …).

    Returns:
        (N,).

    Raises:
        InputError: shapes that differ or have no latent dimension.

    >>> logistic_log_density(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1)).exp()            # at its mode
    tensor([0.2500])
    """
    _require_rows("sample, location and log_scale", sample, location, log_scale)
    sample, location, log_scale = (_wide(x) for x in (sample, location, log_scale))
    y = (sample - location) * (-log_scale).exp()
    return (F.logsigmoid(y) + F.logsigmoid(-y) - log_scale).flatten(1).sum(dim=1)


def logistic_kl(location: Tensor, log_scale: Tensor, uniform: Tensor) -> Float[Tensor, " n"]:
    """KL(logistic(μ, s) ‖ logistic(0, 1)) of each image, in nats, by one draw a dimension: unbiased, not exact.

    log q(z) - log p(z) at z = μ + s log(u / (1 - u)), summed over d. For s = 1 its mean is Σ_d μ_d coth(μ_d / 2) - 2;
    for other scales there is no closed form in elementary functions. At μ = 0, s = 1 every draw is exactly 0.

    Args:
        location, log_scale, uniform: (N, D), or (N, …), as for `logistic_sample`. The same `uniform` gives the KL at
            that very sample.

    Returns:
        (N,); a single draw may be negative, its mean is not.

    Raises:
        InputError: shapes that differ or have no latent dimension, numbers outside [0, 1].
    """
    _require_rows("location, log_scale and uniform", location, log_scale, uniform)
    location, log_scale, u = _checked(location, log_scale, uniform)
    y = u.log() - (-u).log1p()
    z = location + log_scale.exp() * y
    posterior = F.logsigmoid(y) + F.logsigmoid(-y) - log_scale
    return (posterior - (F.logsigmoid(z) + F.logsigmoid(-z))).flatten(1).sum(dim=1)


def _checked(location: Tensor, log_scale: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if not location.shape == log_scale.shape == uniform.shape:
        raise InputError(
            f"location, log_scale and uniform must have one shape, got {tuple(location.shape)}, "
            f"{tuple(log_scale.shape)} and {tuple(uniform.shape)}"
        )
    if not ((uniform >= 0) & (uniform <= 1)).all():
        raise InputError(
            f"uniform must lie in [0, 1] (torch.rand), got values from {uniform.min().item():.3g} to "
            f"{uniform.max().item():.3g}"
        )
    u = _wide(uniform)
    eps = torch.finfo(u.dtype).eps
    return _wide(location), _wide(log_scale), u.clamp(eps / 4, 1 - eps / 2)


def _require_rows(names: str, *tensors: Tensor) -> None:
    if len({x.shape for x in tensors}) > 1 or tensors[0].ndim < 2:
        shapes = ", ".join(str(tuple(x.shape)) for x in tensors)
        raise InputError(f"{names} must all be (N, D), one row an image, got {shapes}")


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))

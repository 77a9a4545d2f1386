"""What a decoder says of an image: log p(x | z) in nats, summed over channels and pixels.

What enters: a decoder's output and the image, (N, …) with one shape; a log-variance or log-scale may be smaller, down
to one number for all pixels. What leaves: (N,), computed in float32 or the inputs' wider type.

Shape letters: N images.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from headfirst.errors import InputError


def bernoulli_log_likelihood(logits: Tensor, target: Tensor) -> Float[Tensor, " n"]:
    """Σ x log S(l) + (1 - x) log S(-l), S the logistic function.

    A likelihood for x in {0, 1}. For grey values between, it is the usual score, but no normalised likelihood, so its
    nats compare with no other decoder's (Loaiza-Ganem & Cunningham, "The continuous Bernoulli", NeurIPS 2019).

    Args:
        logits: l, (N, …); any finite number. Each term is one logarithm, so that no digits cancel at large ones.
        target: x in [0, 1], (N, …).

    Raises:
        InputError: shapes that differ or have no pixels, targets outside [0, 1].

    >>> bernoulli_log_likelihood(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]])).exp()
    tensor([0.2500])
    """
    logits, target = _images("logits", logits, target)
    if not ((target >= 0) & (target <= 1)).all():
        raise InputError(
            f"target must lie in [0, 1], got values from {target.min().item():.3g} to {target.max().item():.3g}; "
            "divide grey values by 255"
        )
    return _over_pixels(target * F.logsigmoid(logits) + (1 - target) * F.logsigmoid(-logits))


def gaussian_log_likelihood(mean: Tensor, log_variance: Tensor, target: Tensor) -> Float[Tensor, " n"]:
    """-½ Σ log 2π + log σ² + (x - μ)² / σ²: a density with its constant, also for latents.

    Grey values in steps have no density: with σ² free, it grows without bound where pixels are constant. Bound σ² from
    below, add noise of one step's width to the images, or use `discretised_logistic_log_likelihood`.

    Args:
        mean: μ, (N, …).
        log_variance: log σ², of that shape or broadcast to it; finite from -87 to 88 in float32 where (x - μ)² / σ² is.
        target: x, (N, …).

    Raises:
        InputError: shapes that differ, do not broadcast, or have no pixels.

    >>> gaussian_log_likelihood(torch.zeros(1, 1), torch.tensor(0.0), torch.ones(1, 1))              # -½ log 2π - ½
    tensor([-1.4189])
    """
    mean, target = _images("mean", mean, target)
    log_variance = _for_each_pixel("log_variance", log_variance, mean)
    standardised = (target - mean) * (-log_variance / 2).exp()
    return _over_pixels(-0.5 * (math.log(2 * math.pi) + log_variance + standardised.square()))


def discretised_logistic_log_likelihood(mean: Tensor, log_scale: Tensor, target: Tensor) -> Float[Tensor, " n"]:
    """The probability that a logistic variable, rounded to 256 grey values, gives the image; the end bins are open.

    P(x) = S(a) - S(b),  a = (x + 1/510 - μ) / s,  b = (x - 1/510 - μ) / s;  b = -∞ for x = 0,  a = ∞ for x = 1

    log P = log S(a) + log S(-b) + log(1 - exp(b - a)) holds exactly, so no approximation has to set in anywhere.

    Args:
        mean: μ in the units of the target, (N, …).
        log_scale: log s, of that shape or broadcast to it; finite, and so is its gradient, from -80 to 80 in
            float32 where |x - μ| is below 1,000.
        target: x, one of k/255 for k = 0 … 255, to within a tenth of a step.

    Returns:
        (N,), at most 0: probabilities, which sum to one over the 256 grey values of a pixel.

    Raises:
        InputError: shapes that differ, do not broadcast, or have no pixels; targets that are no grey values.

    Source: Salimans et al., "PixelCNN++", ICLR 2017, equation 2, with one component. Deviation: grey values lie in
    [0, 1], not [-1, 1], so that the scale is half of theirs.

    >>> levels = torch.arange(256.0)[:, None] / 255
    >>> log_p = discretised_logistic_log_likelihood(torch.full((256, 1), 0.3), torch.tensor(-2.0), levels)
    >>> round(log_p.exp().sum().item(), 5)
    1.0
    """
    mean, target = _images("mean", mean, target)
    log_scale = _for_each_pixel("log_scale", log_scale, mean)
    k = (255 * target).round()
    if not ((k >= 0) & (k <= 255) & ((255 * target - k).abs() < 0.1)).all():
        raise InputError(
            f"target must hold grey values k/255 in [0, 1], got others from {target.min().item():.3g} to "
            f"{target.max().item():.3g}; round resized images: (255 * x).round() / 255"
        )
    per_scale = (-log_scale).exp()
    centred = k / 255 - mean
    log_below = F.logsigmoid((centred + 1 / 510) * per_scale)
    log_above = F.logsigmoid((1 / 510 - centred) * per_scale)
    inside = log_below + log_above + (-(-per_scale / 255).expm1()).log()
    return _over_pixels(torch.where(k == 0, log_below, torch.where(k == 255, log_above, inside)))


def _images(name: str, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if output.shape != target.shape or target.ndim < 2:
        raise InputError(
            f"{name} and target must both be (N, …), one row an image, got {tuple(output.shape)} and "
            f"{tuple(target.shape)}"
        )
    wide = torch.promote_types(torch.promote_types(output.dtype, target.dtype), torch.float32)
    return output.to(wide), target.to(wide)


def _for_each_pixel(name: str, parameter: Tensor, mean: Tensor) -> Tensor:
    try:
        return parameter.to(torch.promote_types(parameter.dtype, mean.dtype)).broadcast_to(mean.shape)
    except RuntimeError:
        raise InputError(
            f"{name} must broadcast to the mean's {tuple(mean.shape)}, got {tuple(parameter.shape)}"
        ) from None


def _over_pixels(log_likelihood: Tensor) -> Tensor:
    return log_likelihood.flatten(1).sum(dim=1)

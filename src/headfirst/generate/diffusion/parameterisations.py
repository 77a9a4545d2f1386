"""What a network of noisy images may predict, and how to turn one prediction into another, exactly.

With x = α x₀ + σ ε: epsilon is ε; x0 is x₀; v = α ε - σ x₀ (with α² + σ² = 1); score = ∇ log p(x) = -ε / σ.

What enters: a prediction, the x it was made from, α and σ. What leaves: another prediction, or a `Denoiser`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from headfirst.errors import InputError, did_you_mean
from headfirst.generate.diffusion.schedules import Schedule
from headfirst.types import Denoiser

PREDICTIONS = ("epsilon", "x0", "v", "score")


def x0_from(kind: str, prediction: Tensor, x: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """x₀ from any prediction.

    epsilon: (x - σ ε) / α; v: (α x - σ v) / (α² + σ²); score: (x + σ² s) / α.

    Args:
        prediction, x: (N, …), x = α x₀ + σ ε.
        alpha, sigma: scalars, or shaped so that they broadcast; α positive except for x0 and v.

    Raises:
        InputError: another kind.

    Source: of v: Salimans & Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", ICLR 2022, section 4.
    """
    if kind == "x0":
        return prediction
    if kind == "epsilon":
        return (x - sigma * prediction) / alpha
    if kind == "v":
        return (alpha * x - sigma * prediction) / (alpha**2 + sigma**2)
    if kind == "score":
        return (x + sigma**2 * prediction) / alpha
    raise InputError(_unknown(kind))


def prediction_of(kind: str, x0: Tensor, x: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """The prediction that says x₀: the inverse of `x0_from`; σ positive except for x0.

    epsilon: (x - α x₀) / σ; v: (α x - (α² + σ²) x₀) / σ; score: (α x₀ - x) / σ².

    Raises:
        InputError: another kind.
    """
    if kind == "x0":
        return x0
    if kind == "epsilon":
        return (x - alpha * x0) / sigma
    if kind == "v":
        return (alpha * x - (alpha**2 + sigma**2) * x0) / sigma
    if kind == "score":
        return (alpha * x0 - x) / sigma**2
    raise InputError(_unknown(kind))


def vp_denoiser(network: Callable[[Tensor, Tensor], Tensor], schedule: Schedule, kind: str) -> Denoiser:
    """A denoiser from a network of any schedule and prediction: f(α x, t), t the time of the level.

    Args:
        network: takes α x₀ + σ(t) ε (N, …) and t (N,), in the schedule's time; returns a prediction of the shape of x.
        kind: what it predicts.

    Raises:
        InputError: another kind; at a call, a prediction of another shape than x.
    """
    if kind not in PREDICTIONS:
        raise InputError(_unknown(kind))

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        t = schedule.time(sigma)
        alpha, noise = schedule.alpha(t).to(x.dtype), schedule.sigma(t).to(x.dtype)
        scaled = alpha * x
        predicted = network(scaled, t.to(x.dtype).expand(len(x)))
        if predicted.shape != x.shape:
            raise InputError(
                f"a network that predicts {kind} must return the shape of its input, {tuple(x.shape)}, got "
                f"{tuple(predicted.shape)}; does it predict a variance too? then give its first half"
            )
        return x0_from(kind, predicted, scaled, alpha, noise)

    return denoise


def preconditioned(
    network: Callable[[Tensor, Tensor], Tensor], sigma_data: float, *, boundary: float = 0.0
) -> Denoiser:
    """D(x; σ) = c_skip x + c_out F(c_in x, c_noise): input and target of F have variance 1 at every level.

    c_skip = σ_d² / ((σ - b)² + σ_d²), c_out = (σ - b) σ_d / √(σ² + σ_d²), c_in = 1 / √(σ² + σ_d²), c_noise = ¼ log σ.

    Args:
        network: F, takes (N, …) and c_noise (N,).
        sigma_data: σ_d, the standard deviation of the images.
        boundary: b, the level at which D(x; b) = x whatever F says; σ_min of a consistency function.

    Source: Karras et al., NeurIPS 2022, table 1; with b Song et al., "Consistency Models", ICML 2023, appendix C.
    """
    if not sigma_data > 0 or not boundary >= 0:
        raise InputError(f"sigma_data must be positive and boundary at least 0, got {sigma_data} and {boundary}")

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        c_skip, c_out, c_in, c_noise = preconditioning(sigma, sigma_data, boundary)
        return c_skip * x + c_out * network(c_in * x, c_noise.to(x.dtype).expand(len(x)))

    return denoise


def preconditioning(sigma: Tensor, sigma_data: float, boundary: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """c_skip, c_out, c_in and c_noise of `preconditioned`."""
    whole, above = sigma**2 + sigma_data**2, sigma - boundary
    return (
        sigma_data**2 / (above**2 + sigma_data**2),
        above * sigma_data / whole.sqrt(),
        whole.rsqrt(),
        torch.log(sigma) / 4,
    )


def _unknown(kind: str) -> str:
    return f"a prediction is one of {', '.join(PREDICTIONS)}, got {kind!r}{did_you_mean(kind, PREDICTIONS)}"

"""Noise levels: the standard deviations σ at which a sampler stops, falling, and how many-step schedules translate.

What enters: how many, from where to where. What leaves: float64 levels for `headfirst.generate.diffusion`'s samplers,
which hold x = x₀ + σ ε. A model of discrete steps t with x_t = √ᾱ x₀ + √(1 - ᾱ) ε has there σ = √((1 - ᾱ) / ᾱ).

Shape letters: T training steps, M levels.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.errors import InputError, did_you_mean

SPACINGS = ("leading", "linspace", "trailing")


def karras_sigmas(
    num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Float[Tensor, " m"]:
    """σ_i = (σ_max^(1/ρ) + i/(M-1) (σ_min^(1/ρ) - σ_max^(1/ρ)))^ρ, i = 0 … M-1: `num_steps` levels, without a zero.

    One step gives σ_max alone. `to_zero` appends the zero that ends on an image.

    Args:
        num_steps: M, at least 1.
        sigma_min, sigma_max: in (0, ∞), the first not above the second.
        rho: ρ, positive; 1 makes equal steps, more of it shorter ones where there is little noise.

    Raises:
        InputError: a number that cannot be.

    Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (NeurIPS 2022), (5).

    >>> karras_sigmas(3, 0.01, 1.0, 2.0)
    tensor([1.0000, 0.3025, 0.0100], dtype=torch.float64)
    """
    _check(num_steps, sigma_min, sigma_max)
    if not 0 < rho < math.inf:
        raise InputError(f"rho must be positive and finite, got {rho}")
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return _exact_ends((high + ramp * (low - high)) ** rho, sigma_min, sigma_max)


def log_snr_uniform_sigmas(num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Float[Tensor, " m"]:
    """σ_max to σ_min in equal ratios: steps equally long in λ = -log σ, half the logarithm of the signal to noise.

    Arguments and errors as `karras_sigmas`, of which it is the limit for large ρ.

    >>> log_snr_uniform_sigmas(3, 0.01, 1.0)
    tensor([1.0000, 0.1000, 0.0100], dtype=torch.float64)
    """
    _check(num_steps, sigma_min, sigma_max)
    ramp = torch.linspace(math.log(sigma_max), math.log(sigma_min), num_steps, dtype=torch.float64)
    return _exact_ends(ramp.exp(), sigma_min, sigma_max)


def to_zero(sigmas: Float[Tensor, " m"]) -> Float[Tensor, " m+1"]:
    """The levels, and a zero: the last step then returns the denoised image."""
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def sigma_of_alpha_bar(alpha_bar: Float[Tensor, "*m"]) -> Float[Tensor, "*m"]:
    """σ = √((1 - ᾱ) / ᾱ), float64; infinite at ᾱ = 0, where nothing of the image is left.

    Raises:
        InputError: ᾱ outside [0, 1].
    """
    alpha_bar = alpha_bar.to(torch.float64)
    if not bool(((alpha_bar >= 0) & (alpha_bar <= 1)).all()):
        raise InputError(f"alpha_bar must lie in [0, 1], got {alpha_bar.min():g} … {alpha_bar.max():g}")
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def alpha_bar_of_sigma(sigma: Float[Tensor, "*m"]) -> Float[Tensor, "*m"]:
    """ᾱ = 1 / (1 + σ²), float64.

    >>> alpha_bar_of_sigma(sigma_of_alpha_bar(torch.tensor(0.25)))
    tensor(0.2500, dtype=torch.float64)
    """
    return 1 / (1 + sigma.to(torch.float64) ** 2)


def zero_terminal_snr(alphas_bar: Float[Tensor, " t"]) -> Float[Tensor, " t"]:
    """√ᾱ shifted and stretched so that the last is 0 and the first stays: training then sees pure noise.

    Args:
        alphas_bar: (T,), falling, in (0, 1].

    Raises:
        InputError: not falling, or outside (0, 1].

    Source: Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", WACV 2024, algorithm 1.

    >>> zero_terminal_snr(torch.tensor([0.81, 0.25, 0.01]))
    tensor([0.8100, 0.2025, 0.0000], dtype=torch.float64)
    """
    _falling(alphas_bar)
    root = alphas_bar.to(torch.float64).sqrt()
    return ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2


def spaced_timesteps(num_train: int, num_steps: int, spacing: str = "trailing") -> Int[Tensor, " m"]:
    """`num_steps` of the training steps 0 … T-1, falling, evenly spaced; each sampler step ends at the next of them.

    leading: 0 is the last and T-1 is left out; linspace: both are there; trailing: T-1 is the first (Lin et al.,
    table 2).

    Raises:
        InputError: fewer than one step, more than T, another spacing.

    >>> [spaced_timesteps(1000, 3, spacing).tolist() for spacing in SPACINGS]
    [[666, 333, 0], [999, 500, 0], [999, 666, 332]]
    """
    if not 1 <= num_steps <= num_train:
        raise InputError(f"num_steps must lie in 1 … {num_train}, the steps of training, got {num_steps}")
    if spacing not in SPACINGS:
        known = ", ".join(SPACINGS)
        raise InputError(f"spacing must be one of {known}, got {spacing!r}{did_you_mean(spacing, SPACINGS)}")
    if spacing == "leading":
        return torch.arange(num_steps).flip(0) * (num_train // num_steps)
    if spacing == "linspace":
        return torch.linspace(num_train - 1, 0, num_steps, dtype=torch.float64).round().long()
    counted = torch.arange(num_steps, 0, -1, dtype=torch.float64) * (num_train / num_steps)
    return counted.round().long() - 1


def vp_sigmas(alphas_bar: Float[Tensor, " t"], num_steps: int, spacing: str = "trailing") -> Float[Tensor, " m"]:
    """Levels of `num_steps` of a model's discrete steps, and a zero: M + 1 levels.

    Args:
        alphas_bar: (T,) ᾱ of each training step, falling.

    Raises:
        InputError: as `spaced_timesteps`, or ᾱ not falling in (0, 1].
    """
    _falling(alphas_bar)
    return to_zero(sigma_of_alpha_bar(alphas_bar[spaced_timesteps(len(alphas_bar), num_steps, spacing)]))


def _falling(alphas_bar: Tensor) -> None:
    if alphas_bar.ndim != 1 or len(alphas_bar) < 1 or not bool(((alphas_bar > 0) & (alphas_bar <= 1)).all()):
        raise InputError(f"alphas_bar must be one row of numbers in (0, 1], got shape {tuple(alphas_bar.shape)}")
    if not bool((alphas_bar.diff() < 0).all()):
        raise InputError("alphas_bar must fall from step to step; sort the schedule, or look for a step that repeats")


def _check(num_steps: int, sigma_min: float, sigma_max: float) -> None:
    if num_steps < 1:
        raise InputError(f"num_steps must be at least 1, got {num_steps}")
    if not 0 < sigma_min <= sigma_max < math.inf:
        raise InputError(f"levels must satisfy 0 < sigma_min <= sigma_max < inf, got {sigma_min} and {sigma_max}")
    if num_steps > 1 and sigma_min == sigma_max:
        raise InputError(f"{num_steps} falling levels need sigma_min < sigma_max, got {sigma_min} for both")


def _exact_ends(sigmas: Tensor, sigma_min: float, sigma_max: float) -> Tensor:
    """The first level is σ_max and, of two or more, the last σ_min, to the bit."""
    sigmas[-1] = sigma_min
    sigmas[0] = sigma_max
    return sigmas

"""How likely an image is: the density of the probability flow, which runs both ways.

What enters: a denoiser and images. What leaves: log p of each, in nats, with the cost. Shape letters: N images, D
numbers of an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from headfirst.errors import InputError
from headfirst.generate.diffusion.ode import dormand_prince
from headfirst.generate.diffusion.samplers.stepping import scalars
from headfirst.types import Denoiser

MOST = 10_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Likelihood:
    """log p(x; σ_min) of each image in nats, float64; `noise`: where its path ends, at σ_max."""

    per_image: Float[Tensor, " n"]
    noise: Float[Tensor, "n ..."]
    num_evaluations: int

    @property
    def mean(self) -> float:
        """Over the images."""
        return self.per_image.mean().item()


def log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    sigma_min: float,
    sigma_max: float,
    *,
    rtol: float = 1e-4,
    sigma_data: float = 0.5,
    probes: int | None = None,
    generator: Generator | None = None,
) -> Likelihood:
    """log p(x; σ_min) = log N(x_end; 0, σ_max² + σ_d²) + ∫ (D - tr ∂D/∂x) / σ dσ from σ_min to σ_max.

    Solved beside the path itself by `dormand_prince`, in the variables of `adaptive`. At σ_max the images are taken to
    be normal with σ_d, which they are the less the nearer σ_max is to it.

    Args:
        denoiser: differentiable in x.
        x: (N, …) images with noise of standard deviation `sigma_min` added; a density of images without noise needs a
            σ_min well below what tells them apart.
        rtol: of the path as in `adaptive`, and of the logarithm for each of the D numbers.
        sigma_data: σ_d, the standard deviation of the images.
        probes: draws of vᵀ ∂D/∂x v, v = ±1, that stand for the trace (Hutchinson); None computes it, with D passes
            backwards for each evaluation.
        generator: of the probes.

    Raises:
        InputError: numbers that cannot be.
        DivergenceError: the tolerance is not met.

    Source: Song et al., ICLR 2021, equation 39 (appendix D.2).
    """
    if not 0 < sigma_min < sigma_max < math.inf:
        raise InputError(f"levels must satisfy 0 < sigma_min < sigma_max < inf, got {sigma_min} and {sigma_max}")
    if not 0 < rtol < math.inf or not 0 < sigma_data < math.inf:
        raise InputError(f"rtol and sigma_data must be positive, got {rtol} and {sigma_data}")
    if probes is not None and probes < 1:
        raise InputError(f"probes must be at least 1, or None for the whole trace, got {probes}")
    n, dim = len(x), x[0].numel()
    signs = _signs(probes, x, generator)

    def slope(state: Tensor, theta: float) -> Tensor:
        sigma = sigma_data * math.tan(theta)
        at = (state[:, :dim] / math.cos(theta)).view_as(x)
        denoised, trace = _with_trace(denoiser, at, scalars([sigma], x)[0], signs)
        path = (at - denoised) * (math.cos(theta) * sigma_data / sigma) - denoised * math.sin(theta)
        divergence = (dim - trace) * sigma_data / sigma - trace * math.tan(theta)
        return torch.cat([path.reshape(n, dim), divergence[:, None]], dim=1)

    def worst(error: Tensor, state: Tensor) -> float:
        size, scale = (part[:, :dim].double().square().mean(1).sqrt() for part in (error, state))
        return max(float((size / scale.clamp_min(sigma_data)).max()), float(error[:, dim].abs().max()) / dim)

    begin, end = (math.atan2(sigma, sigma_data) for sigma in (sigma_min, sigma_max))
    first = torch.cat([x.reshape(n, dim) * math.cos(begin), x.new_zeros(n, 1)], dim=1)
    found = dormand_prince(slope, first, begin, end, tolerance=rtol, norm=worst, most=MOST)
    noise = found.y[:, :dim] / math.cos(end)
    variance = sigma_max**2 + sigma_data**2
    last = -0.5 * (noise.double().square().sum(1) / variance + dim * math.log(2 * math.pi * variance))
    gained = found.y[:, dim].double() + dim * (math.log(math.cos(begin)) - math.log(math.cos(end)))
    return Likelihood(per_image=last + gained, noise=noise.view_as(x), num_evaluations=found.num_evaluations)


def _signs(probes: int | None, x: Tensor, generator: Generator | None) -> Tensor | None:
    if probes is None:
        return None
    where = x.device if generator is None else generator.device
    return (torch.randint(0, 2, (probes, *x.shape), generator=generator, device=where) * 2 - 1).to(x)


def _with_trace(denoiser: Denoiser, x: Tensor, sigma: Tensor, signs: Tensor | None) -> tuple[Tensor, Tensor]:
    """D(x; σ) and tr ∂D/∂x of each image, (N,)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        denoised = denoiser(x, sigma)
        if signs is None:
            basis = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device).view(-1, 1, *x.shape[1:])
            probed, share = basis.expand(-1, *x.shape), 1.0
        else:
            probed, share = signs, 1 / len(signs)
        trace = x.new_zeros(len(x))
        for i, probe in enumerate(probed):
            (row,) = torch.autograd.grad(denoised, x, probe, retain_graph=i + 1 < len(probed))
            trace = trace + share * (row * probe).flatten(1).sum(1)
    return denoised.detach(), trace.detach()

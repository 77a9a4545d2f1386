"""Problems whose answer is known: a mixture with its exact denoiser, and where its paths end."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from headfirst.generate.diffusion import GaussianMixture

F64 = torch.float64


def mixture() -> GaussianMixture:
    means = torch.tensor([[-1.0, 0.5], [0.8, -0.3], [0.2, 1.2]], dtype=F64)
    stds = torch.tensor([0.5, 0.4, 0.6], dtype=F64)
    return GaussianMixture(means=means, stds=stds, weights=torch.tensor([0.5, 0.3, 0.2], dtype=F64))


def noisy(num: int, sigma: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mixture().sample(num, generator=generator) + sigma * torch.randn(num, 2, generator=generator, dtype=F64)


def flow(denoiser, x: Tensor, sigma_max: float, sigma_min: float) -> Tensor:
    """The probability flow by scipy's DOP853 in log σ: dx / d log σ = x - D."""

    def slope(log_sigma: float, flat: np.ndarray) -> np.ndarray:
        at = torch.from_numpy(flat).view_as(x)
        return (at - denoiser(at, torch.tensor(math.exp(log_sigma), dtype=F64))).numpy().ravel()

    ends = (math.log(sigma_max), math.log(sigma_min))
    found = solve_ivp(slope, ends, x.numpy().ravel(), method="DOP853", rtol=1e-11, atol=1e-12)
    return torch.from_numpy(found.y[:, -1]).view_as(x)

"""How much the error of a denoiser counts at each noise level.

Every training loss of a diffusion model is w(σ) |D(x; σ) - x0|² (σ of x = x0 + σ · noise): the losses on the noise, on
the velocity and on the network's own output differ by w alone.

Shape letters: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError


@runtime_checkable
class Weighting(Protocol):
    """w(σ)."""

    def __call__(self, sigma: Float[Tensor, " n"], sigma_data: float, /) -> Float[Tensor, " n"]:
        """(N,) positive, of levels above 0 and the standard deviation of the images."""
        ...


@dataclass(frozen=True)
class SimpleWeighting:
    """1 / σ²: the squared error of the predicted noise, every level alike (Ho et al., NeurIPS 2020, equation 14)."""

    def __call__(self, sigma: Float[Tensor, " n"], sigma_data: float) -> Float[Tensor, " n"]:
        return sigma**-2


@dataclass(frozen=True)
class VelocityWeighting:
    """1 + 1 / σ²: the squared error of v = α ε - σ' x0, with α² + σ'² = 1 (Salimans & Ho, ICLR 2022, section 4)."""

    def __call__(self, sigma: Float[Tensor, " n"], sigma_data: float) -> Float[Tensor, " n"]:
        return 1 + sigma**-2


@dataclass(frozen=True, kw_only=True)
class MinSNRWeighting:
    """min(1 / σ², γ): the noise's error, but no more than γ times that of the image.

    Source: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", ICCV 2023, section 3.3.

    Raises:
        InputError: γ is not positive.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise InputError(f"gamma must be positive, got {self.gamma}; 5 is usual")

    def __call__(self, sigma: Float[Tensor, " n"], sigma_data: float) -> Float[Tensor, " n"]:
        return (sigma**-2).clamp(max=self.gamma)


@dataclass(frozen=True)
class EDMWeighting:
    """(σ² + σ_data²) / (σ σ_data)²: the squared error of the network behind the preconditioning, every level alike.

    Source: Karras et al. (EDM), NeurIPS 2022, section 5 and table 1.
    """

    def __call__(self, sigma: Float[Tensor, " n"], sigma_data: float) -> Float[Tensor, " n"]:
        return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2

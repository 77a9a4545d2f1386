"""How noise grows with time: x_t = α(t) x₀ + σ(t) ε, continuous in t, with exact derivatives and inverses.

What enters: times in [0, 1], float64. What leaves: α, σ, their derivatives, and the noise level σ / α that samplers
speak of; from a level the time. Variance preserving (VP): α² + σ² = 1; variance exploding (VE): α = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError


@runtime_checkable
class Schedule(Protocol):
    """Times t in [0, 1], noise growing with them."""

    def alpha(self, t: Float[Tensor, "*m"], /) -> Float[Tensor, "*m"]: ...

    def sigma(self, t: Float[Tensor, "*m"], /) -> Float[Tensor, "*m"]: ...

    def alpha_dot(self, t: Float[Tensor, "*m"], /) -> Float[Tensor, "*m"]: ...

    def sigma_dot(self, t: Float[Tensor, "*m"], /) -> Float[Tensor, "*m"]: ...

    def level(self, t: Float[Tensor, "*m"], /) -> Float[Tensor, "*m"]:
        """σ / α."""
        ...

    def time(self, level: Float[Tensor, "*m"], /) -> Float[Tensor, "*m"]:
        """The t of a level: `time(level(t)) = t`."""
        ...


class _VariancePreserving:
    """All from log α(t), its derivative and its inverse."""

    def log_alpha(self, t: Tensor, /) -> Tensor:
        raise NotImplementedError

    def log_alpha_dot(self, t: Tensor, /) -> Tensor:
        raise NotImplementedError

    def _time_of_log_alpha(self, log_alpha: Tensor, /) -> Tensor:
        raise NotImplementedError

    def alpha(self, t: Tensor, /) -> Tensor:
        """α in [0, 1]."""
        return self.log_alpha(t).exp()

    def sigma(self, t: Tensor, /) -> Tensor:
        """√(1 - α²), exact for small t too."""
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def alpha_dot(self, t: Tensor, /) -> Tensor:
        """dα/dt."""
        return self.alpha(t) * self.log_alpha_dot(t)

    def sigma_dot(self, t: Tensor, /) -> Tensor:
        """dσ/dt = -α α̇ / σ; infinite at t = 0."""
        return -self.alpha(t) * self.alpha_dot(t) / self.sigma(t)

    def level(self, t: Tensor, /) -> Tensor:
        """σ / α in [0, ∞]."""
        return torch.expm1(-2 * self.log_alpha(t)).sqrt()

    def time(self, level: Tensor, /) -> Tensor:
        """The t of a level; above 1 where the level is never reached."""
        return self._time_of_log_alpha(-0.5 * torch.log1p(level.to(torch.float64) ** 2))


@dataclass(frozen=True, kw_only=True)
class LinearSchedule(_VariancePreserving):
    """β(t) = β_min + t (β_max - β_min), log α = -½ ∫ β.

    Source: Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021,
    appendix C; the limit of Ho, Jain & Abbeel's (NeurIPS 2020) for many steps.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        _rising(self.beta_min, self.beta_max)

    def log_alpha(self, t: Tensor, /) -> Tensor:
        """log α, at most 0."""
        t = t.to(torch.float64)
        return -0.5 * t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))

    def log_alpha_dot(self, t: Tensor, /) -> Tensor:
        """-β / 2."""
        return -0.5 * (self.beta_min + t.to(torch.float64) * (self.beta_max - self.beta_min))

    def _time_of_log_alpha(self, log_alpha: Tensor, /) -> Tensor:
        # The root of ½ (β_max - β_min) t² + β_min t = -2 log α in the form that does not cancel.
        whole = -2 * log_alpha
        return 2 * whole / (self.beta_min + (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * whole).sqrt())


@dataclass(frozen=True, kw_only=True)
class ScaledLinearSchedule(_VariancePreserving):
    """√β(t) = √β_min + t (√β_max - √β_min): Rombach et al.'s (latent diffusion, CVPR 2022), continuous."""

    beta_min: float = 0.85
    beta_max: float = 12.0

    def __post_init__(self) -> None:
        _rising(self.beta_min, self.beta_max)

    @property
    def _line(self) -> tuple[float, float]:
        low = math.sqrt(self.beta_min)
        return low, math.sqrt(self.beta_max) - low

    def log_alpha(self, t: Tensor, /) -> Tensor:
        """log α, at most 0."""
        (a, b), t = self._line, t.to(torch.float64)
        return -0.5 * t * (a**2 + t * (a * b + t * b**2 / 3))

    def log_alpha_dot(self, t: Tensor, /) -> Tensor:
        """-β / 2."""
        a, b = self._line
        return -0.5 * (a + b * t.to(torch.float64)) ** 2

    def _time_of_log_alpha(self, log_alpha: Tensor, /) -> Tensor:
        # (a + b t)³ = a³ - 6 b log α
        a, b = self._line
        z = -6 * b * log_alpha / a**3
        return a * torch.expm1(torch.log1p(z) / 3) / b


@dataclass(frozen=True, kw_only=True)
class CosineSchedule(_VariancePreserving):
    """α = cos(π/2 (t + s) / (1 + s)) / cos(π/2 s / (1 + s)): at t = 1 nothing of the image is left.

    Source: Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", ICML 2021, equation 17. Without
    their ceiling on β, which only discrete steps need.
    """

    offset: float = 0.008

    def __post_init__(self) -> None:
        if not 0 <= self.offset < math.inf:
            raise InputError(f"offset must be at least 0, got {self.offset}")

    def _angle(self, t: Tensor) -> Tensor:
        return (t.to(torch.float64) + self.offset) / (1 + self.offset) * (math.pi / 2)

    @property
    def _first(self) -> float:
        return math.log(math.cos(self.offset / (1 + self.offset) * math.pi / 2))

    def log_alpha(self, t: Tensor, /) -> Tensor:
        """log α, at most 0; -∞ at t = 1."""
        angle = self._angle(t)
        cosine = torch.where(t.to(torch.float64) >= 1, 0.0, angle.cos())
        return torch.where(t.to(torch.float64) <= 0, 0.0, cosine.log() - self._first)

    def log_alpha_dot(self, t: Tensor, /) -> Tensor:
        """-π/2 tan(π/2 (t + s) / (1 + s)) / (1 + s)."""
        return -(math.pi / 2) / (1 + self.offset) * self._angle(t).tan()

    def _time_of_log_alpha(self, log_alpha: Tensor, /) -> Tensor:
        angle = torch.arccos((log_alpha + self._first).exp())
        return angle / (math.pi / 2) * (1 + self.offset) - self.offset


@dataclass(frozen=True, kw_only=True)
class KarrasSchedule:
    """VE: α = 1, σ(t) = (σ_min^(1/ρ) + t (σ_max^(1/ρ) - σ_min^(1/ρ)))^ρ (see `karras_sigmas`)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        _levels(self.sigma_min, self.sigma_max)
        if not 0 < self.rho < math.inf:
            raise InputError(f"rho must be positive and finite, got {self.rho}")

    @property
    def _line(self) -> tuple[float, float]:
        low = self.sigma_min ** (1 / self.rho)
        return low, self.sigma_max ** (1 / self.rho) - low

    def alpha(self, t: Tensor, /) -> Tensor:
        """1."""
        return torch.ones_like(t, dtype=torch.float64)

    def alpha_dot(self, t: Tensor, /) -> Tensor:
        """0."""
        return torch.zeros_like(t, dtype=torch.float64)

    def sigma(self, t: Tensor, /) -> Tensor:
        """σ_min … σ_max."""
        a, b = self._line
        return (a + b * t.to(torch.float64)) ** self.rho

    def sigma_dot(self, t: Tensor, /) -> Tensor:
        """dσ/dt."""
        a, b = self._line
        return self.rho * b * (a + b * t.to(torch.float64)) ** (self.rho - 1)

    def level(self, t: Tensor, /) -> Tensor:
        """σ."""
        return self.sigma(t)

    def time(self, level: Tensor, /) -> Tensor:
        """The t of a level."""
        a, b = self._line
        return (level.to(torch.float64) ** (1 / self.rho) - a) / b


@dataclass(frozen=True, kw_only=True)
class LogSNRUniformSchedule:
    """VE: α = 1, log σ a line in t: the logarithm of the signal to noise falls evenly."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        _levels(self.sigma_min, self.sigma_max)

    @property
    def _ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Tensor, /) -> Tensor:
        """1."""
        return torch.ones_like(t, dtype=torch.float64)

    def alpha_dot(self, t: Tensor, /) -> Tensor:
        """0."""
        return torch.zeros_like(t, dtype=torch.float64)

    def sigma(self, t: Tensor, /) -> Tensor:
        """σ_min … σ_max."""
        return self.sigma_min * (self._ratio * t.to(torch.float64)).exp()

    def sigma_dot(self, t: Tensor, /) -> Tensor:
        """dσ/dt."""
        return self._ratio * self.sigma(t)

    def level(self, t: Tensor, /) -> Tensor:
        """σ."""
        return self.sigma(t)

    def time(self, level: Tensor, /) -> Tensor:
        """The t of a level."""
        return (level.to(torch.float64) / self.sigma_min).log() / self._ratio


@dataclass(frozen=True, eq=False)
class DiscreteSchedule(_VariancePreserving):
    """VP, from the ᾱ of T training steps: t is the step, from 0 to T - 1, and may lie between two of them.

    Between steps log α is a line; below the first step it is that line carried on to α = 1.

    Args:
        alphas_bar: (T,), falling, in [0, 1); the last alone may be 0.

    Raises:
        InputError: not so.
    """

    alphas_bar: Float[Tensor, " t"]

    def __post_init__(self) -> None:
        given = self.alphas_bar
        if given.ndim != 1 or len(given) < 2:
            raise InputError(f"alphas_bar must be one row of two numbers or more, got shape {tuple(given.shape)}")
        if not (bool((given.diff() < 0).all()) and float(given[-2]) > 0 and float(given[-1]) >= 0 and given[0] < 1):
            raise InputError("alphas_bar must fall from step to step and lie in [0, 1), only the last may be 0")

    @property
    def _knots(self) -> Tensor:
        return 0.5 * self.alphas_bar.to(torch.float64).log()

    def _segment(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        knots = self._knots.to(index.device)
        left = index.clamp(0, len(knots) - 2)
        return left, knots[left], knots[left + 1] - knots[left]

    def log_alpha(self, t: Tensor, /) -> Tensor:
        """log α, at most 0."""
        t = t.to(torch.float64)
        left, begin, rise = self._segment(t.floor().long())
        share = t - left
        return torch.where(share == 0, begin, begin + share * rise).clamp(max=0)

    def log_alpha_dot(self, t: Tensor, /) -> Tensor:
        """Of the segment to the right."""
        return self._segment(t.to(torch.float64).floor().long())[2]

    def _time_of_log_alpha(self, log_alpha: Tensor, /) -> Tensor:
        falling = -self._knots.to(log_alpha.device)
        index = torch.searchsorted(falling, -log_alpha.contiguous(), right=True) - 1
        left, begin, rise = self._segment(index)
        last = torch.full_like(log_alpha, len(falling) - 1.0)
        inside = torch.where(rise.isinf(), left.to(torch.float64), left + (log_alpha - begin) / rise)
        return torch.where(log_alpha.isinf(), last, inside)


def linear_alphas_bar(num_train: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Float[Tensor, " t"]:
    """ᾱ_t = Π (1 - β), β from `beta_start` to `beta_end` in equal steps: Ho, Jain & Abbeel, NeurIPS 2020."""
    return (1 - torch.linspace(beta_start, beta_end, num_train, dtype=torch.float64)).cumprod(0)


def scaled_linear_alphas_bar(
    num_train: int, beta_start: float = 8.5e-4, beta_end: float = 0.012
) -> Float[Tensor, " t"]:
    """ᾱ_t = Π (1 - β), √β in equal steps: Rombach et al., CVPR 2022."""
    return (1 - torch.linspace(beta_start**0.5, beta_end**0.5, num_train, dtype=torch.float64) ** 2).cumprod(0)


def cosine_alphas_bar(num_train: int, offset: float = 0.008, most: float = 0.999) -> Float[Tensor, " t"]:
    """ᾱ_t = Π (1 - β), β = min(most, 1 - α²((t+1)/T) / α²(t/T)) of `CosineSchedule`: Nichol & Dhariwal, ICML 2021."""
    alpha = CosineSchedule(offset=offset).alpha(torch.linspace(0, 1, num_train + 1, dtype=torch.float64))
    return (1 - (1 - (alpha[1:] / alpha[:-1]) ** 2).clamp(max=most)).cumprod(0)


def _rising(low: float, high: float) -> None:
    if not 0 < low < high < math.inf:
        raise InputError(f"beta must rise, 0 < beta_min < beta_max, got {low} and {high}")


def _levels(low: float, high: float) -> None:
    if not 0 < low < high < math.inf:
        raise InputError(f"levels must satisfy 0 < sigma_min < sigma_max < inf, got {low} and {high}")

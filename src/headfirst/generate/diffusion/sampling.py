"""How images are drawn from a denoiser: which method, in how many steps, with how much guidance.

What enters: a denoiser, noise and levels. What leaves: images. Shape letters: N images, M levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError, did_you_mean
from headfirst.generate.diffusion._standin import dpm_pp_2m, karras_sigmas

METHODS: dict[str, Callable[..., Tensor]] = {
    "dpm_pp_2m": dpm_pp_2m,
}
"""Name → sampler."""
RANDOM = ("ddpm", "reverse_sde", "consistency")
"""Those that draw noise on the way, whatever else is asked."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A way to draw images.

    Attributes:
        method: a name in `METHODS`.
        num_steps: levels of noise; most methods ask the network once at each.
        guidance: w of `guided`; 1 is the class as it is.
        rescale: φ of `guided`.
        interval: levels (low, high] at which to guide; None is all of them.
        eta: of ddim, the share of DDPM's noise; 0 draws none.
        churn: of heun, S_churn of Karras et al., NeurIPS 2022, algorithm 2; 0 draws none.
        rho: of the levels (`karras_sigmas`).

    Raises:
        InputError: an unknown method, or a number that cannot be.
    """

    method: str = "dpm_pp_2m"
    num_steps: int = 20
    guidance: float = 1.0
    rescale: float = 0.0
    interval: tuple[float, float] | None = None
    eta: float = 0.0
    churn: float = 0.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(
                f"the sampler {self.method!r} is none of {', '.join(METHODS)}{did_you_mean(self.method, METHODS)}"
            )
        if isinstance(self.num_steps, bool) or not isinstance(self.num_steps, int) or self.num_steps < 1:
            raise InputError(f"num_steps must be a whole number of at least 1, got {self.num_steps}")
        if not math.isfinite(self.guidance) or not 0 <= self.rescale <= 1 or not 0 < self.rho < math.inf:
            raise InputError(
                f"guidance must be finite, rescale lie in [0, 1] and rho be positive, got {self.guidance}, "
                f"{self.rescale} and {self.rho}"
            )
        if self.interval is not None:
            object.__setattr__(self, "interval", tuple(self.interval))  # a list, from JSON
            if len(self.interval) != 2 or not 0 <= self.interval[0] < self.interval[1]:
                raise InputError(f"interval must be two levels, 0 <= low < high, got {self.interval}")
        for name, of, value in (("eta", "ddim", self.eta), ("churn", "heun", self.churn)):
            if not 0 <= value < math.inf or (value and self.method != of):
                raise InputError(f"{name} must be at least 0 and is {of}'s alone, got {value} with {self.method}")

    @property
    def random(self) -> bool:
        """Whether noise is drawn on the way."""
        return self.method in RANDOM or self.eta > 0 or self.churn > 0

    def sigmas(self, sigma_min: float, sigma_max: float) -> Float[Tensor, " m"]:
        """The levels, M = num_steps + 1, the last of them 0; float64."""
        levels = karras_sigmas(self.num_steps, sigma_min, sigma_max, self.rho)
        return torch.cat([levels, levels.new_zeros(1)])

    def run(
        self,
        denoiser: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        sigmas: Float[Tensor, " m"],
        *,
        generator: Sequence[torch.Generator] | torch.Generator | None = None,
    ) -> Tensor:
        """What the method makes of `x`, which is at level sigmas[0]."""
        method = METHODS[self.method]
        if self.method == "ddim" and self.eta:
            method = partial(method, eta=self.eta)
        if self.method == "heun" and self.churn:
            method = partial(method, churn=self.churn)
        return method(denoiser, x, sigmas, generator=generator)

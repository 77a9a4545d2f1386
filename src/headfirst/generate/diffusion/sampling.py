"""How images are drawn from a denoiser: which method, in how many steps, with how much guidance.

What enters: a denoiser, noise and levels. What leaves: images. Shape letters: N images, M levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError, did_you_mean
from headfirst.generate.diffusion import samplers
from headfirst.generate.diffusion.levels import karras_sigmas, to_zero
from headfirst.generate.diffusion.noise import ON_THE_WAY, Streams, streams
from headfirst.generate.diffusion.samplers.stepping import FEWEST
from headfirst.types import Denoiser

METHODS: dict[str, Callable[..., Tensor]] = {
    name: getattr(samplers, name) for name in samplers.__all__ if name not in ("AdaptiveSample", "adaptive")
}
"""Name → sampler."""
EVALUATIONS: dict[str, Callable[[int], int]] = {
    "heun": lambda n: 2 * n - 1,
    "heun_churn": lambda n: 2 * n - 1,
    "dpm_solver_2": lambda n: 2 * n - 1,
    "dpm_solver_3": lambda n: 3 * n - 2,
    "dpm_solver_3m": lambda n: n + (n >= FEWEST),
    "dpm_pp_3m": lambda n: n + (n >= FEWEST),
    "plms": lambda n: n + 2 * (n >= FEWEST),
    "pndm": lambda n: n + 3 * min(n - 1, 3),
}
"""How often a method asks the denoiser in n steps, the last of which ends at 0; those left out, n times."""
RANDOM = ("consistency", "ddpm", "heun_churn", "reverse_sde")
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
        churn: of heun_churn, its S_churn.
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
    churn: float = 40.0
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
        if self.interval is not None and not 0 <= self.interval[0] < self.interval[1]:
            raise InputError(f"interval must be two levels, 0 <= low < high, got {self.interval}")
        if not 0 <= self.eta <= 1 or (self.eta and self.method != "ddim") or not 0 <= self.churn < math.inf:
            raise InputError(
                "eta must lie in [0, 1] and is ddim's alone, and churn be at least 0, got "
                f"{self.eta} and {self.churn} with {self.method}"
            )

    @property
    def random(self) -> bool:
        """Whether noise is drawn on the way."""
        return self.method in RANDOM or self.eta > 0

    @property
    def num_evaluations(self) -> int:
        """Calls of the denoiser for an image; a guided one asks the network twice."""
        return EVALUATIONS.get(self.method, int)(self.num_steps)

    def sigmas(self, sigma_min: float, sigma_max: float) -> Float[Tensor, " m"]:
        """The levels, M = num_steps + 1, the last of them 0; float64.

        A consistency function is the identity at σ_min: consistency leaves that level out.
        """
        if self.method == "consistency":
            return to_zero(karras_sigmas(self.num_steps + 1, sigma_min, sigma_max, self.rho)[:-1])
        return to_zero(karras_sigmas(self.num_steps, sigma_min, sigma_max, self.rho))

    def run(self, denoiser: Denoiser, x: Tensor, sigmas: Float[Tensor, " m"], *, generator: Streams = None) -> Tensor:
        """What the method makes of `x`, which is at level sigmas[0]."""
        own = {"ddim": {"eta": self.eta}, "heun_churn": {"churn": self.churn}}.get(self.method, {})
        return METHODS[self.method](denoiser, x, sigmas, generator=generator, **own)

    def draw(
        self,
        denoiser: Denoiser,
        noise: Float[Tensor, "n ..."],
        sigma_min: float,
        sigma_max: float,
        *,
        seed: int = 0,
        indices: Sequence[int] | None = None,
    ) -> Float[Tensor, "n ..."]:
        """x₀ that the method makes of standard normal noise, float64.

        Args:
            seed, indices: (N,) of the images, 0 … N - 1 if None: the key of what each draws on the way.
        """
        sigmas = self.sigmas(sigma_min, sigma_max).to(noise.device)
        places = range(len(noise)) if indices is None else indices
        own = streams(seed, places, ON_THE_WAY) if self.random else None
        return self.run(denoiser, sigmas[0] * noise.double(), sigmas, generator=own)

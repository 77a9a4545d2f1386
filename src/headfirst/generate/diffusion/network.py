"""The network of a diffusion model: images and levels of noise in, the best guess of the images out.

What enters: x = x0 + σ · noise, x0 in [-1, 1]. What leaves: x0, as far as it can be told; or, from noise alone, images.

Shape letters: N images, C channels, S pixels a side, Z = C · S · S, A numbers of an augmentation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headfirst.errors import InputError
from headfirst.generate.diffusion.guidance import guided
from headfirst.generate.diffusion.parameterisations import preconditioning
from headfirst.generate.diffusion.sampling import Sampling
from headfirst.generate.generator import NETWORKS
from headfirst.nn import DiTShape, MLPShape, UNetShape
from headfirst.types import Denoiser

SIDES = (8, 64)
"""Smallest and largest side of an image."""
_LEAST_TOLD = -20.0  # of c_noise, which no level ends in
SHAPES = {shape.name: shape for shape in (UNetShape, DiTShape, MLPShape)}


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """What a student was taught that its teacher is not.

    Attributes:
        boundary: level at which D is x exactly (`preconditioned`): σ_min of a consistency function, else 0.
        guidance: least and greatest w of `guided` that it imitates in one evaluation. Where they differ the network is
            told which.

    Raises:
        InputError: numbers that cannot be.
    """

    boundary: float = 0.0
    guidance: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        low, high = self.guidance
        if not 0 <= self.boundary < math.inf or not -math.inf < low <= high < math.inf:
            raise InputError(
                f"boundary must be at least 0 and guidance two finite numbers, the first not above the second, got "
                f"{self.boundary} and {self.guidance}"
            )

    @property
    def told(self) -> bool:
        """Whether the network is told w."""
        return self.guidance[0] < self.guidance[1]

    def share(self, weight: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """w in [low, high] as the network is told it: in [0, 1]."""
        low, high = self.guidance
        return (weight - low) / (high - low)

    def require(self, weight: float) -> None:
        """Refuse a w that was not taught.

        Raises:
            InputError: naming what was.
        """
        low, high = self.guidance
        if not low <= weight <= high:
            taught = f"from {low:g} to {high:g}" if self.told else f"{low:g} alone"
            raise InputError(f"the student was distilled for guidance {taught}, got {weight:g}; distil another")


class DiffusionNetwork(nn.Module):
    """A denoiser with classes, and the way its images are drawn.

    Args:
        size, channels: S, a multiple of 4 in 8 … 64, and C, 1 or 3; any of an `MLPShape`.
        num_classes: K; 0 without.
        shape: `UNetShape(…)`, `DiTShape(…)` or `MLPShape(…)`.
        mean, sigma_data: of the pixels of the images, in [-1, 1]. The preconditioning is about the mean.
        sigma_min, sigma_max: least and largest level of noise that images are drawn from.
        sampling: how images are drawn where nothing else is asked.
        num_augmentation: A; 0 for a network that was shown images as they are.
        distilled: what a student of another network was taught.

    Attributes:
        config: what builds it again.
        noise_dim, x_shape: Z and (C, S, S).
        sample_batch: images that are drawn at once, always.

    Raises:
        InputError: numbers that cannot be.
    """

    sample_batch = 16

    def __init__(
        self,
        *,
        size: int,
        channels: int,
        num_classes: int,
        shape: UNetShape | DiTShape | MLPShape,
        mean: float = 0.0,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        sampling: Sampling | None = None,
        num_augmentation: int = 0,
        distilled: Distilled | None = None,
    ) -> None:
        super().__init__()
        drawable = size % 4 == 0 and SIDES[0] <= size <= SIDES[1] and channels in (1, 3)
        flat = isinstance(shape, MLPShape) and min(size, channels) >= 1
        if not (drawable or flat) or num_classes < 0:
            raise InputError(
                f"images must have 1 or 3 channels and a side that is a multiple of 4 from {SIDES[0]} to {SIDES[1]}, "
                f"and num_classes be at least 0, got {channels}, {size} and {num_classes}; give another size"
            )
        if not math.isfinite(mean) or not 0 < sigma_data < math.inf or not 0 < sigma_min < sigma_max < math.inf:
            raise InputError(
                "mean must be finite, sigma_data positive and 0 < sigma_min < sigma_max, got "
                f"{mean}, {sigma_data}, {sigma_min} and {sigma_max}"
            )
        self.size, self.channels, self.num_classes, self.noise_dim = size, channels, num_classes, channels * size**2
        self.x_shape = (channels, size, size)
        self.mean, self.sigma_data, self.sigma_min, self.sigma_max = mean, sigma_data, sigma_min, sigma_max
        self.sampling, self.distilled = sampling or Sampling(), distilled
        self.config: dict[str, Any] = {
            "size": size,
            "channels": channels,
            "num_classes": num_classes,
            "shape": {"name": shape.name, **_lists(asdict(shape))},
            "mean": mean,
            "sigma_data": sigma_data,
            "sigma_min": sigma_min,
            "sigma_max": sigma_max,
            "sampling": _lists(asdict(self.sampling)),
            "num_augmentation": num_augmentation,
            **({"distilled": _lists(asdict(distilled))} if distilled else {}),
        }
        self.inner = shape.build(
            size=size, channels=channels, num_classes=num_classes, num_augmentation=num_augmentation
        )

    @classmethod
    def from_config(
        cls,
        *,
        shape: Mapping[str, Any],
        sampling: Mapping[str, Any],
        distilled: Mapping[str, Any] | None = None,
        **numbers: Any,
    ) -> DiffusionNetwork:
        """The network whose `config` this is, untrained.

        Raises:
            KeyError: no such shape.
        """
        built = SHAPES[shape["name"]](**{k: v for k, v in _tuples(shape).items() if k != "name"})
        taught = Distilled(**_tuples(distilled)) if distilled else None
        return cls(shape=built, sampling=Sampling(**_tuples(sampling)), distilled=taught, **numbers)

    def student(self, *, sampling: Sampling, distilled: Distilled, **changes: Any) -> DiffusionNetwork:
        """A network of the same weights, in memory of its own, that is drawn from and told in another way."""
        about = {"sampling": asdict(sampling), "distilled": asdict(distilled), **changes}
        pupil = DiffusionNetwork.from_config(**{**self.config, **about}).to(next(self.parameters()).dtype)
        pupil.load_state_dict(self.state_dict())
        return pupil

    def x0(self, images: Float[Tensor, "n c s s"], labels: Int[Tensor, " n"] | None) -> Float[Tensor, "n c s s"]:
        """What the denoiser is to find of images in [0, 1]: the same in [-1, 1]."""
        return 2 * images - 1

    def denoise(
        self,
        x: Float[Tensor, "n c s s"],
        sigma: Float[Tensor, " n"],
        labels: Int[Tensor, " n"] | None,
        extra: Float[Tensor, " n"] | None = None,
        augmentation: Float[Tensor, "n a"] | None = None,
    ) -> Float[Tensor, "n c s s"]:
        """D(x; σ), a level for each image, in the type of `x`; the network computes in its own.

        At σ = 0, or at the boundary of a consistency function, D is x.

        Args:
            labels: in 0 … K, where K is "no class"; None is that for all.
            extra, augmentation: see `headfirst.nn.conditioning`.
        """
        own = next(self.inner.parameters()).dtype
        boundary = self.distilled.boundary if self.distilled else 0.0
        *scales, c_noise = preconditioning(sigma.to(x.dtype), self.sigma_data, boundary)
        c_skip, c_out, c_in = (c[:, None, None, None] for c in scales)
        centred = x - self.mean
        told = c_noise.clamp_min(_LEAST_TOLD).to(own)
        F = self.inner((c_in * centred).to(own), told, labels, extra, augmentation)
        return self.mean + c_skip * centred + c_out * F.to(x.dtype)

    def denoiser(
        self,
        labels: Int[Tensor, " n"] | None = None,
        *,
        guidance: float = 1.0,
        rescale: float = 0.0,
        interval: tuple[float, float] | None = None,
    ) -> Denoiser:
        """A `Denoiser`, what samplers ask for: D of these classes, guided by w = `guidance` (see `guided`).

        A student is told w and asked once.

        Raises:
            InputError: guidance of a network without classes; one that a student was not taught.
        """
        if self.distilled:
            return self._student_denoiser(self.distilled, labels, guidance, rescaled=bool(rescale or interval))

        def conditional(x: Tensor, sigma: Tensor) -> Tensor:
            return self.denoise(x, sigma.expand(len(x)), labels)

        def unconditional(x: Tensor, sigma: Tensor) -> Tensor:
            return self.denoise(x, sigma.expand(len(x)), None)

        if guidance == 1:
            return conditional
        if labels is None or not self.num_classes:
            raise InputError(
                f"guidance {guidance:g} needs classes, and the model has none or none is asked for; leave it at 1"
            )
        return guided(conditional, unconditional, guidance, rescale=rescale, interval=interval or (0.0, math.inf))

    def _student_denoiser(
        self, distilled: Distilled, labels: Tensor | None, weight: float, *, rescaled: bool
    ) -> Denoiser:
        distilled.require(weight)
        if rescaled:
            raise InputError("rescale and interval are of guidance by two evaluations, and a student makes one")

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            told = distilled.share(torch.full((len(x),), weight, device=x.device)) if distilled.told else None
            return self.denoise(x, sigma.expand(len(x)), labels, told)

        return denoise

    def draw(
        self,
        noise: Float[Tensor, "n z"],
        labels: Int[Tensor, " n"] | None,
        sampling: Sampling | None = None,
        *,
        seed: int = 0,
        indices: Sequence[int] | None = None,
    ) -> Float[Tensor, "n c s s"]:
        """Images in [0, 1] of standard normal noise.

        Args:
            sampling: None is the network's own.
            seed, indices: (N,) of the images, 0 … N - 1 if None: the key of what each draws on the way.
        """
        return ((self.path_end(noise, labels, sampling, seed=seed, indices=indices) + 1) / 2).clamp(0, 1)

    def path_end(
        self,
        noise: Float[Tensor, "n z"],
        labels: Int[Tensor, " n"] | None,
        sampling: Sampling | None = None,
        *,
        seed: int = 0,
        indices: Sequence[int] | None = None,
    ) -> Float[Tensor, "n c s s"]:
        """x₀ that the sampler comes to, float64; arguments as in `draw`."""
        how = sampling or self.sampling
        denoiser = self.denoiser(labels, guidance=how.guidance, rescale=how.rescale, interval=how.interval)
        noise = noise.unflatten(1, self.x_shape)
        return how.draw(denoiser, noise, self.sigma_min, self.sigma_max, seed=seed, indices=indices)

    def forward(self, noise: Float[Tensor, "n z"], labels: Int[Tensor, " n"] | None) -> Float[Tensor, "n c s s"]:
        """Images in [0, 1] of standard normal noise, drawn as `sampling` says."""
        return self.draw(noise, labels)


def _lists(about: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in about.items()}


def _tuples(about: Mapping[str, Any]) -> dict[str, Any]:
    """As it was before JSON."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in about.items()}


NETWORKS["diffusion"] = DiffusionNetwork.from_config

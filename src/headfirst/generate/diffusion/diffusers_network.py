"""A `diffusers` model as a denoiser: images and levels of noise in, the guess of the images out.

What enters: the two configurations and the weights. What leaves: x0 of x = x0 + σ · noise, or images from noise.

Shape letters: N images, C channels, S pixels a side, Z = C · S · S.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headfirst.errors import InputError
from headfirst.generate.diffusion.diffusers_scheduler import read_scheduler
from headfirst.generate.diffusion.levels import vp_sigmas
from headfirst.generate.diffusion.parameterisations import vp_denoiser
from headfirst.generate.diffusion.sampling import Sampling
from headfirst.generate.diffusion.schedules import DiscreteSchedule
from headfirst.nn.diffusers_unet import DiffusersUNet, DiffusersUNetShape
from headfirst.types import Denoiser

SAMPLING = Sampling(method="dpm_pp_2m", num_steps=25)
"""How images are drawn where nothing else is asked; its levels lie over all of the schedule."""
PIPELINE: dict[str, Any] = {
    "_class_name": "DDPMPipeline",
    "scheduler": ["diffusers", "DDPMScheduler"],
    "unet": ["diffusers", "UNet2DModel"],
}
"""model_index.json of the simplest pipeline."""

_NAMES = {"epsilon": "epsilon (the noise)", "x0": "sample (the image)", "v": "v_prediction", "score": "the score"}


class DiffusersNetwork(nn.Module):
    """A UNet2DModel and what its scheduler says of it.

    Args:
        unet, scheduler, pipeline: as in unet/config.json, scheduler/scheduler_config.json and model_index.json.
        dtype: of the weights on disk; the network computes in float32.

    Attributes:
        config: what builds it again.
        noise_dim: Z.
        sample_batch: images that are drawn at once, always.
        num_classes: K; 0 without.
        sigma_min, sigma_max: the levels of the first and the last training step at which there is an image.

    Raises:
        InputError: a network or a schedule that cannot be built, or images that are not square.
    """

    sample_batch = 16

    def __init__(
        self,
        *,
        unet: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        pipeline: Mapping[str, Any] = PIPELINE,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "unet": dict(unet),
            "scheduler": dict(scheduler),
            "pipeline": dict(pipeline),
            "dtype": dtype,
        }
        self.about = read_scheduler(scheduler)
        shape = DiffusersUNetShape.from_config(unet)
        size = shape.sample_size
        if isinstance(size, tuple) and len(set(size)) == 1:
            size = size[0]
        if not isinstance(size, int) or size < 1:
            raise InputError(f"sample_size must be the side of square images, got {shape.sample_size}; set it in unet")
        self.size, self.channels, self.num_classes = size, shape.in_channels, shape.num_class_embeds or 0
        self.noise_dim, self.x_shape = self.channels * size**2, (self.channels, size, size)
        self._check_channels(shape)
        self.unet = DiffusersUNet(shape)
        schedule = self.about.schedule
        last = len(schedule.alphas_bar) - 1
        ends = schedule.level(torch.tensor([0, last if schedule.alphas_bar[-1] > 0 else last - 1]))
        self.sigma_min, self.sigma_max = float(ends[0]), float(ends[1])

    def _check_channels(self, shape: DiffusersUNetShape) -> None:
        expected = shape.in_channels * (2 if self.about.learned_variance else 1)
        if shape.out_channels != expected or shape.in_channels not in (1, 3):
            raise InputError(
                f"the scheduler declares {'a learned' if self.about.learned_variance else 'no learned'} variance, so a "
                f"network of {shape.in_channels} channels (1 or 3) must return {expected}, got {shape.out_channels}"
            )

    def predict(
        self, x: Float[Tensor, "n c s s"], t: Float[Tensor, " n"], labels: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n c s s"]:
        """What the network predicts of α x0 + σ · noise at training step t, which may lie between two."""
        own = self.unet.conv_in.weight.dtype
        return self.unet(x.to(own), t.to(own), labels)[:, : self.channels].to(x.dtype)

    def x0(self, images: Float[Tensor, "n c s s"], labels: Int[Tensor, " n"] | None) -> Float[Tensor, "n c s s"]:
        """What the denoiser is to find of images in [0, 1]: the same in [-1, 1]."""
        return 2 * images - 1

    def denoiser(self, labels: Int[Tensor, " n"] | None = None) -> Denoiser:
        """D(x; σ), kept in the range that the scheduler declares."""

        def network(x: Tensor, t: Tensor) -> Tensor:
            return self.predict(x, t, labels)

        denoise, clip = vp_denoiser(network, self.about.schedule, self.about.prediction), self.about.clip
        if clip is None:
            return denoise
        return lambda x, sigma: denoise(x, sigma).clamp(-clip, clip)

    def levels(self, num_steps: int) -> Float[Tensor, " m"]:
        """The levels that the scheduler would stop at, and a zero: `vp_sigmas` with its spacing."""
        sigmas = vp_sigmas(self.about.schedule.alphas_bar.clamp_min(1e-12), num_steps, self.about.spacing)
        return sigmas.clamp_max(self.sigma_max)

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
            sampling: None is `SAMPLING`.
            seed, indices: as in `Sampling.draw`.

        Raises:
            InputError: guidance: the network has no "no class" to be guided away from.
        """
        how = sampling or SAMPLING
        if how.guidance != 1:
            raise InputError(
                f"guidance needs a network that knows 'no class', a diffusers UNet2DModel does not; it must be 1, got "
                f"{how.guidance:g}"
            )
        noise = noise.unflatten(1, self.x_shape)
        x0 = how.draw(self.denoiser(labels), noise, self.sigma_min, self.sigma_max, seed=seed, indices=indices)
        return ((x0 + 1) / 2).clamp(0, 1)

    def forward(self, noise: Float[Tensor, "n z"], labels: Int[Tensor, " n"] | None) -> Float[Tensor, "n c s s"]:
        """Images in [0, 1] of standard normal noise."""
        return self.draw(noise, labels)


def require_declared(network: DiffusersNetwork) -> None:
    """Ask the network three times, and refuse it where its answers are not what its configuration declares.

    Raises:
        InputError: numbers that are not finite, or, plainly, another prediction (see `recognised`).
    """
    labels = torch.zeros(1, dtype=torch.long) if network.num_classes else None
    declared, shape = network.about.prediction, (1, network.channels, network.size, network.size)

    def predict(x: Tensor, t: Tensor) -> Tensor:
        out = network.predict(x, t, labels)
        if not bool(out.isfinite().all()):
            raise InputError(
                f"the network must return finite numbers, at step {float(t):g} it does not; is it damaged?"
            )
        return out

    with torch.inference_mode():
        found = recognised(predict, network.about.schedule, shape)
    if found not in (None, declared):
        raise InputError(
            f"the scheduler declares that the network predicts {_NAMES[declared]}, but what it says of noise and of "
            f"plain images is {_NAMES[found]}; correct prediction_type in scheduler_config.json"
        )


def recognised(
    predict: Callable[[Tensor, Tensor], Tensor], schedule: DiscreteSchedule, shape: tuple[int, ...]
) -> str | None:
    """What a trained network predicts, as far as three questions tell; None where they do not, as untrained ones.

    With b the slope of the answer on the noise that was shown: of noise alone, epsilon has b = 1, x0 and v have 0. Of a
    grey image with as much noise as image, v has b = α. Of a soft image with hardly any noise, x0 returns the image.
    """
    alphas_bar = schedule.alphas_bar
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(-0.6, 0.6, shape[-1]).expand(shape)
    last = len(alphas_bar) - 1
    half = int((alphas_bar - 0.5).abs().argmin())
    little = int((alphas_bar - 0.995).abs().argmin())

    def answer(image: Tensor, step: int) -> Tensor:
        t = torch.tensor([float(step)])
        alpha, sigma = schedule.alpha(t).float(), schedule.sigma(t).float()
        return predict(alpha * image + sigma * noise, t)

    def slope(out: Tensor, on: Tensor) -> float:
        return float((out * on).sum() / (on * on).sum())

    grey = torch.zeros(shape)
    of_noise, of_half, of_image = (
        slope(answer(grey, last), noise),
        slope(answer(grey, half), noise),
        slope(answer(ramp, little), ramp),
    )
    if 0.7 < of_noise < 1.3:
        return "epsilon"
    if abs(of_noise) < 0.3 and 0.3 < of_half < 1 and abs(of_image) < 0.5:
        return "v"
    if abs(of_noise) < 0.3 and abs(of_half) < 0.3 and 0.8 < of_image < 1.2:
        return "x0"
    return None

"""What a `diffusers` scheduler's configuration says of the network beside it: its noise, and what it predicts.

What enters: scheduler_config.json. What leaves: a schedule, a kind of prediction, and how guesses are kept in range.
How the scheduler would have stepped is not read: the samplers here do that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headfirst.errors import InputError, did_you_mean
from headfirst.generate.diffusion.levels import SPACINGS, zero_terminal_snr
from headfirst.generate.diffusion.schedules import (
    DiscreteSchedule,
    cosine_alphas_bar,
    linear_alphas_bar,
    scaled_linear_alphas_bar,
)

_USUAL = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
_CLIPPED = {**_USUAL, "clip_sample": True, "timestep_spacing": "leading"}
_EVEN = {**_USUAL, "timestep_spacing": "linspace"}
_LATENT = {**_EVEN, "beta_start": 8.5e-4, "beta_end": 0.012}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "DDPMScheduler": _CLIPPED,
    "DDIMScheduler": _CLIPPED,
    "PNDMScheduler": {**_USUAL, "timestep_spacing": "leading"},
    "DPMSolverMultistepScheduler": _EVEN,
    "DPMSolverSinglestepScheduler": _EVEN,
    "DEISMultistepScheduler": _EVEN,
    "UniPCMultistepScheduler": _EVEN,
    "EulerDiscreteScheduler": _EVEN,
    "EulerAncestralDiscreteScheduler": _EVEN,
    "LMSDiscreteScheduler": _EVEN,
    "HeunDiscreteScheduler": _LATENT,
    "KDPM2DiscreteScheduler": _LATENT,
}
"""Schedulers of discrete VP steps, and their defaults, which a configuration may leave out."""
PREDICTION_TYPES: dict[str, str] = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v"}
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")


@dataclass(frozen=True, kw_only=True, eq=False)
class DiffusersScheduler:
    """`clip`: guesses of the image are kept in [-clip, clip]; None leaves them. `spacing`: of the levels it would take.

    `learned_variance`: the second half of the network's channels is a variance, which is not used here.
    """

    schedule: DiscreteSchedule
    prediction: str
    spacing: str
    clip: float | None
    learned_variance: bool


def read_scheduler(config: Mapping[str, Any]) -> DiffusersScheduler:
    """What a scheduler_config.json says.

    Raises:
        InputError: a scheduler without discrete VP steps, a schedule or prediction type that is not known, ᾱ that does
            not fall, or a setting that changes what the network is asked.
    """
    kind = config.get("_class_name")
    if kind not in SCHEDULERS:
        raise InputError(
            f"the scheduler must be one of {', '.join(SCHEDULERS)}, got {kind!r}{did_you_mean(str(kind), SCHEDULERS)}; "
            "others do not train on discrete variance-preserving steps"
        )
    said = {**SCHEDULERS[kind], **{k: v for k, v in config.items() if v is not None}}
    if said.get("thresholding"):
        raise InputError("the scheduler asks for dynamic thresholding, which is not done here; set thresholding false")
    if said.get("timestep_type", "discrete") != "discrete":
        raise InputError(f"timestep_type must be 'discrete', got {said['timestep_type']!r}; it needs another network")
    predicted = said.get("prediction_type", "epsilon")
    if predicted not in PREDICTION_TYPES:
        raise InputError(
            f"prediction_type must be one of {', '.join(PREDICTION_TYPES)}, got {predicted!r}"
            f"{did_you_mean(str(predicted), PREDICTION_TYPES)}"
        )
    spacing = said["timestep_spacing"]
    if spacing not in SPACINGS:
        raise InputError(f"timestep_spacing must be one of {', '.join(SPACINGS)}, got {spacing!r}")
    return DiffusersScheduler(
        schedule=DiscreteSchedule(_alphas_bar(said)),
        prediction=PREDICTION_TYPES[predicted],
        spacing=spacing,
        clip=float(said.get("clip_sample_range", 1.0)) if said.get("clip_sample", False) else None,
        learned_variance=str(said.get("variance_type", "")).startswith("learned"),
    )


def _alphas_bar(said: Mapping[str, Any]) -> Tensor:
    if "trained_betas" in said:
        betas = torch.tensor(said["trained_betas"], dtype=torch.float64)
        if betas.ndim != 1 or len(betas) != said["num_train_timesteps"]:
            raise InputError(
                f"trained_betas must be num_train_timesteps = {said['num_train_timesteps']} numbers, got "
                f"{tuple(betas.shape)}"
            )
        alphas_bar = (1 - betas).cumprod(0)
    else:
        num, ends = int(said["num_train_timesteps"]), (float(said["beta_start"]), float(said["beta_end"]))
        if said["beta_schedule"] not in BETA_SCHEDULES:
            raise InputError(
                f"beta_schedule must be one of {', '.join(BETA_SCHEDULES)}, or trained_betas be given, got "
                f"{said['beta_schedule']!r}{did_you_mean(str(said['beta_schedule']), BETA_SCHEDULES)}"
            )
        make = {
            "linear": lambda: linear_alphas_bar(num, *ends),
            "scaled_linear": lambda: scaled_linear_alphas_bar(num, *ends),
            "squaredcos_cap_v2": lambda: cosine_alphas_bar(num),
        }
        alphas_bar = make[said["beta_schedule"]]()
    return zero_terminal_snr(alphas_bar) if said.get("rescale_betas_zero_snr") else alphas_bar

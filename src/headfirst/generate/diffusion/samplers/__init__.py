"""Samplers: `sampler(denoiser, x, sigmas, *, generator=None)`, from x at `sigmas[0]` to x at `sigmas[-1]`."""

from headfirst.generate.diffusion.samplers.adaptive import AdaptiveSample, adaptive
from headfirst.generate.diffusion.samplers.consistency import consistency
from headfirst.generate.diffusion.samplers.dpm_pp import dpm_pp_2m, dpm_pp_3m
from headfirst.generate.diffusion.samplers.dpm_solver import (
    dpm_solver_1,
    dpm_solver_2,
    dpm_solver_2m,
    dpm_solver_3,
    dpm_solver_3m,
)
from headfirst.generate.diffusion.samplers.first_order import ddim, ddpm, euler, reverse_sde
from headfirst.generate.diffusion.samplers.heun import heun, heun_churn
from headfirst.generate.diffusion.samplers.linear_multistep import plms, pndm

__all__ = [
    "AdaptiveSample",
    "adaptive",
    "consistency",
    "ddim",
    "ddpm",
    "dpm_pp_2m",
    "dpm_pp_3m",
    "dpm_solver_1",
    "dpm_solver_2",
    "dpm_solver_2m",
    "dpm_solver_3",
    "dpm_solver_3m",
    "euler",
    "heun",
    "heun_churn",
    "plms",
    "pndm",
    "reverse_sde",
]

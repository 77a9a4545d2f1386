"""Diffusion models: noise levels, samplers, and all that is needed to prove what they do.

Everything here holds noisy images as x = x₀ + σ ε (variance exploding); a `Denoiser` guesses x₀ from x and σ.
"""

from headfirst.generate.diffusion.choice import Choice, Trial, choose_sampling, end_of_path, relative_errors
from headfirst.generate.diffusion.consistency_distillation import ConsistencyDistillation, consistency_distillation_loss
from headfirst.generate.diffusion.consistency_function import consistency_loss, pseudo_huber
from headfirst.generate.diffusion.consistency_training import ConsistencyTraining, consistency_training_loss
from headfirst.generate.diffusion.course import relative_error, require_teacher
from headfirst.generate.diffusion.diffusers_layout import load_diffusers, save_diffusers
from headfirst.generate.diffusion.diffusers_network import DiffusersNetwork, recognised
from headfirst.generate.diffusion.diffusers_scheduler import DiffusersScheduler, read_scheduler
from headfirst.generate.diffusion.editing import from_image, interpolate, invert, level_of_strength
from headfirst.generate.diffusion.guidance import guided
from headfirst.generate.diffusion.inpainting import inpainted
from headfirst.generate.diffusion.latent_network import LatentDiffusionNetwork
from headfirst.generate.diffusion.latent_recipe import LatentDiffusion
from headfirst.generate.diffusion.leakage_guard import Augmentation
from headfirst.generate.diffusion.levels import (
    alpha_bar_of_sigma,
    karras_sigmas,
    log_snr_uniform_sigmas,
    sigma_of_alpha_bar,
    spaced_timesteps,
    to_zero,
    vp_sigmas,
    zero_terminal_snr,
)
from headfirst.generate.diffusion.likelihood import Likelihood, log_likelihood
from headfirst.generate.diffusion.loss import diffusion_loss
from headfirst.generate.diffusion.mixture import GaussianMixture
from headfirst.generate.diffusion.network import DiffusionNetwork, Distilled
from headfirst.generate.diffusion.noise import normal_like, streams
from headfirst.generate.diffusion.ode import Solution, dormand_prince
from headfirst.generate.diffusion.one_step import euler_step, heun_step
from headfirst.generate.diffusion.parameterisations import (
    preconditioned,
    preconditioning,
    prediction_of,
    vp_denoiser,
    x0_from,
)
from headfirst.generate.diffusion.progressive import (
    ProgressiveDistillation,
    halved_levels,
    progressive_loss,
    progressive_target,
)
from headfirst.generate.diffusion.recipe import Diffusion
from headfirst.generate.diffusion.samplers import (
    AdaptiveSample,
    adaptive,
    consistency,
    ddim,
    ddpm,
    dpm_pp_2m,
    dpm_pp_3m,
    dpm_solver_1,
    dpm_solver_2,
    dpm_solver_2m,
    dpm_solver_3,
    dpm_solver_3m,
    euler,
    heun,
    heun_churn,
    plms,
    pndm,
    reverse_sde,
)
from headfirst.generate.diffusion.sampling import Sampling
from headfirst.generate.diffusion.schedules import (
    CosineSchedule,
    DiscreteSchedule,
    KarrasSchedule,
    LinearSchedule,
    LogSNRUniformSchedule,
    ScaledLinearSchedule,
    Schedule,
    cosine_alphas_bar,
    linear_alphas_bar,
    scaled_linear_alphas_bar,
)
from headfirst.generate.diffusion.training_levels import DrawnLevels, ImportanceLevels, LogNormalLevels
from headfirst.generate.diffusion.variational import (
    VariationalBound,
    denoiser_of_noisy,
    optimal_variances,
    variational_bound,
)
from headfirst.generate.diffusion.verification import OrderReading, not_finite, read_order
from headfirst.generate.diffusion.weighting import (
    EDMWeighting,
    MinSNRWeighting,
    SimpleWeighting,
    VelocityWeighting,
    Weighting,
)

__all__ = [
    "AdaptiveSample",
    "Augmentation",
    "Choice",
    "ConsistencyDistillation",
    "ConsistencyTraining",
    "CosineSchedule",
    "DiffusersNetwork",
    "DiffusersScheduler",
    "Diffusion",
    "DiffusionNetwork",
    "DiscreteSchedule",
    "Distilled",
    "DrawnLevels",
    "EDMWeighting",
    "GaussianMixture",
    "ImportanceLevels",
    "KarrasSchedule",
    "LatentDiffusion",
    "LatentDiffusionNetwork",
    "Likelihood",
    "LinearSchedule",
    "LogNormalLevels",
    "LogSNRUniformSchedule",
    "MinSNRWeighting",
    "OrderReading",
    "ProgressiveDistillation",
    "Sampling",
    "ScaledLinearSchedule",
    "Schedule",
    "SimpleWeighting",
    "Solution",
    "Trial",
    "VariationalBound",
    "VelocityWeighting",
    "Weighting",
    "adaptive",
    "alpha_bar_of_sigma",
    "choose_sampling",
    "consistency",
    "consistency_distillation_loss",
    "consistency_loss",
    "consistency_training_loss",
    "cosine_alphas_bar",
    "ddim",
    "ddpm",
    "denoiser_of_noisy",
    "diffusion_loss",
    "dormand_prince",
    "dpm_pp_2m",
    "dpm_pp_3m",
    "dpm_solver_1",
    "dpm_solver_2",
    "dpm_solver_2m",
    "dpm_solver_3",
    "dpm_solver_3m",
    "end_of_path",
    "euler",
    "euler_step",
    "from_image",
    "guided",
    "halved_levels",
    "heun",
    "heun_churn",
    "heun_step",
    "inpainted",
    "interpolate",
    "invert",
    "karras_sigmas",
    "level_of_strength",
    "linear_alphas_bar",
    "load_diffusers",
    "log_likelihood",
    "log_snr_uniform_sigmas",
    "normal_like",
    "not_finite",
    "optimal_variances",
    "plms",
    "pndm",
    "preconditioned",
    "preconditioning",
    "prediction_of",
    "progressive_loss",
    "progressive_target",
    "pseudo_huber",
    "read_order",
    "read_scheduler",
    "recognised",
    "relative_error",
    "relative_errors",
    "require_teacher",
    "reverse_sde",
    "save_diffusers",
    "scaled_linear_alphas_bar",
    "sigma_of_alpha_bar",
    "spaced_timesteps",
    "streams",
    "to_zero",
    "variational_bound",
    "vp_denoiser",
    "vp_sigmas",
    "x0_from",
    "zero_terminal_snr",
]

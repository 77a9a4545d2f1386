"""Diffusion models: training, and the samplers that draw images from them."""

from headfirst.generate.diffusion.leakage_guard import Augmentation
from headfirst.generate.diffusion.network import DiffusionNetwork, Preconditioning, preconditioning
from headfirst.generate.diffusion.recipe import Diffusion, diffusion_loss
from headfirst.generate.diffusion.sampling import Sampling
from headfirst.generate.diffusion.training_levels import DrawnLevels, ImportanceLevels, LogNormalLevels
from headfirst.generate.diffusion.weighting import (
    EDMWeighting,
    MinSNRWeighting,
    SimpleWeighting,
    VelocityWeighting,
    Weighting,
)

"""Generators: the losses, likelihoods and penalties of variational autoencoders and adversarial networks; what learns
from them, and what it makes."""

from headfirst.generate.adversarial_game import (Game, HINGE, LEAST_SQUARES, Losses, NON_SATURATING, RELATIVISTIC, Round, Rules, SATURATING, play)
from headfirst.generate.collapse import (GameReading)
from headfirst.generate.gan import (GAN)
from headfirst.generate.generator import (Generator, load_generator)
from headfirst.generate.grid import (GridGAN, GridReading, GridResult, grid_mode, grid_points, read_grid)
from headfirst.generate.latent_space import (LatentDiagnostics, latent_diagnostics, linear_path, spherical_path, traverse)
from headfirst.generate.likelihood_classifier import (LikelihoodClassifier, LikelihoodModel)
from headfirst.generate.pictures import (Pictures, pictures)
from headfirst.generate.vae import (VAE)
from headfirst.generate.vae_bound import (EvidenceBound, Posterior, bound, decode, elbo, encode)
from headfirst.nn import (BernoulliDecoder, DiscretisedLogisticDecoder, DiscriminatorReading, GaussianDecoder, GaussianLatent, ImportanceBound, LogisticLatent, bernoulli_log_likelihood, discretised_logistic_log_likelihood, discriminator_loss, free_bits, gaussian_kl, gaussian_kl_per_dimension, gaussian_log_likelihood, gradient_ratio, hinge_discriminator_loss, hinge_generator_loss, importance_weighted_bound, least_squares_discriminator_loss, least_squares_generator_loss, logistic_kl, logistic_log_density, logistic_sample, non_saturating_loss, r1_penalty, r2_penalty, read_discriminator, relativistic_discriminator_loss, relativistic_generator_loss, reparameterised, saturating_loss)
from headfirst.nn.gan_network import (PointDiscriminator, PointGenerator)

__all__ = [
    "BernoulliDecoder",
    "DiscretisedLogisticDecoder",
    "DiscriminatorReading",
    "EvidenceBound",
    "GAN",
    "Game",
    "GameReading",
    "GaussianDecoder",
    "GaussianLatent",
    "Generator",
    "GridGAN",
    "GridReading",
    "GridResult",
    "HINGE",
    "ImportanceBound",
    "LEAST_SQUARES",
    "LatentDiagnostics",
    "LikelihoodClassifier",
    "LikelihoodModel",
    "LogisticLatent",
    "Losses",
    "NON_SATURATING",
    "Pictures",
    "PointDiscriminator",
    "PointGenerator",
    "Posterior",
    "RELATIVISTIC",
    "Round",
    "Rules",
    "SATURATING",
    "VAE",
    "bernoulli_log_likelihood",
    "bound",
    "decode",
    "discretised_logistic_log_likelihood",
    "discriminator_loss",
    "elbo",
    "encode",
    "free_bits",
    "gaussian_kl",
    "gaussian_kl_per_dimension",
    "gaussian_log_likelihood",
    "gradient_ratio",
    "grid_mode",
    "grid_points",
    "hinge_discriminator_loss",
    "hinge_generator_loss",
    "importance_weighted_bound",
    "latent_diagnostics",
    "least_squares_discriminator_loss",
    "least_squares_generator_loss",
    "linear_path",
    "load_generator",
    "logistic_kl",
    "logistic_log_density",
    "logistic_sample",
    "non_saturating_loss",
    "pictures",
    "play",
    "r1_penalty",
    "r2_penalty",
    "read_discriminator",
    "read_grid",
    "relativistic_discriminator_loss",
    "relativistic_generator_loss",
    "reparameterised",
    "saturating_loss",
    "spherical_path",
    "traverse",
]

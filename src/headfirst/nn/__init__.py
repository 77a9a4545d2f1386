"""Pretrained backbones and dual encoders as modules: loading, stages, heads, losses. No training here."""

from headfirst.nn.adversarial import (
    discriminator_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
    least_squares_discriminator_loss,
    least_squares_generator_loss,
    non_saturating_loss,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
    saturating_loss,
)
from headfirst.nn.any_size import features_at
from headfirst.nn.backbone import PretrainedBackbone
from headfirst.nn.batch_norm import has_batch_norm, keep_statistics, settle_batch_norm, untrained_statistics
from headfirst.nn.classifier import ImageClassifier, UnitLinear, linear_head, random_head
from headfirst.nn.contrastive import contrastive_loss, sigmoid_contrastive_loss
from headfirst.nn.decoders import BernoulliDecoder, Decoder, DiscretisedLogisticDecoder, GaussianDecoder
from headfirst.nn.diffusers_unet import DiffusersUNet, DiffusersUNetShape
from headfirst.nn.discriminator_reading import DiscriminatorReading, gradient_ratio, read_discriminator
from headfirst.nn.dit import DiT, DiTShape
from headfirst.nn.dual_encoder import DualEncoder, has_text_tower, load_dual_encoder, pair
from headfirst.nn.gradient_penalty import r1_penalty, r2_penalty
from headfirst.nn.importance import ImportanceBound, importance_weighted_bound
from headfirst.nn.latents import GaussianLatent, Latent, LogisticLatent
from headfirst.nn.likelihoods import (
    bernoulli_log_likelihood,
    discretised_logistic_log_likelihood,
    gaussian_log_likelihood,
)
from headfirst.nn.loading import load_backbone
from headfirst.nn.logistic_latent import logistic_kl, logistic_log_density, logistic_sample
from headfirst.nn.micro_batches import embed_in_parts
from headfirst.nn.nt_xent import nt_xent_loss
from headfirst.nn.pair_loss import pair_loss, with_bounded_scale
from headfirst.nn.patches import (
    masked_reconstruction_loss,
    normalised_patches,
    patchify,
    reconstruction_errors,
    unpatchify,
)
from headfirst.nn.permutations import permutation_set
from headfirst.nn.positions import sine_cosine
from headfirst.nn.precision import multiplies_bf16
from headfirst.nn.preprocessing import parse_processor
from headfirst.nn.residual_mlp import MLPShape, ResidualMLP
from headfirst.nn.self_distillation import dino_loss, teacher_entropies, teacher_probabilities
from headfirst.nn.text import TextTower, Tokens
from headfirst.nn.text_loading import load_text_tower
from headfirst.nn.tokens import encode_visible, hides_patches, num_prefix_tokens, patch_size
from headfirst.nn.unet import UNet, UNetShape
from headfirst.nn.untrained import is_untrained, untrained_backbone, untrained_like
from headfirst.nn.vae_network import VAENetwork
from headfirst.nn.variational import free_bits, gaussian_kl, gaussian_kl_per_dimension, reparameterised
from headfirst.nn.vicreg import vicreg_loss

__all__ = [
    "BernoulliDecoder",
    "Decoder",
    "DiT",
    "DiTShape",
    "DiffusersUNet",
    "DiffusersUNetShape",
    "DiscretisedLogisticDecoder",
    "DiscriminatorReading",
    "DualEncoder",
    "GaussianDecoder",
    "GaussianLatent",
    "ImageClassifier",
    "ImportanceBound",
    "Latent",
    "LogisticLatent",
    "MLPShape",
    "PretrainedBackbone",
    "ResidualMLP",
    "TextTower",
    "Tokens",
    "UNet",
    "UNetShape",
    "UnitLinear",
    "VAENetwork",
    "bernoulli_log_likelihood",
    "contrastive_loss",
    "dino_loss",
    "discretised_logistic_log_likelihood",
    "discriminator_loss",
    "embed_in_parts",
    "encode_visible",
    "features_at",
    "free_bits",
    "gaussian_kl",
    "gaussian_kl_per_dimension",
    "gaussian_log_likelihood",
    "gradient_ratio",
    "has_batch_norm",
    "has_text_tower",
    "hides_patches",
    "hinge_discriminator_loss",
    "hinge_generator_loss",
    "importance_weighted_bound",
    "is_untrained",
    "keep_statistics",
    "least_squares_discriminator_loss",
    "least_squares_generator_loss",
    "linear_head",
    "load_backbone",
    "load_dual_encoder",
    "load_text_tower",
    "logistic_kl",
    "logistic_log_density",
    "logistic_sample",
    "masked_reconstruction_loss",
    "multiplies_bf16",
    "non_saturating_loss",
    "normalised_patches",
    "nt_xent_loss",
    "num_prefix_tokens",
    "pair",
    "pair_loss",
    "parse_processor",
    "patch_size",
    "patchify",
    "permutation_set",
    "r1_penalty",
    "r2_penalty",
    "random_head",
    "read_discriminator",
    "reconstruction_errors",
    "relativistic_discriminator_loss",
    "relativistic_generator_loss",
    "reparameterised",
    "saturating_loss",
    "settle_batch_norm",
    "sigmoid_contrastive_loss",
    "sine_cosine",
    "teacher_entropies",
    "teacher_probabilities",
    "unpatchify",
    "untrained_backbone",
    "untrained_like",
    "untrained_statistics",
    "vicreg_loss",
    "with_bounded_scale",
]

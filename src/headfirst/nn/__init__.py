"""Pretrained backbones and dual encoders as modules: loading, stages, heads, losses. No training here."""

from headfirst.nn.any_size import features_at
from headfirst.nn.backbone import PretrainedBackbone
from headfirst.nn.batch_norm import has_batch_norm, keep_statistics, settle_batch_norm
from headfirst.nn.classifier import ImageClassifier, UnitLinear, linear_head, random_head
from headfirst.nn.contrastive import contrastive_loss, sigmoid_contrastive_loss
from headfirst.nn.dual_encoder import DualEncoder, has_text_tower, load_dual_encoder, pair
from headfirst.nn.loading import load_backbone
from headfirst.nn.micro_batches import embed_in_parts
from headfirst.nn.pair_loss import pair_loss, with_bounded_scale
from headfirst.nn.preprocessing import parse_processor
from headfirst.nn.text import TextTower, Tokens, load_text_tower
from headfirst.nn.tokens import encode_visible, hides_patches, num_prefix_tokens, patch_size
from headfirst.nn.untrained import untrained_backbone

__all__ = [
    "DualEncoder",
    "ImageClassifier",
    "PretrainedBackbone",
    "TextTower",
    "Tokens",
    "UnitLinear",
    "contrastive_loss",
    "embed_in_parts",
    "encode_visible",
    "features_at",
    "has_batch_norm",
    "has_text_tower",
    "hides_patches",
    "keep_statistics",
    "linear_head",
    "load_backbone",
    "load_dual_encoder",
    "load_text_tower",
    "num_prefix_tokens",
    "pair",
    "pair_loss",
    "parse_processor",
    "patch_size",
    "random_head",
    "settle_batch_norm",
    "sigmoid_contrastive_loss",
    "untrained_backbone",
    "with_bounded_scale",
]

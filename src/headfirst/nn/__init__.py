"""Pretrained backbones and dual encoders as modules: loading, stages, heads, losses. No training here."""

from headfirst.nn.backbone import PretrainedBackbone
from headfirst.nn.classifier import ImageClassifier, UnitLinear, linear_head, random_head
from headfirst.nn.contrastive import contrastive_loss, sigmoid_contrastive_loss
from headfirst.nn.dual_encoder import DualEncoder, has_text_tower, load_dual_encoder, pair
from headfirst.nn.loading import load_backbone
from headfirst.nn.micro_batches import embed_in_parts
from headfirst.nn.pair_loss import pair_loss, with_bounded_scale
from headfirst.nn.preprocessing import parse_processor
from headfirst.nn.text import TextTower, Tokens
from headfirst.nn.text_loading import load_text_tower

__all__ = [
    "DualEncoder",
    "ImageClassifier",
    "PretrainedBackbone",
    "TextTower",
    "Tokens",
    "UnitLinear",
    "contrastive_loss",
    "embed_in_parts",
    "has_text_tower",
    "linear_head",
    "load_backbone",
    "load_dual_encoder",
    "load_text_tower",
    "pair",
    "pair_loss",
    "parse_processor",
    "random_head",
    "sigmoid_contrastive_loss",
    "with_bounded_scale",
]

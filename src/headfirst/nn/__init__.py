"""Pretrained backbones and dual encoders as modules: loading, stages, heads. No training here."""

from headfirst.nn.backbone import PretrainedBackbone
from headfirst.nn.classifier import ImageClassifier, UnitLinear, linear_head, random_head
from headfirst.nn.dual_encoder import DualEncoder, load_dual_encoder, pair
from headfirst.nn.loading import load_backbone
from headfirst.nn.preprocessing import parse_processor
from headfirst.nn.text import TextTower, Tokens, load_text_tower

__all__ = [
    "DualEncoder",
    "ImageClassifier",
    "PretrainedBackbone",
    "TextTower",
    "Tokens",
    "UnitLinear",
    "linear_head",
    "load_backbone",
    "load_dual_encoder",
    "load_text_tower",
    "pair",
    "parse_processor",
    "random_head",
]

"""Pretrained backbones as modules: loading, stages, heads. No training here."""

from headfirst.nn.backbone import PretrainedBackbone
from headfirst.nn.classifier import ImageClassifier, linear_head, random_head
from headfirst.nn.loading import load_backbone
from headfirst.nn.preprocessing import parse_processor

__all__ = [
    "ImageClassifier",
    "PretrainedBackbone",
    "linear_head",
    "load_backbone",
    "parse_processor",
    "random_head",
]

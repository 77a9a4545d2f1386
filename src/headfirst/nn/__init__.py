"""Pretrained backbones as modules: loading, stages, heads; losses. No training here."""

from headfirst.nn.backbone import PretrainedBackbone
from headfirst.nn.classifier import ImageClassifier, linear_head, random_head
from headfirst.nn.contrastive import contrastive_loss, sigmoid_contrastive_loss
from headfirst.nn.loading import load_backbone
from headfirst.nn.micro_batches import embed_in_parts
from headfirst.nn.preprocessing import parse_processor

__all__ = [
    "ImageClassifier",
    "PretrainedBackbone",
    "contrastive_loss",
    "embed_in_parts",
    "linear_head",
    "load_backbone",
    "parse_processor",
    "random_head",
    "sigmoid_contrastive_loss",
]

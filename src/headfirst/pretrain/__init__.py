"""Recipes that make or adapt a backbone from images and their captions, with the losses they use."""

from headfirst.nn import contrastive_loss, sigmoid_contrastive_loss
from headfirst.pretrain.clip import CLIP
from headfirst.pretrain.monitors import PairMonitor, PairReading
from headfirst.pretrain.pair_training import PairTraining, train_pairs

__all__ = [
    "CLIP",
    "PairMonitor",
    "PairReading",
    "PairTraining",
    "contrastive_loss",
    "sigmoid_contrastive_loss",
    "train_pairs",
]

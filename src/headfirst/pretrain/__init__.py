"""Recipes that make or adapt a backbone: from images alone, or from images and their captions; and their losses."""

from headfirst.nn import (
    contrastive_loss,
    dino_loss,
    masked_reconstruction_loss,
    nt_xent_loss,
    patchify,
    permutation_set,
    sigmoid_contrastive_loss,
    unpatchify,
    vicreg_loss,
)
from headfirst.pretrain.clip import CLIP
from headfirst.pretrain.dino import DINO
from headfirst.pretrain.distillation import Distillation
from headfirst.pretrain.jigsaw import Jigsaw
from headfirst.pretrain.masked import Masked
from headfirst.pretrain.monitors import PairMonitor, PairReading
from headfirst.pretrain.pair_training import PairTraining, train_pairs
from headfirst.pretrain.pretext import Pretext
from headfirst.pretrain.pretraining import Pretraining
from headfirst.pretrain.replay import Replay, replay
from headfirst.pretrain.rotation import Rotation
from headfirst.pretrain.signals import Reading
from headfirst.pretrain.simclr import SimCLR
from headfirst.pretrain.time_plan import TimePlan, plan_time
from headfirst.pretrain.training import BackboneTraining, train_backbone
from headfirst.pretrain.vicreg import VICReg

__all__ = [
    "CLIP",
    "DINO",
    "BackboneTraining",
    "Distillation",
    "Jigsaw",
    "Masked",
    "PairMonitor",
    "PairReading",
    "PairTraining",
    "Pretext",
    "Pretraining",
    "Reading",
    "Replay",
    "Rotation",
    "SimCLR",
    "TimePlan",
    "VICReg",
    "contrastive_loss",
    "dino_loss",
    "masked_reconstruction_loss",
    "nt_xent_loss",
    "patchify",
    "permutation_set",
    "plan_time",
    "replay",
    "sigmoid_contrastive_loss",
    "train_backbone",
    "train_pairs",
    "unpatchify",
    "vicreg_loss",
]

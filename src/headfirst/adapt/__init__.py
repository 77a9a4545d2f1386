"""Adaptations: each a frozen recipe whose `fit` returns a new object."""

from headfirst.adapt.distortion import DistortionMeter, outside_share
from headfirst.adapt.fine_tune import LPFT, FineTune
from headfirst.adapt.flyp import FLYP
from headfirst.adapt.heads import NeighbourHead, QuadraticHead, as_module, on_backbone
from headfirst.adapt.knn import KNN, KNNModel
from headfirst.adapt.lda import LDA, LDAModel
from headfirst.adapt.learning_rate import Trial, best_trial, halves, search
from headfirst.adapt.linear_probe import LinearProbe, LinearProbeModel
from headfirst.adapt.naive_bayes import GaussianNaiveBayes, NaiveBayesModel
from headfirst.adapt.templates import PLAIN, TEMPLATE_SETS, check_templates, read_lines
from headfirst.adapt.tuned import Calibration, TunedModel
from headfirst.adapt.tuning import Tuning, tune
from headfirst.adapt.wise import WiSE
from headfirst.adapt.zero_shot import ZeroShot, ZeroShotModel

__all__ = [
    "FLYP",
    "KNN",
    "LDA",
    "LPFT",
    "PLAIN",
    "TEMPLATE_SETS",
    "Calibration",
    "DistortionMeter",
    "FineTune",
    "GaussianNaiveBayes",
    "KNNModel",
    "LDAModel",
    "LinearProbe",
    "LinearProbeModel",
    "NaiveBayesModel",
    "NeighbourHead",
    "QuadraticHead",
    "Trial",
    "TunedModel",
    "Tuning",
    "WiSE",
    "ZeroShot",
    "ZeroShotModel",
    "as_module",
    "best_trial",
    "check_templates",
    "halves",
    "on_backbone",
    "outside_share",
    "read_lines",
    "search",
    "tune",
]

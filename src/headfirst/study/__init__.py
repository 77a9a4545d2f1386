"""What combines the stages: the main job, its plan and choice, what to label next, search, will pre-training or
generated images help."""

from headfirst.study.augmentation import Augmented, GeneratorRecipe, augment_images, save_added
from headfirst.study.augmentation_report import AugmentationReport
from headfirst.study.choose import choose
from headfirst.study.compare import Comparison, FinishedRun, compare, reported_predictions
from headfirst.study.distillation_quality import Quality, quality_table
from headfirst.study.distilling import distil
from headfirst.study.generator_evaluation import GeneratorEvaluation, evaluate_generator
from headfirst.study.generator_report import GeneratorReport, evaluation_report
from headfirst.study.generator_scores import GeneratorScores, ScoreDifference, compare_scores, told_apart
from headfirst.study.generator_training import GeneratorTraining, train_generator
from headfirst.study.guidance import GuidancePath, GuidanceRow, guidance_path
from headfirst.study.indexing import index_images
from headfirst.study.label_arms import raw_pixels
from headfirst.study.label_efficiency import LabelEfficiency, label_efficiency
from headfirst.study.label_plan import LabelBudget, LabelPlan, plan_labels
from headfirst.study.main_job import METHODS, Run, run
from headfirst.study.mixing_ratio import Augmentation
from headfirst.study.origin import Origin, small_network
from headfirst.study.plan import Step, plan
from headfirst.study.preflight import Preflight, preflight
from headfirst.study.pretrain_evidence import did_it_help
from headfirst.study.pretrain_report import PretrainReport, neighbours_of, outliers_of
from headfirst.study.pretraining import PretrainOutcome, pretrain_images
from headfirst.study.sampling import write_samples
from headfirst.study.sampling_curve import SAMPLERS, sampling_curve
from headfirst.study.search import Hit, Search, search_image, search_text
from headfirst.study.translating import train_translation, write_restyled, write_shifts, write_translated, write_varied
from headfirst.study.verifying import (
    LevelsReading,
    LikelihoodGap,
    SamplerReading,
    Verification,
    choose_for,
    load_sampler,
    read_levels,
    verify_generator,
)

__all__ = [
    "METHODS",
    "SAMPLERS",
    "Augmentation",
    "AugmentationReport",
    "Augmented",
    "Comparison",
    "FinishedRun",
    "GeneratorEvaluation",
    "GeneratorRecipe",
    "GeneratorReport",
    "GeneratorScores",
    "GeneratorTraining",
    "GuidancePath",
    "GuidanceRow",
    "Hit",
    "LabelBudget",
    "LabelEfficiency",
    "LabelPlan",
    "LevelsReading",
    "LikelihoodGap",
    "Origin",
    "Preflight",
    "PretrainOutcome",
    "PretrainReport",
    "Quality",
    "Run",
    "SamplerReading",
    "ScoreDifference",
    "Search",
    "Step",
    "Verification",
    "augment_images",
    "choose",
    "choose_for",
    "compare",
    "compare_scores",
    "did_it_help",
    "distil",
    "evaluate_generator",
    "evaluation_report",
    "guidance_path",
    "index_images",
    "label_efficiency",
    "load_sampler",
    "neighbours_of",
    "outliers_of",
    "plan",
    "plan_labels",
    "preflight",
    "pretrain_images",
    "quality_table",
    "raw_pixels",
    "read_levels",
    "reported_predictions",
    "run",
    "sampling_curve",
    "save_added",
    "search_image",
    "search_text",
    "small_network",
    "told_apart",
    "train_generator",
    "train_translation",
    "verify_generator",
    "write_restyled",
    "write_samples",
    "write_shifts",
    "write_translated",
    "write_varied",
]

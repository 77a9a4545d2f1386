"""What combines the stages: the main job, its plan and choice; what to label next; runs compared; search."""

from headfirst.study.choose import choose
from headfirst.study.compare import Comparison, FinishedRun, compare, reported_predictions
from headfirst.study.indexing import index_images
from headfirst.study.label_plan import LabelBudget, LabelPlan, plan_labels
from headfirst.study.main_job import METHODS, Run, run
from headfirst.study.plan import Step, plan
from headfirst.study.search import Hit, Search, search_image, search_text

__all__ = [
    "METHODS",
    "Comparison",
    "FinishedRun",
    "Hit",
    "LabelBudget",
    "LabelPlan",
    "Run",
    "Search",
    "Step",
    "choose",
    "compare",
    "index_images",
    "plan",
    "plan_labels",
    "reported_predictions",
    "run",
    "search_image",
    "search_text",
]

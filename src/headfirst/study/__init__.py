"""What combines the stages: the main job, its plan and the choice of a method; what to label next; runs compared."""

from headfirst.study.choose import choose
from headfirst.study.compare import Comparison, FinishedRun, compare, reported_predictions
from headfirst.study.label_plan import LabelBudget, LabelPlan, plan_labels
from headfirst.study.main_job import METHODS, Run, run
from headfirst.study.plan import Step, plan

__all__ = [
    "METHODS",
    "Comparison",
    "FinishedRun",
    "LabelBudget",
    "LabelPlan",
    "Run",
    "Step",
    "choose",
    "compare",
    "plan",
    "plan_labels",
    "reported_predictions",
    "run",
]

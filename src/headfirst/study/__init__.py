"""What combines the stages: the main job, its plan and the choice of a method."""

from headfirst.study.choose import choose
from headfirst.study.main_job import METHODS, Run, run
from headfirst.study.plan import Step, plan

__all__ = ["METHODS", "Run", "Step", "choose", "plan", "run"]

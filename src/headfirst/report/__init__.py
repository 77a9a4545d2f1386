"""`Report` → report.html, report.json, report.md; so plans, comparisons, searches, pre-trainings, generators,
augmentations; safe names."""

from headfirst.report.augment_page import augment_json, write_augmentation
from headfirst.report.compare_page import comparison_json, comparison_text, write_comparison
from headfirst.report.files import read_report, write_report
from headfirst.report.generate_page import (
    generate_json,
    quality_lines,
    read_scores,
    score_lines,
    speed_lines,
    write_generate,
)
from headfirst.report.plan_page import plan_json, write_plan
from headfirst.report.pretrain_page import pretrain_json, write_pretrain
from headfirst.report.search_page import how_found, search_json, search_lines, write_search
from headfirst.report.text import printable, safe_cell

__all__ = [
    "augment_json",
    "comparison_json",
    "comparison_text",
    "generate_json",
    "how_found",
    "plan_json",
    "pretrain_json",
    "printable",
    "quality_lines",
    "read_report",
    "read_scores",
    "safe_cell",
    "score_lines",
    "search_json",
    "search_lines",
    "speed_lines",
    "write_augmentation",
    "write_comparison",
    "write_generate",
    "write_plan",
    "write_pretrain",
    "write_report",
    "write_search",
]

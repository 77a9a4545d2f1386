"""`Report` → report.html, report.json, report.md; plans and comparisons likewise; foreign names made safe to show."""

from headfirst.report.compare_page import comparison_json, comparison_text, write_comparison
from headfirst.report.files import read_report, write_report
from headfirst.report.plan_page import plan_json, write_plan
from headfirst.report.text import printable, safe_cell

__all__ = [
    "comparison_json",
    "comparison_text",
    "plan_json",
    "printable",
    "read_report",
    "safe_cell",
    "write_comparison",
    "write_plan",
    "write_report",
]

"""`Report` → report.html, report.json, report.md; and foreign names made safe to show."""

from headfirst.report.files import read_report, write_report
from headfirst.report.text import printable, safe_cell

__all__ = ["printable", "read_report", "safe_cell", "write_report"]

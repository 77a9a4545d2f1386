"""Quality against evaluations: every way to draw images on one axis, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headfirst.report.drawing import ACCENT, INK, MUTED, RULE, canvas, frame, inline_svg
from headfirst.report.text import printable

if TYPE_CHECKING:
    from headfirst.study.distillation_quality import Quality

_DASHES = ("-", "--", ":", "-.")
_MARKS = "osD^vPX"
LEAST = 1e-2
"""What is nearer is drawn here: the axis is logarithmic."""


def quality_figure(rows: Sequence[Quality]) -> str:
    """The SVG element: the teacher's samplers in ink, students in the accent colour."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ways: dict[str, list[Quality]] = {}
    for row in rows:
        ways.setdefault(row.way, []).append(row)
    with canvas(7.6, 4.2) as figure:
        axes = figure.add_axes((0.09, 0.13, 0.64, 0.83))
        frame(axes, "evaluations of the network for an image", "Fréchet distance to real images")
        axes.set(xscale="log", yscale="log")
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(plain)
            axis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(LogLocator(base=2, numticks=12))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for i, (way, each) in enumerate(ways.items()):
            each = sorted(each, key=lambda row: row.evaluations)
            student = each[0].model != "teacher"
            x = [row.evaluations for row in each]
            y = [max(row.frechet.value, LEAST) for row in each]
            colour = ACCENT if student else (INK if i % 2 else MUTED)
            low = [max(LEAST, row.frechet.value if row.frechet.low is None else row.frechet.low) for row in each]
            high = [max(LEAST, row.frechet.value if row.frechet.high is None else row.frechet.high) for row in each]
            axes.vlines(x, low, high, color=colour, linewidth=0.8)
            axes.plot(x, y, _DASHES[i // 2 % len(_DASHES)], marker=_MARKS[i % len(_MARKS)], color=colour, markersize=4,
                      linewidth=1.2, label=printable(way))  # fmt: skip
        axes.grid(axis="y", color=RULE, linewidth=0.4)
        legend = axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False, labelcolor=INK)
        for text in legend.get_texts():
            text.set_parse_math(False)
        return inline_svg(figure)

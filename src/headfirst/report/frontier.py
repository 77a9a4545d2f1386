"""The WiSE path as one curve: accuracy at home against the mean over shifts, α along it."""

from __future__ import annotations

from collections.abc import Sequence

from headfirst.report.drawing import ACCENT, INK, MUTED, canvas, frame, inline_svg
from headfirst.types import FrontierPoint


def frontier_figure(points: Sequence[FrontierPoint]) -> str | None:
    """The SVG element; None without a path."""
    if len(points) < 2:
        return None
    with canvas(4.7, 3.2) as figure:
        axes = figure.add_axes((0.14, 0.16, 0.8, 0.8))
        frame(axes, "accuracy on test (%)", "accuracy, mean over shifts (%)")
        axes.plot([100 * p.home for p in points], [100 * p.away for p in points], color=MUTED, linewidth=0.9, zorder=1)
        for point in points:
            colour = ACCENT if point.chosen else INK
            axes.plot(100 * point.home, 100 * point.away, "o", color=colour, markersize=6 if point.chosen else 4)
            axes.annotate(
                f"α = {point.alpha:g}",
                xy=(100 * point.home, 100 * point.away),
                xytext=(6, 5),
                textcoords="offset points",
                color=colour,
                weight="bold" if point.chosen else "normal",
            )
        axes.margins(0.18, 0.12)
        return inline_svg(figure)

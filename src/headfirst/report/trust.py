"""Two figures on confidence: reliability diagrams, and the error left when the least sure images are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headfirst.report.drawing import ACCENT, INK, MUTED, RULE, canvas, frame, inline_svg
from headfirst.report.tables import HOME
from headfirst.report.text import printable
from headfirst.types import Reliability, RiskCoverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PANELS = 8
"""Splits drawn; report.json has them all."""
COLUMNS = 4


def reliability_figure(diagrams: Sequence[Reliability], method: str) -> str | None:
    """A panel a split: accuracy against confidence, before and after temperature scaling; None where there is none."""
    splits = list(dict.fromkeys(d.split for d in diagrams if d.method == method))[:MOST_PANELS]
    if not splits:
        return None
    rows = -(-len(splits) // COLUMNS)
    with canvas(2.15 * COLUMNS + 0.3, 2.3 * rows) as figure:
        panels = figure.subplots(rows, COLUMNS, squeeze=False)
        for i, panel in enumerate(panels.flat):
            if i >= len(splits):
                panel.set_visible(False)
                continue
            bottom, left = i >= len(splits) - COLUMNS, i % COLUMNS == 0
            frame(panel, "confidence (%)" if bottom else "", "accuracy (%)" if left else "", splits[i])
            panel.plot([0, 100], [0, 100], color=RULE, linewidth=0.8, zorder=1)
            for diagram in diagrams:
                if (diagram.method, diagram.split) == (method, splits[i]):
                    _diagram(panel, diagram)
            panel.set(xlim=(-3, 103), ylim=(-3, 103), aspect="equal")
        figure.tight_layout()
        return inline_svg(figure)


def _diagram(axes: Axes, diagram: Reliability) -> None:
    colour = ACCENT if diagram.calibrated else MUTED
    x, y = ([100 * value for value in values] for values in (diagram.confidence, diagram.accuracy))
    if diagram.calibrated:
        below = [100 * (value - low) for value, low in zip(diagram.accuracy, diagram.low, strict=True)]
        above = [100 * (high - value) for value, high in zip(diagram.accuracy, diagram.high, strict=True)]
        axes.errorbar(x, y, yerr=[below, above], fmt="none", ecolor=colour, elinewidth=0.6, zorder=2)
    axes.plot(x, y, "o-", color=colour, markersize=3, linewidth=1, zorder=3)


def risk_coverage_figure(curves: Sequence[RiskCoverage], method: str) -> str | None:
    """Error among the images answered against the share answered, a line a split; None where there is none."""
    ours = [curve for curve in curves if curve.method == method]
    if not ours:
        return None
    with canvas(4.7, 3.0) as figure:
        axes = figure.add_axes((0.125, 0.16, 0.6, 0.81))
        frame(axes, "share of images answered (%)", "error among them (%)")
        for curve in ours:
            home = curve.split == HOME
            x, y = ([100 * value for value in values] for values in (curve.coverage, curve.risk))
            axes.plot(x, y, color=ACCENT if home else INK, linewidth=1.3 if home else 0.9)
        axes.set(xlim=(0, 100))
        axes.set_ylim(bottom=0)
        _named_ends(axes, [(curve.split, 100 * curve.risk[-1], curve.split == HOME) for curve in ours])
        return inline_svg(figure)


def _named_ends(axes: Axes, ends: Sequence[tuple[str, float, bool]]) -> None:
    """Names beside the lines' right ends, moved apart where they would overlap."""
    from headfirst.report.scatter import spread

    low, high = axes.get_ylim()
    ordered = sorted(ends, key=lambda end: end[1])
    heights = spread([(value - low) / (high - low) for _, value, _ in ordered], gap=0.075, low=0.02, high=0.98)
    for (name, _, home), height in zip(ordered, heights, strict=True):
        axes.annotate(printable(name), xy=(1.03, height), xycoords="axes fraction", va="center",
                      color=ACCENT if home else INK, parse_math=False)  # fmt: skip

"""Accuracy at home against accuracy away, one point a method, as an inline SVG in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headfirst.metrics import MEAN_OVER_SHIFTS
from headfirst.report.drawing import ACCENT, INK, MUTED, RULE, canvas, frame, inline_svg
from headfirst.report.tables import HOME, Table
from headfirst.report.text import printable
from headfirst.types import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True)
class _Point:
    name: str
    home: Row
    away: Row


def scatter(accuracy: Table, recommended: str | None) -> str | None:
    """The SVG element; None unless some method was measured both at home and away.

    Away is the mean over shifts, or the only shift. The same rows give the same bytes.
    """
    away = MEAN_OVER_SHIFTS if MEAN_OVER_SHIFTS in accuracy.splits else None
    if away is None:
        shifts = [name for name in accuracy.splits if name.startswith("shift-")]
        away = shifts[0] if len(shifts) == 1 else None
    if away is None:
        return None
    points = [
        _Point(name=method, home=home, away=there)
        for method in accuracy.methods
        if (home := accuracy.row(method, HOME)) and (there := accuracy.row(method, away))
        if all(math.isfinite(x) for row in (home, there) for x in (row.value, row.low, row.high))
    ]
    return _draw(points, away, recommended) if points else None


def _draw(points: Sequence[_Point], away: str, recommended: str | None) -> str:
    with canvas(4.7, 3.5) as figure:
        axes = figure.add_axes((0.125, 0.14, 0.63, 0.84), facecolor="none")
        _bars(axes, points, recommended)
        axes.margins(0.06)
        frame(axes, f"accuracy on {HOME} (%)", f"accuracy, {away} (%)")
        _labels(axes, points, recommended)
        return inline_svg(figure)


def _bars(axes: Axes, points: Sequence[_Point], recommended: str | None) -> None:
    for point in points:
        ours = point.name == recommended
        axes.errorbar(
            100 * point.home.value,
            100 * point.away.value,
            xerr=[[100 * (point.home.value - point.home.low)], [100 * (point.home.high - point.home.value)]],
            yerr=[[100 * (point.away.value - point.away.low)], [100 * (point.away.high - point.away.value)]],
            fmt="o",
            markersize=6 if ours else 4.5,
            color=ACCENT if ours else INK,
            ecolor=ACCENT if ours else MUTED,
            elinewidth=1.1 if ours else 0.6,
            zorder=4 if ours else 3,
        )


def _labels(axes: Axes, points: Sequence[_Point], recommended: str | None) -> None:
    """Names in a column at the right, a hairline to each point: they cannot overlap."""
    low, high = axes.get_ylim()
    ordered = sorted(points, key=lambda point: point.away.value)
    heights = [(100 * point.away.value - low) / (high - low) for point in ordered]
    for point, height in zip(ordered, spread(heights, gap=0.075, low=0.03, high=0.97), strict=True):
        ours = point.name == recommended
        axes.annotate(
            printable(point.name),
            xy=(100 * point.home.high, 100 * point.away.value),
            xytext=(1.05, height),
            textcoords="axes fraction",
            va="center",
            ha="left",
            color=ACCENT if ours else INK,
            weight="bold" if ours else "normal",
            parse_math=False,
            arrowprops={
                "arrowstyle": "-",
                "color": ACCENT if ours else RULE,
                "linewidth": 0.6,
                "shrinkA": 2,
                "shrinkB": 3,
                "relpos": (0, 0.5),
                "zorder": 1,
            },
        )


def spread(heights: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Ascending heights moved apart by at least `gap`, as little as possible, within [low, high].

    Isotonic regression of heights - i gap (pool adjacent violators), which is least squares.

    >>> spread([0.5, 0.5, 1.0], gap=0.25, low=0.0, high=1.0)
    [0.375, 0.625, 1.0]
    """
    gap = min(gap, (high - low) / max(1, len(heights) - 1))
    pools: list[tuple[float, int]] = []
    for i, height in enumerate(heights):
        mean, size = height - i * gap, 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    top = high - (len(heights) - 1) * gap
    flat = [min(max(mean, low), top) for mean, size in pools for _ in range(size)]
    return [mean + i * gap for i, mean in enumerate(flat)]

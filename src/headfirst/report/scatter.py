"""Accuracy at home against accuracy away, one point a method, as an inline SVG in the page's own colours."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headfirst.metrics import MEAN_OVER_SHIFTS
from headfirst.report.tables import HOME, Table
from headfirst.report.text import printable
from headfirst.types import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins that matplotlib accepts, exchanged for the page's variables: the figure follows dark and light.
_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--rule)",
    "#040404": "var(--accent)",
}
_INK, _MUTED, _RULE, _ACCENT = _COLOURS


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
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "headfirst",
            "font.size": 9.5,
            "axes.linewidth": 0.6,
        }
    ):
        figure = Figure(figsize=(4.7, 3.5), facecolor="none")
        axes = figure.add_axes((0.125, 0.14, 0.63, 0.84), facecolor="none")
        _bars(axes, points, recommended)
        _frame(axes, away)
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
            color=_ACCENT if ours else _INK,
            ecolor=_ACCENT if ours else _MUTED,
            elinewidth=1.1 if ours else 0.6,
            zorder=4 if ours else 3,
        )


def _frame(axes: Axes, away: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.margins(0.06)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_RULE)
    axes.tick_params(colors=_MUTED, length=3, width=0.6)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axes.set_xlabel(f"accuracy on {HOME} (%)", color=_MUTED)
    axes.set_ylabel(f"accuracy, {printable(away)} (%)", color=_MUTED, parse_math=False)


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
            color=_ACCENT if ours else _INK,
            weight="bold" if ours else "normal",
            parse_math=False,
            arrowprops={
                "arrowstyle": "-",
                "color": _ACCENT if ours else _RULE,
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


def inline_svg(figure: Figure) -> str:
    """The figure as an element for the page: no prologue, no metadata, no addresses but XML namespaces."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    # Its rule for line joins would reach the whole page.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    # The page's own typeface at matplotlib's size (older releases write one `font:`), and the page's width.
    svg = re.sub(r"font: (?:(bold|\d+) )?([\d.]+)px [^;\"]*", _font, svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'<svg ([^>]*?)height="[^"]*" ([^>]*?)width="[^"]*"', r"<svg \1\2", svg, count=1)
    for stand_in, variable in _COLOURS.items():
        svg = svg.replace(stand_in, variable)
    return svg.strip()


def _font(match: re.Match[str]) -> str:
    weight = f"font-weight: {match[1]}; " if match[1] else ""
    return f"{weight}font-size: {match[2]}px"

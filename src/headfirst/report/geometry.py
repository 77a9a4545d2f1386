"""One figure on what fine-tuning did to the features: how far they moved inside and outside the home span."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from headfirst.report.drawing import ACCENT, ALARM, INK, MUTED, RULE, canvas, frame, inline_svg
from headfirst.report.text import printable
from headfirst.types import DistortionReading, Geometry

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def geometry_figure(geometry: Geometry | None) -> str | None:
    """Left: movement of each split by method, its two parts. Right: the distortion meter by epoch."""
    if geometry is None or not geometry.movements:
        return None
    with canvas(8.6, 0.26 * len(geometry.movements) + 1.5) as figure:
        bars, meter = figure.subplots(1, 2, width_ratios=(1.25, 1))
        _movements(bars, geometry)
        _meter(meter, geometry)
        figure.tight_layout(w_pad=2.5)
        return inline_svg(figure)


def _movements(axes: Axes, geometry: Geometry) -> None:
    frame(axes, "movement, share of the feature's norm", "", "How far features moved")
    names, height = [], 0.0
    previous = geometry.movements[0].method
    heights = []
    for movement in geometry.movements:
        height += 1.0 if movement.method == previous else 1.6
        previous = movement.method
        heights.append(height)
        names.append(f"{movement.method}, {movement.split}")
    inside, outside = ([getattr(m, part) for m in geometry.movements] for part in ("inside", "outside"))
    axes.barh([h - 0.18 for h in heights], inside, height=0.34, color=ACCENT)
    axes.barh([h + 0.18 for h in heights], outside, height=0.34, color=ALARM)
    axes.set_yticks(heights, [printable(name) for name in names], parse_math=False)
    axes.invert_yaxis()
    for place, (part, colour) in enumerate((("inside the home span", ACCENT), ("outside", ALARM))):
        axes.annotate(part, xy=(1, 0.06 + 0.1 * (1 - place)), xycoords="axes fraction", ha="right", color=colour)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, colors=INK)


def _meter(axes: Axes, geometry: Geometry) -> None:
    frame(axes, "epoch", "", "The distortion meter while training")
    by_method: dict[str, list[DistortionReading]] = defaultdict(list)
    for reading in geometry.readings:
        by_method[reading.method].append(reading)
    top = max(max(r.inside, r.outside) for r in geometry.readings) if geometry.readings else 1.0
    for i, (method, readings) in enumerate(by_method.items()):
        epochs = [reading.epoch for reading in readings]
        style = ("-", "--", ":")[i % 3]
        axes.plot(epochs, [r.inside for r in readings], style, color=ACCENT, linewidth=1.1)
        axes.plot(epochs, [r.outside for r in readings], style, color=ALARM, linewidth=1.1)
        last = readings[-1]
        for value, colour in ((last.inside, ACCENT), (last.outside, ALARM)):
            if abs(value - geometry.threshold) < 0.04 * top:
                continue  # the threshold's own name stands there; the line's style tells
            axes.annotate(printable(method), xy=(last.epoch, value), xytext=(4, 0), textcoords="offset points",
                          va="center", color=colour, fontsize=8.5, parse_math=False)  # fmt: skip
    axes.axhline(geometry.threshold, color=MUTED, linewidth=0.7)
    axes.annotate("warns above", xy=(1, geometry.threshold), xycoords=("axes fraction", "data"), xytext=(4, 0),
                  textcoords="offset points", va="center", color=MUTED, fontsize=8.5)  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    axes.grid(axis="y", color=RULE, linewidth=0.4)

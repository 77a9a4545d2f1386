"""A learning curve: what was measured, its law, and the law beyond, as an inline SVG in the page's own colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headfirst.report.drawing import ACCENT, INK, MUTED, RULE, canvas, frame, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from headfirst.study.worth import Curve


def curve_figure(curve: Curve) -> str:
    """The SVG element; the same curve gives the same bytes."""
    with canvas(4.7, 3.1) as figure:
        axes = figure.add_axes((0.125, 0.15, 0.85, 0.82))
        _law(axes, curve)
        _measured(axes, curve)
        frame(axes, "labels a class", "balanced accuracy on val (%)")
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0), min(high, 101))
        axes.set_xlim(0, curve.law[-1].labels)
        return inline_svg(figure)


def _law(axes: Axes, curve: Curve) -> None:
    """Solid over what was measured, dashed beyond, its interval as a band."""
    now = curve.measured[-1].labels
    x, value, low, high = zip(*((p.labels, 100 * p.value, 100 * p.low, 100 * p.high) for p in curve.law), strict=True)
    axes.fill_between(x, low, high, color=ACCENT, alpha=0.13, linewidth=0)
    last = max(i for i, labels in enumerate(x) if labels <= now)
    axes.plot(x[: last + 1], value[: last + 1], color=ACCENT, linewidth=1.2)
    axes.plot(x[last:], value[last:], color=ACCENT, linewidth=1.2, dashes=(4, 3))
    axes.axvline(now, color=RULE, linewidth=0.6, zorder=0)
    axes.annotate("now", (now, 1), xycoords=("data", "axes fraction"), xytext=(4, -2), textcoords="offset points",
                  va="top", color=MUTED)  # fmt: skip


def _measured(axes: Axes, curve: Curve) -> None:
    x, value, low, high = zip(
        *((p.labels, 100 * p.value, 100 * p.low, 100 * p.high) for p in curve.measured), strict=True
    )
    below, above = [v - b for v, b in zip(value, low, strict=True)], [t - v for v, t in zip(value, high, strict=True)]
    axes.errorbar(
        x, value, yerr=[below, above], fmt="o", markersize=4, color=INK, ecolor=MUTED, elinewidth=0.6, zorder=3
    )

"""Loss and quality signals of a pre-training by epoch, side by side, as one inline SVG in the page's own colours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import ceil, isfinite
from typing import TYPE_CHECKING

from headfirst.report.drawing import ACCENT, ALARM, INK, MUTED, RULE, canvas, frame, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Reading = Mapping[str, float | int | None]

Panel = tuple[str, tuple[str, ...], float]

_PANELS: tuple[Panel, ...] = (
    ("Loss", ("loss",), 1.0),
    ("RankMe (effective rank)", ("rankme",), 1.0),
    ("Standard deviation of features", ("feature_std",), 1.0),
    ("Accuracy without training (%)", ("probe", "knn"), 100.0),
    ("Entropy of the teacher (nats)", ("teacher_entropy",), 1.0),
)
_COLUMNS = 3
_LINES = {"elbo": "learned from", "val_elbo": "held out"}
"""What a line is called where its name would not say it."""


def curves_figure(readings: Sequence[Reading], events: Sequence[str]) -> str | None:
    """A panel for each signal that was read at least once; None where none was.

    A later reading of the same epoch, after training was rolled back, takes the line up anew; what was undone stays,
    in grey. Epochs that events name are marked.
    """
    return panels_figure(_PANELS, readings, events)


def panels_figure(panels: Sequence[Panel], readings: Sequence[Reading], events: Sequence[str]) -> str | None:
    """`curves_figure` of these panels: a title, the names of one or two signals, a factor for the axis.

    Axes begin at 0, but those of a loss.
    """
    panels = [(title, tuple(n for n in names if _points(readings, n)), unit) for title, names, unit in panels]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return None
    columns = min(_COLUMNS, len(panels))
    rows = ceil(len(panels) / columns)
    with canvas(2.9 * columns, 2.15 * rows) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (title, names, unit) in zip(grid, panels, strict=False):
            _panel(axes, readings, names, unit, marked_epochs(events))
            frame(axes, "epoch", "", title)
            if title != "Loss":
                low, high = axes.get_ylim()
                axes.set_ylim(min(0, low), high)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        figure.tight_layout(w_pad=2.0, h_pad=1.6)
        return inline_svg(figure)


def marked_epochs(events: Sequence[str]) -> list[int]:
    """Epochs of the events that begin with one.

    >>> marked_epochs(["epoch 12: collapsed", "stopped by hand"])
    [12]
    """
    return [int(found[1]) for event in events if (found := re.match(r"epoch (\d+):", event))]


def _points(readings: Sequence[Reading], name: str) -> list[tuple[float, float]]:
    points = [(reading.get("epoch"), reading.get(name)) for reading in readings]
    return [(float(x), float(y)) for x, y in points if x is not None and y is not None and isfinite(y)]


def _panel(axes: Axes, readings: Sequence[Reading], names: Sequence[str], unit: float, marked: Sequence[int]) -> None:
    for epoch in marked:
        axes.axvline(epoch, color=ALARM, linewidth=0.8, dashes=(3, 2), zorder=1)
    above = max(names, key=lambda name: _points(readings, name)[-1][1])  # its name stands over its end
    for name, style in zip(names, ("-", "--"), strict=False):
        runs = _runs(_points(readings, name))
        for i, run in enumerate(runs):
            x, y = zip(*run, strict=True)
            alone = {"marker": "o", "markersize": 3} if len(run) == 1 else {}
            colour = ACCENT if i == len(runs) - 1 else MUTED
            axes.plot(x, [unit * value for value in y], style, color=colour, linewidth=1.2, zorder=3, **alone)
        if len(names) > 1:
            x, y = runs[-1][-1]
            beside = (-2, 3 if name == above else -9)
            label = _LINES.get(name, name.replace("_", " "))
            axes.annotate(label, (x, unit * y), xytext=beside, textcoords="offset points", ha="right", color=INK,
                          fontsize=8.5)  # fmt: skip
    axes.grid(axis="y", color=RULE, linewidth=0.4)
    axes.margins(x=0.02, y=0.12)


def _runs(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The points cut wherever the epoch does not rise."""
    runs: list[list[tuple[float, float]]] = []
    for point in points:
        if not runs or point[0] <= runs[-1][-1][0]:
            runs.append([])
        runs[-1].append(point)
    return runs

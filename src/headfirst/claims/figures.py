"""The claims' pictures: plain matplotlib, as SVG text that is the same on every run."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PROBE, FINETUNE, LPFT = "#333333", "#4c72b0", "#c44e52", "#2e8b57"
COLOURS = {"probe": PROBE, "finetune": FINETUNE, "lp-ft": LPFT, "random head": FINETUNE, "fitted head": LPFT}


@contextmanager
def drawing() -> Iterator[None]:
    """Within the block figures are deterministic and quiet in style."""
    import matplotlib

    style: dict[Any, Any] = {
        "svg.hashsalt": "headfirst",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": INK,
        "axes.titlesize": 10,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(style):
        yield


def panels(count: int, *, width: float = 8.0, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """A figure with `count` axes side by side, not registered anywhere."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)
    return figure, list(axes[0])


def as_svg(figure: Figure) -> str:
    """The figure as SVG text, without a date."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()

"""Claim 16's picture: what the players make, how they came there, and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from headfirst.claims.figures import FINETUNE, INK, LPFT, PROBE, as_svg, drawing
from headfirst.claims.trained import strip
from headfirst.generate import grid_points

HEALTHY, COLLAPSING = "healthy", "collapsing"
POINTS_SHOWN = 500
COLOURS = {HEALTHY: PROBE, COLLAPSING: FINETUNE, "diffusion": "#8172b3"}
TRACED = (HEALTHY, COLLAPSING)


def pictured(
    grid: Mapping[str, Sequence[Mapping[str, Tensor]]], images: Mapping[str, Tensor], *, at: float, low: float
) -> str:
    """As SVG: points, trainings, and where there are some a row of images a setting.

    Args:
        grid: as `Grid` of the claim.
        images: setting → (K, C, S, S), or nothing.
        at, low: when the alarm looks, and below which it is raised.
    """
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(11.0, 8.2 if images else 6.4), layout="constrained")
        rows: Any = figure.subfigures(3 if images else 2, 1, height_ratios=[3.2, 3.2, 1.8][: 3 if images else 2])
        real = grid_points(np.arange(POINTS_SHOWN), seed=0)
        shown = {"the grid": real, **{name: grid[name][0]["points"] for name in COLOURS if name in grid}}
        for panel, (title, points) in zip(rows[0].subplots(1, len(shown)), shown.items(), strict=True):
            panel.plot(*points[:POINTS_SHOWN].T.numpy(), "o", color=COLOURS.get(title, INK), markersize=1.5, alpha=0.5)
            panel.set(title=title, xlim=(-5.5, 5.5), ylim=(-5.5, 5.5), aspect="equal", xticks=(), yticks=())
        left, middle, right = rows[1].subplots(1, 3)
        _draw_traces(left, grid, "modes")
        left.set(title="Modes covered", xlabel="turns", ylim=(0, 26))
        left.legend(loc="center right")
        _draw_traces(middle, grid, "coverage")
        end = grid[HEALTHY][0]["turns"][-1].item()
        middle.plot([at * end], [low], "v", color=INK)
        middle.axhline(low, color=INK, linewidth=0.8, linestyle="--")
        middle.set(title="What the alarm reads", xlabel="turns", ylabel="share of real points covered", ylim=(0, 1.1))
        for i, (name, traces) in enumerate(grid.items()):
            counts = [trace["modes"][-1].item() for trace in traces]
            jitter = np.linspace(-0.2, 0.2, len(counts))
            right.plot(counts, i + jitter, "o", color=COLOURS.get(name, LPFT), markersize=4, alpha=0.7)
        right.set_yticks(range(len(grid)), list(grid))
        right.set(title="Modes at the end, each seed", xlim=(0, 26))
        right.invert_yaxis()
        if images:
            for panel, (name, each) in zip(rows[2].subplots(len(images), 1), images.items(), strict=True):
                panel.imshow(strip(each), interpolation="nearest")
                panel.set(xticks=(), yticks=())
                panel.spines[:].set_visible(False)
                panel.set_ylabel(name, rotation=0, horizontalalignment="right", verticalalignment="center")
        return as_svg(figure)


def _draw_traces(panel: Any, grid: Mapping[str, Sequence[Mapping[str, Tensor]]], what: str) -> None:
    for name in TRACED:
        for i, trace in enumerate(grid[name]):
            panel.plot(trace["turns"], trace[what], color=COLOURS[name], alpha=0.5, linewidth=1,
                       label=None if i else name)  # fmt: skip

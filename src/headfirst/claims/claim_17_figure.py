"""Claim 17's picture: errors on mixtures, quality against evaluations, and what few evaluations look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from headfirst.claims.claim import over_seeds
from headfirst.claims.few_steps import YARDSTICK
from headfirst.claims.figures import FINETUNE, INK, LPFT, PROBE, as_svg, drawing
from headfirst.claims.known_flow import METHODS, Reading
from headfirst.claims.trained import strip

PALETTE = (INK, PROBE, "#8172b3", "#ccb974", FINETUNE, LPFT, "#64b5cd", "#dd8452")
AT = (4, 16)
"""Evaluations, at the most, of the rows of images."""


def pictured(
    known: Sequence[Mapping[str, Reading]],
    curves: Mapping[str, Sequence[Mapping[str, Tensor]]],
    *,
    shown: Tensor,
    fresh: float,
    equal: float,
) -> str:
    """As SVG.

    Args:
        known, curves: as the claim's.
        shown: (K, C, S, S) real images.
        fresh: distance of real images to others.
        equal: share of the yardstick's distance that counts as equal.
    """
    from matplotlib.figure import Figure

    rows = {"real": shown, **_rows(curves)}
    with drawing():
        figure = Figure(figsize=(11.0, 4.2 + 0.42 * len(rows)), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=(4.2, 0.42 * len(rows)))
        left, right = parts[0].subplots(1, 2)
        _draw_known(left, known)
        _draw_curves(right, curves, fresh, equal)
        below = parts[1].subplots()
        strips = [np.pad(strip(images), ((0, 1), (0, 0), (0, 0)), constant_values=1.0) for images in rows.values()]
        below.imshow(np.concatenate(strips), interpolation="nearest")
        side = len(strips[0])
        below.set_yticks([side * (i + 0.5) for i in range(len(rows))], list(rows))
        below.tick_params(length=0)
        below.set_xticks(())
        below.spines[:].set_visible(False)
        return as_svg(figure)


def _rows(curves: Mapping[str, Sequence[Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """Name and evaluations → images of the first seed: the yardstick's best, then every way with few evaluations."""
    slow = curves[YARDSTICK][0]
    rows = {f"{YARDSTICK}, {int(slow['evaluations'][-1])}": slow["images"][-1]}
    for most in AT:
        for way, each in curves.items():
            fits = (each[0]["evaluations"] <= most).nonzero().flatten()
            if len(fits):
                at = int(fits[-1])
                rows.setdefault(f"{way}, {int(each[0]['evaluations'][at])}", each[0]["images"][at])
    return rows


def _draw_known(panel: Any, known: Sequence[Mapping[str, Reading]]) -> None:
    for (name, method), colour in zip(METHODS.items(), PALETTE[1:], strict=False):
        errors = np.exp(np.mean([np.log(each[name].errors) for each in known], axis=0))
        order = np.mean([each[name].order for each in known])
        panel.loglog(known[0][name].evaluations, errors, "o-", color=colour, markersize=3,
                     label=f"{name}: {order:.2f} ({method.order})")  # fmt: skip
    panel.set(title="Mixtures known exactly: order measured (claimed)", xlabel="evaluations", ylabel="relative error")
    panel.legend(fontsize=8)


def _draw_curves(panel: Any, curves: Mapping[str, Sequence[Mapping[str, Tensor]]], fresh: float, equal: float) -> None:
    for (way, each), colour in zip(curves.items(), PALETTE, strict=False):
        found = [over_seeds([one["distances"][i].item() for one in each]) for i in range(len(each[0]["distances"]))]
        x = each[0]["evaluations"].numpy()
        panel.plot(x, [interval.value for interval in found], "o-", color=colour, markersize=3, label=way)
        low = [max(interval.low, fresh / 4) for interval in found]  # the axis is logarithmic
        panel.fill_between(x, low, [interval.high for interval in found], color=colour, alpha=0.15, linewidth=0)
    slow = float(np.mean([one["distances"][-1].item() for one in curves[YARDSTICK]]))
    panel.axhline(equal * slow, color=INK, linewidth=0.8, linestyle="--")
    panel.axhline(fresh, color=INK, linewidth=0.8, linestyle=":")
    panel.set(title="Trained networks: distance to real images", xlabel="evaluations for an image",
              ylabel="Fréchet distance", xscale="log", yscale="log")  # fmt: skip
    panel.legend(fontsize=8)

"""Claim 11's picture: accuracy by number of labels, what generative models gain, and what they draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from headfirst.claims.few_label_classifiers import (
    BAYES,
    CONDITIONAL,
    DIFFUSION,
    DISCRIMINANT,
    FEATURES,
    GENERATIVE,
    LOGISTIC,
    PIXELS,
    SVM,
)
from headfirst.claims.figures import FINETUNE, INK, LPFT, PROBE, as_svg, drawing
from headfirst.claims.trained import strip
from headfirst.study import LabelEfficiency

STYLES = {
    LOGISTIC: (FINETUNE, "o-"), SVM: ("#dd8452", "x:"), DISCRIMINANT: (PROBE, "s-"), BAYES: (LPFT, "^-"),
    CONDITIONAL: (INK, "D--"), DIFFUSION: ("#8172b3", "v--"),
}  # fmt: skip


def curves_and_samples(
    found: Mapping[str, LabelEfficiency],
    by_evidence: LabelEfficiency,
    distance: Mapping[str, Sequence[float]],
    shown: Mapping[str, Float[Tensor, "n c s s"]],
) -> str:
    """As SVG, a row of panels a split; `distance` and `shown` as in `Sampled`."""
    from matplotlib.figure import Figure

    splits = found[FEATURES].splits
    panels = [(what, split) for split in splits for what in found]
    with drawing():
        figure = Figure(figsize=(11.0, 2.9 * len(splits) + 1.8), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=(2.9 * len(splits), 1.8))
        above, below = parts
        axes = above.subplots(len(splits), len(found) + 1, squeeze=False)
        for panel, (what, split) in zip(axes[:, :-1].flat, panels, strict=True):
            arms = dict.fromkeys(found[what].arms, found[what])
            if what == PIXELS:
                arms |= dict.fromkeys((CONDITIONAL, DIFFUSION), by_evidence)
            for name, each in arms.items():
                _draw_curve(panel, each, name, split)
            panel.set(xscale="log", title=f"{what}, {split}", ylim=(0, 102), ylabel="accuracy, %")
            panel.set_xticks(found[what].shots, [str(k) for k in found[what].shots])
            panel.minorticks_off()
        for panel in axes[-1, :-1]:
            panel.set(xlabel="labels a class")
        axes[0, 0].legend(*axes[0, 1].get_legend_handles_labels(), fontsize=8, loc="lower right")
        _draw_gaps(axes[0, -1], found)
        for panel in axes[1:, -1]:
            panel.set_axis_off()
        _draw_samples(axes[1, -1] if len(splits) > 1 else None, distance)
        for panel, (name, images) in zip(below.subplots(len(shown), 1), shown.items(), strict=True):
            panel.imshow(strip(images), interpolation="nearest")
            panel.set(xticks=(), yticks=(), title=f"Drawn from {name}, first draw of labels, two a class")
            panel.spines[:].set_visible(False)
        return as_svg(figure)


def _draw_curve(panel: Any, each: LabelEfficiency, name: str, split: str) -> None:
    colour, line = STYLES[name]
    points = [each.accuracy(name, split, k) for k in each.shots]
    panel.plot(each.shots, [100 * p.value for p in points], line, color=colour, label=name, markersize=4)
    panel.fill_between(each.shots, [100 * p.low for p in points], [100 * p.high for p in points], color=colour,
                       alpha=0.1, linewidth=0)  # fmt: skip


def _draw_gaps(panel: Any, found: Mapping[str, LabelEfficiency]) -> None:
    """What the claim is about: points of accuracy ahead of logistic regression."""
    for what, each in found.items():
        for name in GENERATIVE:
            gaps = [each.difference(name, LOGISTIC, each.splits[0], k) for k in each.shots]
            colour = STYLES[name][0]
            panel.plot(each.shots, [100 * gap.value for gap in gaps], "-" if what == FEATURES else "--",
                       color=colour, label=f"{name}, {what}")  # fmt: skip
            panel.fill_between(each.shots, [100 * gap.low for gap in gaps], [100 * gap.high for gap in gaps],
                               color=colour, alpha=0.1, linewidth=0)  # fmt: skip
    panel.axhline(0, color=INK, linewidth=0.8)
    shots = found[FEATURES].shots
    panel.set(xscale="log", title=f"ahead of {LOGISTIC}, test", ylabel="points of accuracy", xlabel="labels a class")
    panel.set_xticks(shots, [str(k) for k in shots])
    panel.minorticks_off()
    low, high = panel.get_ylim()
    panel.set_ylim(low - 0.4 * (high - low), high)  # room for the legend
    panel.legend(fontsize=7, loc="lower left", handlelength=3)


def _draw_samples(panel: Any, distance: Mapping[str, Sequence[float]]) -> None:
    if panel is None:
        return
    panel.set_axis_on()
    names = list(distance)
    for i, name in enumerate(names):
        ratios = distance[name]
        panel.plot([i] * len(ratios), ratios, "o", color=STYLES[name][0], alpha=0.6, markersize=4)
    panel.axhline(1, color=INK, linewidth=0.8, linestyle="--")
    panel.set_xticks(range(len(names)), names)
    panel.set(title="distance to test images, over noise's", ylim=(0, None), xlim=(-0.5, len(names) - 0.5))

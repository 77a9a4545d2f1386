"""Claim 1's picture: accuracy by number of labels, arm by arm."""

from __future__ import annotations

from headfirst.claims.figures import FINETUNE, INK, LPFT, PROBE, as_svg, drawing, panels
from headfirst.study import LabelEfficiency

STYLES = {
    "contrast": (PROBE, "o-"),
    "rotation": (LPFT, "s-"),
    "jigsaw": ("#dd8452", "^-"),
    "masked images": ("#8172b3", "D-"),
    "from scratch": (FINETUNE, "o--"),
    "raw pixels": (INK, ":"),
}


def curves(found: LabelEfficiency) -> str:
    """Accuracy by labels a class, a panel a split, with intervals, as SVG."""
    with drawing():
        figure, axes = panels(len(found.splits), width=4.4 * len(found.splits), height=3.8)
        for panel, split in zip(axes, found.splits, strict=True):
            for arm in (*STYLES, *(arm for arm in found.arms if arm not in STYLES)):
                colour, line = STYLES.get(arm, (FINETUNE, "x:"))
                points = [found.accuracy(arm, split, k) for k in found.shots]
                panel.plot(found.shots, [100 * p.value for p in points], line, color=colour, label=arm, markersize=4)
                panel.fill_between(found.shots, [100 * p.low for p in points], [100 * p.high for p in points],
                                   color=colour, alpha=0.12, linewidth=0)  # fmt: skip
            panel.set(xscale="log", xlabel="labels a class", title=split, ylim=(0, 102))
            panel.set_xticks(found.shots, [str(k) for k in found.shots])
            panel.minorticks_off()
            panel.tick_params(colors=INK)
        axes[0].set(ylabel="accuracy, %")
        axes[-1].legend(fontsize=7)
        return as_svg(figure)

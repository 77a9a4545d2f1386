"""Claim 3: out of distribution, the probe usually beats fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from headfirst.claims.claim import ClaimResult, Comparison
from headfirst.claims.experiment import MILD, SEVERE, SHOTS, adapted, large_shifts, ready
from headfirst.claims.figures import COLOURS, INK, as_svg, drawing, panels
from headfirst.data import ImageSet
from headfirst.metrics import Interval, mean_over_splits, paired_difference
from headfirst.nn import PretrainedBackbone
from headfirst.types import Progress, silent


def run(
    data: ImageSet,
    backbone: PretrainedBackbone,
    seeds: Sequence[int],
    *,
    quick: bool = False,
    work: Path | None = None,
    progress: Progress = silent,
) -> ClaimResult:
    """Probe and fine-tuning from a random head, paired over images and seeds, at home and on every shift."""
    data = ready(data, backbone, progress)
    correct = adapted(data, backbone, ("probe", "finetune"), seeds, work=work, progress=progress)
    large = large_shifts(data)
    gaps = {
        split: paired_difference(correct["probe", split], correct["finetune", split], seed=0)
        for method, split in correct
        if method == "probe"
    }
    mean = mean_over_splits(
        [correct["probe", s].double() - correct["finetune", s].double() for s in large],
        seed=0,
        bounds=(-1.0, 1.0),
    )
    rows = [_row("mean over the large shifts", mean, primary=True)]
    rows += [_row(split, gap, primary=False) for split, gap in gaps.items() if split in large]
    rows.append(_row("test (home)", gaps["test"], primary=False))
    rows += [_row(split, gap, primary=False) for split, gap in gaps.items() if split.endswith(f" {MILD}")]
    reversed_ = [split for split, gap in gaps.items() if gap.high < 0]
    return ClaimResult(
        number=3,
        title="Out of distribution, the probe usually beats fine-tuning",
        statement="On the mean of the large shifts (the data's own and each corruption at severity "
        f"{SEVERE}), the accuracy of the probe minus that of fine-tuning from a random head is above zero.",
        rows=tuple(rows),
        figure=_figure(correct, gaps),
        fine_print=(
            f"{SHOTS} training images a class, seeds {list(seeds)}; the learning rate was chosen on home validation by "
            "the first seed. Differences are paired over images and seeds.",
            "It needs good features and a large shift. Fine-tuning is ahead beyond the interval on: "
            + (", ".join(reversed_) or "none of the splits")
            + ".",
        ),
        quick=quick,
    )


def _row(split: str, gap: Interval, *, primary: bool) -> Comparison:
    return Comparison(what=f"accuracy on {split}: probe - finetune", value=gap.value, low=gap.low, high=gap.high,
                      claimed="above", primary=primary)  # fmt: skip


def _figure(correct: Mapping[tuple[str, str], Tensor], gaps: Mapping[str, Interval]) -> str:
    with drawing():
        figure, (axes,) = panels(1, width=7.0, height=0.28 * len(gaps) + 1.0)
        for y, gap in enumerate(list(gaps.values())[::-1]):
            colour = COLOURS["probe"] if gap.low > 0 else COLOURS["finetune"] if gap.high < 0 else INK
            axes.plot([100 * gap.low, 100 * gap.high], [y, y], color=colour, linewidth=2)
            axes.plot(100 * gap.value, y, "o", color=colour)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(gaps)), list(gaps)[::-1])
        axes.set(xlabel="probe minus fine-tuning, accuracy in points (right: the probe is ahead)")
        return as_svg(figure)

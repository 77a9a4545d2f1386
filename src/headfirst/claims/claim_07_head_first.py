"""Claim 7: head first, then fine-tune (LP-FT), wins in both domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from headfirst.claims.claim import ClaimResult, Comparison
from headfirst.claims.experiment import SEVERE, SHOTS, adapted, large_shifts, ready
from headfirst.claims.figures import COLOURS, as_svg, drawing, panels
from headfirst.data import ImageSet
from headfirst.metrics import mean_over_splits, paired_difference
from headfirst.nn import PretrainedBackbone
from headfirst.types import Progress, silent

METHODS = ("probe", "finetune", "lp-ft")


def run(
    data: ImageSet,
    backbone: PretrainedBackbone,
    seeds: Sequence[int],
    *,
    quick: bool = False,
    work: Path | None = None,
    progress: Progress = silent,
) -> ClaimResult:
    """Probe, fine-tuning and LP-FT with the same budget, paired over images and seeds."""
    data = ready(data, backbone, progress)
    correct = adapted(data, backbone, METHODS, seeds, work=work, progress=progress)
    large = large_shifts(data)
    rows = []
    for other in ("finetune", "probe"):
        home = paired_difference(correct["lp-ft", "test"], correct[other, "test"], seed=0)
        gaps = [correct["lp-ft", s].double() - correct[other, s].double() for s in large]
        away = mean_over_splits(gaps, seed=0, bounds=(-1.0, 1.0))
        for where, gap in (("at home (test)", home), ("away (mean over the large shifts)", away)):
            rows.append(
                Comparison(what=f"accuracy {where}: lp-ft - {other}", value=gap.value, low=gap.low, high=gap.high,
                           claimed="above")
            )  # fmt: skip
    for shift in data.shifts():
        gap = paired_difference(correct["lp-ft", shift], correct["finetune", shift], seed=0)
        rows.append(
            Comparison(what=f"accuracy on {shift}: lp-ft - finetune", value=gap.value, low=gap.low, high=gap.high,
                       claimed="above", primary=False)
        )  # fmt: skip
    return ClaimResult(
        number=7,
        title="Head first, then fine-tune (LP-FT), wins in both domains",
        statement="At home and on the mean of the large shifts (the data's own and each corruption at severity "
        f"{SEVERE}), LP-FT is more accurate than fine-tuning from a random head and than the probe.",
        rows=tuple(rows),
        figure=_figure(correct, large),
        fine_print=(
            f"{SHOTS} training images a class, seeds {list(seeds)}; the same epochs, batch size and grid of learning "
            "rates for both tuned methods; rates chosen on home validation only, by the first seed.",
        ),
        quick=quick,
    )


def _figure(correct: Mapping[tuple[str, str], Tensor], large: Sequence[str]) -> str:
    with drawing():
        figure, (axes,) = panels(1, width=5.5, height=4.2)
        for method in METHODS:
            home = correct[method, "test"].double().mean(dim=1)
            away = torch.stack([correct[method, s].double().mean(dim=1) for s in large]).mean(dim=0)
            axes.plot(100 * home, 100 * away, "o", color=COLOURS[method], alpha=0.5, markersize=4)
            axes.plot(100 * home.mean(), 100 * away.mean(), "D", color=COLOURS[method], markersize=9, label=method)
        axes.set(xlabel="accuracy at home, %", ylabel="accuracy away (mean over the large shifts), %")
        axes.legend()
        return as_svg(figure)

"""Claim 2: fine-tuning moves the backbone, linear probing does not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from headfirst.adapt import FineTune, LinearProbe, TunedModel, on_backbone
from headfirst.claims.claim import ClaimResult, Comparison, over_seeds
from headfirst.claims.experiment import SHOTS, ready
from headfirst.claims.figures import COLOURS, as_svg, drawing, panels
from headfirst.data import ImageSet, few_shot
from headfirst.features import embed
from headfirst.nn import PretrainedBackbone
from headfirst.types import Progress, silent

RECIPE = FineTune(lr=1e-3, epochs=4)


def run(
    data: ImageSet,
    backbone: PretrainedBackbone,
    seeds: Sequence[int],
    *,
    quick: bool = False,
    work: Path | None = None,
    progress: Progress = silent,
) -> ClaimResult:
    """Both adaptations on the same images; relative change of every stage, parameters and buffers."""
    data = ready(data, backbone, progress)
    probe_moves, tuned_moves, buffer_moves, seconds = [], [], [], {"probe": [], "finetune": []}
    probe = tuned = None
    for i, seed in enumerate(seeds):
        train = few_shot(data["train"], SHOTS, seed=seed)
        began = time.monotonic()
        probe = on_backbone(backbone, LinearProbe(seed=seed).fit(embed(backbone, train)), seed=seed)
        seconds["probe"].append(time.monotonic() - began)
        began = time.monotonic()
        tuned = FineTune(lr=RECIPE.lr, epochs=RECIPE.epochs, mirror=data.mirror).fit(backbone, train, seed=seed)
        seconds["finetune"].append(time.monotonic() - began)
        normed = FineTune(lr=RECIPE.lr, epochs=1, mirror=data.mirror, train_batch_norm=True).fit(
            backbone, train, seed=seed
        )
        probe_moves.append(changes(backbone, probe.classifier.backbone))
        tuned_moves.append(changes(backbone, tuned.classifier.backbone))
        buffer_moves.append(largest_buffer_change(backbone, normed.classifier.backbone))
        progress("seeds", i + 1, len(seeds))
    assert isinstance(probe, TunedModel)
    assert isinstance(tuned, TunedModel)

    frozen = max(max(moves) for moves in probe_moves)
    buffers = max(largest_buffer_change(backbone, model.classifier.backbone) for model in (probe, tuned))
    stages = list(zip(*tuned_moves, strict=True))
    least = min((over_seeds(list(stage)) for stage in stages), key=lambda interval: interval.low)
    rows = [
        Comparison(what="probe: largest change of any backbone parameter", value=frozen, low=frozen, high=frozen,
                   claimed="exactly"),
        Comparison(what="probe and fine-tuning: largest change of any buffer (batch norm in eval mode)", value=buffers,
                   low=buffers, high=buffers, claimed="exactly"),
        Comparison(what="fine-tuning: relative change of the stage that moves least", value=least.value, low=least.low,
                   high=least.high, claimed="above"),
    ]  # fmt: skip
    if any(True for _ in backbone.buffers()):
        moved = over_seeds(buffer_moves)
        rows.append(
            Comparison(what="fine-tuning with train_batch_norm: largest change of a buffer", value=moved.value,
                       low=moved.low, high=moved.high, claimed="above", primary=False)
        )  # fmt: skip
    head = sum(p.numel() for p in probe.classifier.head.parameters())
    fine_print = (
        f"{SHOTS} images a class, seeds {list(seeds)}. Trained parameters: probe {head:,}, fine-tuning "
        f"{tuned.record['trained_parameters']:,}. Seconds: probe {_mean(seconds['probe']):.2f} (features come from the "
        f"store after the first time), fine-tuning {_mean(seconds['finetune']):.1f}.",
        "Batch-norm statistics count as moving: they stand still because adaptation keeps them in eval mode, and move "
        "as soon as train_batch_norm asks for it.",
    )
    return ClaimResult(
        number=2,
        title="Fine-tuning moves the backbone, linear probing does not",
        statement="After a linear probe every parameter and buffer of the backbone has its bits as before; after "
        "fine-tuning every stage has moved.",
        rows=tuple(rows),
        figure=_figure([over_seeds(list(stage)).value for stage in stages], probe_moves[0]),
        fine_print=fine_print,
        quick=quick,
    )


def changes(before: PretrainedBackbone, after: PretrainedBackbone) -> list[float]:
    """‖θ - θ_0‖ / ‖θ_0‖ of each stage that has parameters."""
    return [
        _distance(old, new)
        for old, new in zip(before.stages, after.stages, strict=True)
        if any(True for _ in old.parameters())
    ]


def largest_buffer_change(before: nn.Module, after: nn.Module) -> float:
    """Largest absolute change of any floating-point buffer's entry (batch counters are no statistics)."""
    pairs = zip(before.buffers(), after.buffers(), strict=True)
    changes = ((new.double() - old.double()).abs().max().item() for old, new in pairs if old.is_floating_point())
    return max(changes, default=0.0)


def _distance(before: nn.Module, after: nn.Module) -> float:
    old = torch.cat([p.detach().double().flatten() for p in before.parameters()])
    new = torch.cat([p.detach().double().flatten() for p in after.parameters()])
    return ((new - old).norm() / old.norm()).item()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _figure(tuned: Sequence[float], probe: Sequence[float]) -> str:
    with drawing():
        figure, (axes,) = panels(1, width=6.0)
        stages = range(len(tuned))
        axes.plot(stages, tuned, "o-", color=COLOURS["finetune"], label="fine-tuning")
        axes.plot(stages, probe, "o-", color=COLOURS["probe"], label="linear probe (exactly 0)")
        axes.set(
            xlabel="stage, from the images to the head",
            ylabel="relative change",
            title="How far each stage moved",
        )
        axes.set_xticks(list(stages))
        axes.set_ylim(bottom=-0.02 * max(tuned))
        axes.legend()
        return as_svg(figure)

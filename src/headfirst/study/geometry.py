"""Where home and shifts lie in feature space, and what fine-tuning did to it: features in, `Geometry` out.

Everything is of the first seed, on at most `MOST` images a split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from headfirst.adapt import TunedModel, outside_share
from headfirst.metrics import (
    bootstrap_interval,
    effective_rank,
    energy_inside,
    linear_cka,
    movement,
    principal_angles,
    span,
)
from headfirst.nn import PretrainedBackbone
from headfirst.types import DistortionReading, Features, Geometry, Movement, SplitGeometry, StageMovement

ENERGY = 0.95


def geometry(
    train: Features,
    before: Mapping[str, Features],
    after: Mapping[str, Mapping[str, Features]],
    backbone: PretrainedBackbone,
    tuned: Mapping[str, TunedModel],
    *,
    seed: int = 0,
) -> Geometry:
    """Measure spans, angles and movements.

    Args:
        train: training features under the pretrained backbone; they span home.
        before: for each reported split, its features under the pretrained backbone.
        after: for each tuned method, the same splits under its backbone.
        tuned: the tuned methods' models; their records hold what the distortion meter saw.
        seed: of the bootstrap.
    """
    home = span(train.values, ENERGY)
    splits = []
    for name, features in before.items():
        energies = energy_inside(features.values, home)
        interval = bootstrap_interval(energies[None], bounds=(0.0, 1.0), seed=seed)
        splits.append(
            SplitGeometry(
                split=name,
                n=len(features),
                angles=tuple(principal_angles(home, span(features.values, ENERGY)).tolist()),
                energy_inside=interval.value,
                low=interval.low,
                high=interval.high,
                effective_rank=effective_rank(features.values),
            )
        )
    movements, readings, stages = [], [], []
    for method, by_split in after.items():
        for name, features in by_split.items():
            moved = movement(before[name].values, features.values, home)
            cka = linear_cka(before[name].values, features.values, debiased=True)
            movements.append(
                Movement(method=method, split=name, inside=moved.inside.mean().item(),
                         outside=moved.outside.mean().item(), cka=cka)
            )  # fmt: skip
        # WiSE-FT carries the record of the model it is mixed from, which was not trained twice.
        record = tuned[method].record.get("distortion", {}) if method != "wise-ft" else {}
        readings += [DistortionReading(**{**reading, "method": method}) for reading in record.get("readings", ())]
        changes = stage_changes(backbone, tuned[method].classifier.backbone)
        stages += [StageMovement(method=method, stage=i, change=change) for i, change in enumerate(changes)]
    return Geometry(
        rank=home.shape[1],
        energy=ENERGY,
        threshold=outside_share(train.values),
        splits=tuple(splits),
        movements=tuple(movements),
        readings=tuple(readings),
        stages=tuple(stages),
    )


def stage_changes(before: PretrainedBackbone, after: PretrainedBackbone) -> list[float]:
    """‖θ - θ_0‖ / ‖θ_0‖ of each stage that has parameters."""
    return [
        _distance(list(old.parameters()), list(new.parameters()))
        for old, new in zip(before.stages, after.stages, strict=True)
        if any(True for _ in old.parameters())
    ]


def _distance(before: Sequence[nn.Parameter], after: Sequence[nn.Parameter]) -> float:
    old, new = (torch.cat([p.detach().double().flatten() for p in side]) for side in (before, after))
    return ((new - old).norm() / old.norm()).item()

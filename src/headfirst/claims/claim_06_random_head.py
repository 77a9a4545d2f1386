"""Claim 6: a random head makes the backbone worse in the first steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.adapt import LPFT, FineTune, LinearProbe
from headfirst.claims.claim import ClaimResult, Comparison, Side, over_seeds
from headfirst.claims.experiment import embed_unstored, ready
from headfirst.claims.figures import COLOURS, as_svg, drawing, panels
from headfirst.data import ImageSet, ImageSplit, few_shot, normalise
from headfirst.features import embed
from headfirst.nn import ImageClassifier, PretrainedBackbone
from headfirst.train import Batch, Optimisation, train
from headfirst.types import Features, Progress, silent

SHOTS = 10
STEPS = (1, 2, 5, 10)
RATES = (1e-4, 1e-3, 1e-2)
JUDGED_STEP = 10
JUDGED_RATE = 1e-3
NUM_TEST = 500

Curves = dict[tuple[str, float, int], list[tuple[float, float]]]
"""(head, learning rate, step) → for each seed (feature drift, change of re-probed accuracy)."""


def run(
    data: ImageSet,
    backbone: PretrainedBackbone,
    seeds: Sequence[int],
    *,
    quick: bool = False,
    work: Path | None = None,
    progress: Progress = silent,
) -> ClaimResult:
    """Full-batch fine-tuning from a random and from a fitted head; features measured and re-probed by step."""
    data = ready(data, backbone, progress)
    test = data["test"].take(range(min(NUM_TEST, len(data["test"]))))
    curves: Curves = defaultdict(list)
    for i, seed in enumerate(seeds):
        images = few_shot(data["train"], SHOTS, seed=seed)
        at_first = embed(backbone, test)
        probe = LinearProbe(seed=seed).fit(embed(backbone, images))
        strength = LinearProbe(l2=probe.l2)
        accuracy = probe.score(at_first)
        for j, rate in enumerate(RATES):
            for head, recipe in (("random head", FineTune()), ("fitted head", LPFT())):
                start = recipe.start(backbone, images, seed=seed, head=probe if head == "fitted head" else None)
                for step, features in _features_by_step(start, images, test, rate, seed).items():
                    trained, asked = features
                    drift = ((asked.values - at_first.values).norm() / at_first.values.norm()).item()
                    again = strength.fit(trained).score(asked)
                    curves[head, rate, step].append((drift, again - accuracy))
            progress("seeds × rates", i * len(RATES) + j + 1, len(seeds) * len(RATES))
    return ClaimResult(
        number=6,
        title="A random head makes the backbone worse in the first steps",
        statement=f"After {JUDGED_STEP} full-batch AdamW steps at learning rate {JUDGED_RATE:g}, features under a "
        "random head have drifted further than under a fitted one, and a probe fitted anew on them is less accurate at "
        "home than one on the pretrained features.",
        rows=_rows(curves),
        figure=_figure(curves),
        fine_print=(
            f"{SHOTS} training images a class in one batch, no augmentation, no layer-wise decay; {len(test)} test "
            f"images; seeds {list(seeds)}. The probe is refitted at the strength the first one chose.",
            "It depends on the learning rate: the other two are shown and not judged. Without warm-up Adam's "
            "first step is as long under a fitted head as under a random one; at 0.01 either wrecks the backbone.",
        ),
        quick=quick,
    )


def _features_by_step(
    start: ImageClassifier, images: ImageSplit, test: ImageSplit, rate: float, seed: int
) -> dict[int, tuple[Features, Features]]:
    """Features of training and test images after each of `STEPS`; one epoch of one full batch is one step."""
    found: dict[int, tuple[Features, Features]] = {}
    preprocessing = start.backbone.preprocessing
    inputs, labels = normalise(images.batch(), preprocessing), torch.as_tensor(images.labels)

    def loss(batch: Batch) -> Tensor:
        return F.cross_entropy(start(inputs[batch.indices]), labels[batch.indices])

    def look(step: int, module: nn.Module) -> bool:
        if step in STEPS:
            found[step] = (embed_unstored(start.backbone, images), embed_unstored(start.backbone, test))
        return False

    recipe = Optimisation(epochs=max(STEPS), batch_size=len(images), warmup=0.0, clip_norm=None)
    groups = [{"params": list(start.parameters()), "lr": rate, "weight_decay": 0.0}]
    train(start.eval(), loss, groups, recipe, num_samples=len(images), seed=seed, callbacks=[look])
    return found


def _rows(curves: Curves) -> tuple[Comparison, ...]:
    rows = []
    for rate in sorted(RATES, key=lambda r: r != JUDGED_RATE):
        random, fitted = (np.array(curves[head, rate, JUDGED_STEP]) for head in ("random head", "fitted head"))

        def row(what: str, values: np.ndarray, claimed: Side, rate: float = rate) -> Comparison:
            found = over_seeds(values)
            return Comparison(
                what=f"learning rate {rate:g}: {what}", value=found.value, low=found.low, high=found.high,
                claimed=claimed, primary=rate == JUDGED_RATE,
            )  # fmt: skip

        rows += [
            row("drift of test features, random head - fitted head", (random - fitted)[:, 0], "above"),
            row("re-probed accuracy after a random head - before", random[:, 1], "below"),
            row("re-probed accuracy, random head - fitted head", (random - fitted)[:, 1], "below"),
        ]
    return tuple(rows)


def _figure(curves: Mapping[tuple[str, float, int], list[tuple[float, float]]]) -> str:
    with drawing():
        figure, axes = panels(2 * len(RATES), width=13.0)
        for column, rate in enumerate(RATES):
            for row, name in enumerate(("relative drift of features", "re-probed accuracy (points)")):
                panel = axes[row * len(RATES) + column]
                for head in ("random head", "fitted head"):
                    means = [over_seeds([(v[0], 100 * v[1])[row] for v in curves[head, rate, step]]) for step in STEPS]
                    panel.plot(STEPS, [m.value for m in means], "o-", color=COLOURS[head], label=head)
                    panel.fill_between(
                        STEPS, [m.low for m in means], [m.high for m in means], color=COLOURS[head], alpha=0.2
                    )
                panel.set(xscale="log", xlabel="step", title=f"{name},\nlearning rate {rate:g}")
                panel.set_xticks(STEPS, [str(step) for step in STEPS])
        axes[0].legend()
        return as_svg(figure)

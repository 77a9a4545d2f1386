"""Claim 5: fine-tuning leaves the out-of-domain projection unchanged.

Shape letters: N images, D features, r dimensions of the home span.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from headfirst.adapt import LPFT, FineTune, LinearProbe, LinearProbeModel
from headfirst.claims.claim import ClaimResult, Comparison, judged, over_seeds, range_found
from headfirst.claims.experiment import SHOTS, embed_unstored, large_shifts, ready, some_of_each
from headfirst.claims.figures import COLOURS, FINETUNE, INK, PROBE, as_svg, drawing, panels
from headfirst.claims.linear_network import OPTIMISERS, LinearMovement, linear_movement
from headfirst.data import ImageSet, ImageSplit, few_shot, normalise
from headfirst.features import embed
from headfirst.metrics import Interval, energy_inside, movement, span
from headfirst.nn import PretrainedBackbone
from headfirst.train import Batch, Optimisation, train
from headfirst.types import Progress, silent

RECIPES: Mapping[str, type[FineTune]] = {"random head": FineTune, "fitted head": LPFT}
DESCENT = "fitted head, gradient descent"
HEADS = (*RECIPES, DESCENT)
"""How the backbone is tuned: by the recipes (AdamW), and as the theorem has it, by plain gradient descent."""

RATE, DESCENT_RATE, EPOCHS = 1e-3, 0.1, 4

ENERGY = 0.95
"""The home span is the fewest directions that hold this share of the squared norm of the training features."""

ENERGIES = (0.8, 0.9, 0.95, 0.99)
"""The spans in the picture."""

ROUNDING = 1e-10
NEGLIGIBLE = 0.1
"""Largest ratio of orthogonal to home movement that still counts as unchanged."""

NUM_ASKED = 150


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Movement of some images against the home span.

    Attributes:
        inside, outside: means of ‖moved part‖ / ‖feature before‖.
        there: mean norm of what lay outside before, over that of what lay inside; `ratio` is the same where all
            directions change alike.
    """

    inside: float
    outside: float
    there: float

    @property
    def ratio(self) -> float:
        """Orthogonal over home movement."""
        return self.outside / self.inside


Linear = Mapping[str, list[LinearMovement]]
"""Optimiser → for each seed."""

Deep = Mapping[tuple[str, float, str], list[Shares]]
"""(one of `HEADS`, energy of the span, "shifted" or "home") → for each seed."""


def run(
    data: ImageSet,
    backbone: PretrainedBackbone,
    seeds: Sequence[int],
    *,
    quick: bool = False,
    work: Path | None = None,
    progress: Progress = silent,
) -> ClaimResult:
    """A linear network on the features of shifted images, then the backbone itself from both heads."""
    data = ready(data, backbone, progress)
    splits = some_of_each(data, NUM_ASKED)
    before = {name: embed(backbone, split, progress=progress).values for name, split in splits.items()}
    away = large_shifts(data)
    shifted = torch.cat([before[name] for name in away])
    linear: dict[str, list[LinearMovement]] = defaultdict(list)
    deep: dict[tuple[str, float, str], list[Shares]] = defaultdict(list)
    for i, seed in enumerate(seeds):
        images = few_shot(data["train"], SHOTS, seed=seed)
        home = embed(backbone, images)
        probe = LinearProbe(seed=seed).fit(home)
        for name in OPTIMISERS:
            linear[name].append(linear_movement(home, shifted, name, seed=seed))
        for j, how in enumerate(HEADS):
            tuned = fine_tuned(how, backbone, images, probe, mirror=data.mirror, seed=seed)
            after = {name: embed_unstored(tuned, split).values for name, split in splits.items()}
            moved = torch.cat([after[name] for name in away])
            for energy in ENERGIES:
                basis = span(home.values, energy)
                deep[how, energy, "shifted"].append(shares(shifted, moved, basis))
                deep[how, energy, "home"].append(shares(before["test"], after["test"], basis))
            progress("models", i * len(HEADS) + j + 1, len(seeds) * len(HEADS))
    return ClaimResult(
        number=5,
        title="Fine-tuning leaves the out-of-domain projection unchanged",
        statement="(1) In a two-layer linear network under gradient descent, features of inputs orthogonal to the "
        f"training inputs change by less than {ROUNDING:g} of their norm, while others do change. (2) In the backbone, "
        "fine-tuned from a random or a fitted head, features of shifted images move orthogonally to the home span "
        f"({ENERGY:.0%} of the squared norm of the training features) by less than {NEGLIGIBLE:g} of their movement "
        "inside it.",
        rows=_rows(linear, deep),
        figure=_figure(linear, deep),
        fine_print=(
            f"{SHOTS} training images a class, seeds {list(seeds)}; {NUM_ASKED} images of each large shift; "
            f"{EPOCHS} epochs, AdamW at learning rate {RATE:g}, gradient descent at {DESCENT_RATE:g}. The linear "
            "network learns from at most half as many images as features have dimensions; each shifted feature is cut "
            "into what lies in their span and the rest.",
            "Exact in linear networks, under gradient descent without weight decay. AdamW moves the complement even "
            "there: decay shrinks everything, and its steps scale each coordinate by itself.",
            "In a deep network nothing keeps the complement still, under gradient descent either: each layer's inputs "
            "have a span of their own, and what lies between the layers is not linear. The dotted line is what a map "
            "that changes all directions alike would give.",
        ),
        quick=quick,
    )


def fine_tuned(
    how: str,
    backbone: PretrainedBackbone,
    images: ImageSplit,
    probe: LinearProbeModel,
    *,
    mirror: bool,
    seed: int,
) -> PretrainedBackbone:
    """The backbone after fine-tuning as one of `HEADS` says; `backbone` stays as it was."""
    if how == DESCENT:
        return _descended(backbone, images, probe, seed=seed)
    recipe = RECIPES[how](lr=RATE, epochs=EPOCHS, mirror=mirror)
    head = probe if isinstance(recipe, LPFT) else None
    return recipe.fit(backbone, images, seed=seed, head=head).classifier.backbone


def _descended(
    backbone: PretrainedBackbone, images: ImageSplit, probe: LinearProbeModel, *, seed: int
) -> PretrainedBackbone:
    recipe = LPFT(lr=DESCENT_RATE, epochs=EPOCHS)
    model = recipe.start(backbone, images, seed=seed, head=probe).eval()
    inputs, labels = normalise(images.batch(), backbone.preprocessing), torch.as_tensor(images.labels)

    def loss(batch: Batch) -> Tensor:
        return F.cross_entropy(model(inputs[batch.indices]), labels[batch.indices])

    groups = [{"params": list(model.parameters()), "lr": DESCENT_RATE}]
    optimisation = Optimisation(epochs=EPOCHS, batch_size=recipe.batch_size)
    train(model, loss, groups, optimisation, num_samples=len(images), seed=seed, optimiser=torch.optim.SGD)
    return model.backbone


def shares(before: Tensor, after: Tensor, basis: Tensor) -> Shares:
    """Movement of features (N, D) against the home span `basis` (D, r)."""
    moved, inside = movement(before, after, basis), energy_inside(before, basis)
    return Shares(
        inside=moved.inside.mean().item(),
        outside=moved.outside.mean().item(),
        there=((1 - inside).sqrt().mean() / inside.sqrt().mean()).item(),
    )


def _rows(linear: Linear, deep: Deep) -> tuple[Comparison, ...]:
    def largest(optimiser: str) -> Interval:
        return range_found([found.orthogonal for found in linear[optimiser]])

    def ratio(how: str) -> Comparison:
        found = over_seeds([found.ratio for found in deep[how, ENERGY, "shifted"]])
        return judged(f"backbone, {how}: orthogonal over home movement", found, "below", NEGLIGIBLE,
                      primary=how in RECIPES)  # fmt: skip

    def further(how: str) -> Comparison:
        pairs = zip(deep[how, ENERGY, "shifted"], deep[how, ENERGY, "home"], strict=True)
        gap = over_seeds([away.outside - home.outside for away, home in pairs])
        return judged(f"backbone, {how}: orthogonal movement over the norm, shifted - held-out home", gap, "below",
                      primary=False)  # fmt: skip

    inside = range_found([found.inside for found in linear["gradient descent"]])
    return (
        judged("linear network: largest change of features orthogonal to the training inputs",
               largest("gradient descent"), "below", ROUNDING),
        judged("linear network: mean change of features in their span", inside, "above", ROUNDING),
        *(ratio(how) for how in HEADS),
        judged("linear network under AdamW: largest change orthogonally", largest("AdamW"), "below", ROUNDING,
               primary=False),
        *(further(how) for how in RECIPES),
    )  # fmt: skip


def _figure(linear: Linear, deep: Deep) -> str:
    with drawing():
        figure, (left, right) = panels(2, width=9.5, height=3.8)
        for x, found in enumerate(linear.values()):
            for label, colour, values in (
                ("orthogonal to the training inputs", PROBE, [each.orthogonal for each in found]),
                ("in their span", FINETUNE, [each.inside for each in found]),
            ):
                left.plot([x] * len(values), values, "o", color=colour, label=label if x == 0 else None, alpha=0.7)
        left.axhline(ROUNDING, color=INK, linewidth=0.8, linestyle="--")
        left.annotate("to rounding", (-0.45, ROUNDING), xytext=(0, -11), textcoords="offset points", color=INK)
        left.set_xticks(range(len(linear)), list(linear))
        left.set(yscale="log", xlim=(-0.5, len(linear) - 0.5), ylabel="relative change of features",
                 title="Two-layer linear network")  # fmt: skip
        left.legend(loc="center right")
        percent = [100 * energy for energy in ENERGIES]
        for how in HEADS:
            curve = [over_seeds([each.ratio for each in deep[how, energy, "shifted"]]) for energy in ENERGIES]
            colour, style = (PROBE, "s--") if how == DESCENT else (COLOURS[how], "o-")
            right.plot(percent, [f.value for f in curve], style, color=colour, label=how, markersize=4)
            right.fill_between(percent, [f.low for f in curve], [f.high for f in curve], color=colour, alpha=0.15)
        there = [over_seeds([each.there for each in deep[HEADS[0], energy, "shifted"]]).value for energy in ENERGIES]
        right.plot(percent, there, ":", color=INK, label="if all directions changed alike")
        right.axhline(NEGLIGIBLE, color=INK, linewidth=0.8, linestyle="--")
        right.annotate("below: unchanged", (80, NEGLIGIBLE), xytext=(0, 3), textcoords="offset points", color=INK)
        right.set_xticks(percent)
        right.set(xlabel="home features' squared norm in the home span, %", ylabel="orthogonal over home movement",
                  title="The backbone, on shifted images", ylim=(0, 1.25 * right.get_ylim()[1]))  # fmt: skip
        right.legend(loc="upper right", fontsize=8)
        return as_svg(figure)

"""Claim 5: fine-tuning leaves the out-of-domain projection unchanged.

Exactly so in the two-layer linear network f(x) = V B x of Kumar et al. (ICLR 2022): gradients of B are (…)xᵀ, so B never
moves on the orthogonal complement of the training inputs. Then the same is measured on the backbone itself.

Shape letters: N images, D features, K classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.adapt import LPFT, FineTune
from headfirst.claims.claim import ClaimResult, Comparison, judged, over_seeds, range_found
from headfirst.claims.experiment import SHOTS, embed_unstored, large_shifts, ready, some_of_each
from headfirst.claims.figures import COLOURS, INK, as_svg, drawing, panels
from headfirst.data import ImageSet, few_shot, shuffled_by_name
from headfirst.features import embed
from headfirst.metrics import energy_inside, movement, span
from headfirst.nn import PretrainedBackbone, random_head
from headfirst.train import Batch, Optimisation, train
from headfirst.types import Features, Progress, silent

RECIPES: Mapping[str, type[FineTune]] = {"random head": FineTune, "fitted head": LPFT}
RATE, EPOCHS = 1e-3, 4

ENERGY = 0.95
"""The home span is the fewest directions that hold this share of the squared norm of the training features."""

ENERGIES = (0.8, 0.9, 0.95, 0.99)
"""The other spans that the picture shows."""

ROUNDING = 1e-10
NEGLIGIBLE = 0.1
"""Largest ratio of orthogonal to home movement that still counts as unchanged."""

NUM_ASKED = 150
LINEAR_STEPS = 300
OPTIMISERS: Mapping[str, tuple[Callable[[list[dict[str, Any]]], torch.optim.Optimizer], float]] = {
    "gradient descent": (torch.optim.SGD, 0.5),
    "AdamW": (torch.optim.AdamW, 0.01),
}
"""Name → optimiser and learning rate of the linear network."""


class TwoLayerLinear(nn.Module):
    """f(x) = V B x in float64; B begins as the identity, so that the features begin as the backbone's own."""

    def __init__(self, num_features: int, num_classes: int, *, seed: int) -> None:
        super().__init__()
        self.B = nn.Parameter(torch.eye(num_features, dtype=torch.float64))
        self.V = nn.Parameter(random_head(num_features, num_classes, seed=seed).weight.detach().double())

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.B.T @ self.V.T


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Movement of some images: means of ‖moved part‖ / ‖feature before‖ inside and outside the home span.

    Attributes:
        there: mean norm of what lay outside before, over that of what lay inside.
    """

    inside: float
    outside: float
    there: float

    @property
    def ratio(self) -> float:
        """Orthogonal over home movement."""
        return self.outside / self.inside


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
    shifted = torch.cat([before[name] for name in large_shifts(data)])
    linear: dict[str, list[tuple[float, float]]] = defaultdict(list)
    deep: dict[tuple[str, float, str], list[Shares]] = defaultdict(list)
    for i, seed in enumerate(seeds):
        images = few_shot(data["train"], SHOTS, seed=seed)
        home = embed(backbone, images)
        for name in OPTIMISERS:
            linear[name].append(linear_movement(home, shifted, name, seed=seed))
        for j, (head, recipe) in enumerate(RECIPES.items()):
            tuned = recipe(lr=RATE, epochs=EPOCHS, mirror=data.mirror).fit(backbone, images, seed=seed)
            after = {name: embed_unstored(tuned.classifier.backbone, split).values for name, split in splits.items()}
            for energy in ENERGIES:
                basis = span(home.values, energy)
                deep[head, energy, "home"].append(shares(before["test"], after["test"], basis))
                moved = torch.cat([after[name] for name in large_shifts(data)])
                deep[head, energy, "shifted"].append(shares(shifted, moved, basis))
            progress("models", i * len(RECIPES) + j + 1, len(seeds) * len(RECIPES))
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
            f"{SHOTS} training images a class, seeds {list(seeds)}; fine-tuning at learning rate {RATE:g} for {EPOCHS} "
            f"epochs; {NUM_ASKED} images of each large shift. The linear network sees the backbone's features of at "
            "most half as many training images as they have dimensions, so that a complement is left; its shifted "
            "inputs are the shifted features, cut into what lies in the span of the training inputs and the rest.",
            "Exact for gradient descent without weight decay and in linear networks. AdamW moves the complement too: "
            "its decay shrinks everything, and its step scales each coordinate by itself.",
            "In deep networks it is a question of degree. 'Beside what was there' divides the ratio by that of the "
            "projections themselves: 1 is what a map that turns all directions alike would give.",
        ),
        quick=quick,
    )


def linear_movement(home: Features, shifted: Tensor, optimiser: str, *, seed: int) -> tuple[float, float]:
    """How far full-batch training moves Bz, relative to ‖z‖: largest over z orthogonal to the training inputs, and
    mean over z in their span. Both kinds are parts of the rows of `shifted` (N, D)."""
    dim = shifted.shape[1]
    few = home.take(shuffled_by_name(home.ids, seed=seed)[: max(1, dim // 2)])
    scale = few.values.double().square().sum(dim=1).mean().sqrt()
    x, z = few.values.double() / scale, shifted.double() / scale
    model = TwoLayerLinear(dim, len(home.classes), seed=seed)

    def loss(batch: Batch) -> Tensor:
        return F.cross_entropy(model(x[batch.indices]), few.labels[batch.indices])

    make, rate = OPTIMISERS[optimiser]
    recipe = Optimisation(epochs=LINEAR_STEPS, batch_size=len(x), warmup=0.0, clip_norm=None)
    groups = [{"params": [model.B, model.V], "lr": rate}]
    train(model, loss, groups, recipe, num_samples=len(x), seed=seed, optimiser=make)

    moved = (model.B - torch.eye(dim, dtype=torch.float64)).detach()
    basis = torch.linalg.qr(x.T).Q
    inside = z @ basis @ basis.T
    outside = z - inside
    return (
        ((outside @ moved.T).norm(dim=1) / outside.norm(dim=1)).max().item(),
        ((inside @ moved.T).norm(dim=1) / inside.norm(dim=1)).mean().item(),
    )


def shares(before: Tensor, after: Tensor, basis: Tensor) -> Shares:
    """Movement of features (N, D) against the home span `basis` (D, r)."""
    moved, inside = movement(before, after, basis), energy_inside(before, basis)
    return Shares(
        inside=moved.inside.mean().item(),
        outside=moved.outside.mean().item(),
        there=((1 - inside).sqrt().mean() / inside.sqrt().mean()).item(),
    )


def _rows(
    linear: Mapping[str, list[tuple[float, float]]], deep: Mapping[tuple[str, float, str], list[Shares]]
) -> tuple[Comparison, ...]:
    exact, adam = ([list(column) for column in zip(*linear[name], strict=True)] for name in OPTIMISERS)
    rows = [
        judged("linear network: largest change of features orthogonal to the training inputs", range_found(exact[0]),
               "below", ROUNDING),
        judged("linear network: mean change of features in their span", range_found(exact[1]), "above", ROUNDING),
    ]  # fmt: skip
    for head in RECIPES:
        found = [each.ratio for each in deep[head, ENERGY, "shifted"]]
        rows.append(judged(f"backbone, {head}: orthogonal over home movement", over_seeds(found), "below", NEGLIGIBLE))
    rows.append(judged("linear network under AdamW: largest change orthogonally", range_found(adam[0]), "below",
                       ROUNDING, primary=False))  # fmt: skip
    for head in RECIPES:
        away, home = deep[head, ENERGY, "shifted"], deep[head, ENERGY, "home"]
        relative = over_seeds([each.ratio / each.there for each in away])
        rows += [
            judged(f"backbone, {head}: the same ratio beside what was there", relative, "below", 1.0, primary=False),
            judged(f"backbone, {head}: orthogonal movement, of the features' norm",
                   over_seeds([each.outside for each in away]), "below", 0.01, primary=False),
            judged(f"backbone, {head}: orthogonal movement, shifted - held-out home",
                   over_seeds([a.outside - h.outside for a, h in zip(away, home, strict=True)]), "below",
                   primary=False),
        ]  # fmt: skip
    return tuple(rows)


def _figure(
    linear: Mapping[str, list[tuple[float, float]]], deep: Mapping[tuple[str, float, str], list[Shares]]
) -> str:
    with drawing():
        figure, (left, right) = panels(2, width=9.5, height=3.6)
        kinds = ("orthogonal to the training inputs", "in their span")
        for x, (name, found) in enumerate(linear.items()):
            for kind, (label, colour) in enumerate(zip(kinds, (COLOURS["probe"], COLOURS["finetune"]), strict=True)):
                # A change of exactly nothing has no logarithm; it is drawn at the bottom.
                values = [max(pair[kind], 1e-17) for pair in found]
                left.plot([x] * len(values), values, "o", color=colour, label=label if x == 0 else None, alpha=0.7)
        left.axhline(ROUNDING, color=INK, linewidth=0.8, linestyle="--")
        left.set_xticks(range(len(linear)), list(linear))
        left.set(yscale="log", xlim=(-0.5, len(linear) - 0.5), ylabel="relative change of features",
                 title="Two-layer linear network")  # fmt: skip
        left.legend(loc="center left")
        for head in RECIPES:
            found = [over_seeds([each.ratio for each in deep[head, energy, "shifted"]]) for energy in ENERGIES]
            percent = [100 * energy for energy in ENERGIES]
            right.plot(percent, [f.value for f in found], "o-", color=COLOURS[head], label=head)
            right.fill_between(percent, [f.low for f in found], [f.high for f in found], color=COLOURS[head], alpha=0.2)
        there = [over_seeds([each.there for each in deep["random head", energy, "shifted"]]).value for energy in ENERGIES]
        right.plot(percent, there, ":", color=INK, label="if all directions moved alike")
        right.axhline(NEGLIGIBLE, color=INK, linewidth=0.8, linestyle="--")
        right.annotate("unchanged", (80, NEGLIGIBLE), xytext=(0, -11), textcoords="offset points", color=INK)
        right.set(xlabel="home features' squared norm in the home span, %", ylabel="orthogonal over home movement",
                  title="The backbone, on shifted images", ylim=(0, None))  # fmt: skip
        right.legend()
        return as_svg(figure)

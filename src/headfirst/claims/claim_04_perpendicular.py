"""Claim 4: in-domain and out-of-domain directions are (nearly) perpendicular.

Shape letters: N images, D features, r dimensions of the home span, S seeds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from headfirst.claims.claim import ClaimResult, Comparison, judged, over_seeds
from headfirst.claims.experiment import SHOTS, groups_of_shifts, ready, some_of_each
from headfirst.claims.figures import FINETUNE, INK, PROBE, as_svg, drawing, panels
from headfirst.data import ImageSet, few_shot
from headfirst.features import embed
from headfirst.metrics import Interval, bootstrap_interval, energy_inside, mean_over_splits, principal_angles, span
from headfirst.nn import PretrainedBackbone
from headfirst.types import Progress, silent

ENERGY = 0.95
"""A span is the fewest directions that hold this share of the squared norm of some features."""

NEARLY = 80.0
"""Degrees from which on directions are called nearly perpendicular; cos² is then 0.03."""

NUM_ASKED = 300
"""Images of each split."""

HOME = "test"
"""Held-out home images: whatever is said of shifted features must be compared with these."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What each draw of home images sees.

    Attributes:
        outside: split → for each seed (N,) shares of the squared norm outside the home span, in [0, 1].
        angles: split → for each seed the principal angles between the home span and the split's, degrees, ascending.
        common: split → for each seed the mean share of the squared norm along the mean direction of the home features.
        ranks: r of each seed.
        complement: largest departure from 90 degrees of a span's angles to its own complement.
    """

    outside: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    angles: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    common: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ranks: list[int] = field(default_factory=list)
    complement: list[float] = field(default_factory=list)

    def add(self, home: Tensor, asked: Mapping[str, Tensor], origin: Tensor) -> None:
        """Measure from `origin` against the span of `home` (M, D); as many images span a split as span home."""
        basis = span(home - origin, ENERGY)
        rank = basis.shape[1]
        self.ranks.append(rank)
        mean_direction = F.normalize(home.mean(dim=0), dim=0)[:, None]
        if rank < home.shape[1]:
            complement = torch.linalg.qr(basis, mode="complete").Q[:, rank:]
            self.complement.append((90 - principal_angles(basis, complement).rad2deg()).abs().max().item())
        for name, values in asked.items():
            seen = values - origin
            self.common[name].append(energy_inside(values, mean_direction).mean().item())
            self.outside[name].append(1 - energy_inside(seen, basis))
            self.angles[name].append(principal_angles(basis, span(seen[: len(home)], ENERGY)).rad2deg())

    def excess(self, away: Sequence[str]) -> Interval:
        """Mean share outside of the splits `away` less that of held-out home; over images and seeds."""
        blocks = [torch.stack(self.outside[name]) for name in away]
        home = torch.stack(self.outside[HOME])
        if not any(name.startswith("shift-") for name in away):  # corruptions are of the home images: pairs
            return bootstrap_interval(torch.stack(blocks).mean(dim=0) - home, seed=0, bounds=(-1.0, 1.0))
        k = len(away)  # of k + 1 independent splits the mean of x_1 … x_k and -k h is (Σ x - k h) / (k + 1)
        found = mean_over_splits([*blocks, -k * home], seed=0, bounds=(-float(k), 1.0))
        return Interval(*(value * (k + 1) / k for value in (found.value, found.low, found.high)))

    def angle(self, names: Sequence[str]) -> Interval:
        """Mean principal angle over the splits, in degrees; over seeds."""
        return over_seeds(np.mean([[angles.mean().item() for angles in self.angles[name]] for name in names], axis=0))

    def extremes(self, names: Sequence[str]) -> str:
        """The least, mean and greatest angle, each a mean over seeds and splits."""
        every = [angles for name in names for angles in self.angles[name]]
        least, mean, most = (
            sum(of(angles).item() for angles in every) / len(every) for of in (torch.min, torch.mean, torch.max)
        )
        return f"{least:.0f}, {mean:.0f} and {most:.0f} degrees"


def run(
    data: ImageSet,
    backbone: PretrainedBackbone,
    seeds: Sequence[int],
    *,
    quick: bool = False,
    work: Path | None = None,
    progress: Progress = silent,
) -> ClaimResult:
    """Spans of few-shot home features against held-out home and shifted ones, centred by the home mean and not."""
    data = ready(data, backbone, progress)
    splits = some_of_each(data, NUM_ASKED)
    asked = {name: embed(backbone, split, progress=progress).values.double() for name, split in splits.items()}
    centred, uncentred = Seen(), Seen()
    for i, seed in enumerate(seeds):
        home = embed(backbone, few_shot(data["train"], SHOTS, seed=seed)).values.double()
        centred.add(home, asked, home.mean(dim=0))
        uncentred.add(home, asked, torch.zeros(home.shape[1], dtype=torch.float64))
        progress("seeds", i + 1, len(seeds))
    groups = groups_of_shifts(data)
    return ClaimResult(
        number=4,
        title="In-domain and out-of-domain directions are (nearly) perpendicular",
        statement=f"Seen from the mean of the home features, with {ENERGY:.0%} of the squared norm of the training "
        "features in their span: (1) of the squared norm of shifted features a larger share lies outside that span "
        "than of held-out home features; (2) the principal angles between that span and the span of shifted features "
        f"have a mean above {NEARLY:g} degrees.",
        rows=_rows(centred, uncentred, groups),
        figure=_figure(centred, uncentred, groups),
        fine_print=_fine_print(centred, uncentred, groups, backbone.feature_dim, seeds),
        quick=quick,
    )


def _rows(centred: Seen, uncentred: Seen, groups: Mapping[str, Sequence[str]]) -> tuple[Comparison, ...]:
    rows = []
    for seen, how in ((centred, "centred"), (uncentred, "not centred")):
        primary = seen is centred
        rows += [
            judged(f"{how}: share outside the home span, {group} - held-out home", seen.excess(names), "above",
                   primary=primary)
            for group, names in groups.items()
        ]  # fmt: skip
        rows += [
            judged(f"{how}: mean angle to {group}, degrees", seen.angle(names), "above", NEARLY, primary=primary)
            for group, names in groups.items()
        ]
        rows.append(judged(f"{how}: mean angle to held-out home, degrees", seen.angle([HOME]), "below", NEARLY,
                           primary=False))  # fmt: skip
    return tuple(rows)


def _fine_print(
    centred: Seen, uncentred: Seen, groups: Mapping[str, Sequence[str]], dim: int, seeds: Sequence[int]
) -> tuple[str, ...]:
    everyone = {**groups, "held-out home": [HOME]}
    measured = "; ".join(
        f"{group} {centred.extremes(names)} ({uncentred.extremes(names)} not centred)"
        for group, names in everyone.items()
    )
    widths = [len(angles) for members in groups.values() for name in members for angles in centred.angles[name]]
    complements = [*centred.complement, *uncentred.complement]
    exact = f" (here to {max(complements):.0e} degrees)" if complements else ""
    return (
        f"{SHOTS} training images a class, seeds {list(seeds)} (another draw each); {NUM_ASKED} images of each split. "
        f"Of {dim} dimensions the home span takes {_spread(centred.ranks)} (not centred {_spread(uncentred.ranks)}), "
        f"which gives {_spread(widths)} angles to a shift, as many as the smaller span has dimensions.",
        f"Least, mean and greatest principal angle: {measured}. Held-out home is the yardstick: what it reaches is "
        "the effect of few images, not of a shift.",
        "By construction only the orthogonal complement of the home span is perpendicular to it"
        f"{exact}; shifted features are not in that complement.",
        "Centring matters as far as features share a mean direction: along that of home lie "
        + ", ".join(
            f"{_mean(uncentred.common, names):.0%} of the squared norm of {group}" for group, names in everyone.items()
        )
        + ". Spans seen from zero share it; the verdict rests on the centred rows.",
    )


def _mean(found: Mapping[str, Sequence[float]], names: Sequence[str]) -> float:
    return float(np.mean([found[name] for name in names]))


def _spread(counts: Sequence[int]) -> str:
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _figure(centred: Seen, uncentred: Seen, groups: Mapping[str, Sequence[str]]) -> str:
    names = [HOME, *(name for members in groups.values() for name in members)]
    with drawing():
        figure, (shares, angles) = panels(2, width=9.5, height=0.24 * len(names) + 1.8)
        for y, name in enumerate(names[::-1]):
            colour = _colour(name)
            for seen, face, lift in ((centred, colour, 0.14), (uncentred, "white", -0.14)):
                found = bootstrap_interval(torch.stack(seen.outside[name]), seed=0, bounds=(0.0, 1.0))
                shares.plot([100 * found.low, 100 * found.high], [y + lift] * 2, color=colour, linewidth=1.5)
                shares.plot(100 * found.value, y + lift, "o", color=colour, markersize=5, markerfacecolor=face)
            for seen, style in ((centred, "-"), (uncentred, ":")):
                count = min(len(found) for found in seen.angles[name])
                curve = torch.stack([found[:count] for found in seen.angles[name]]).mean(dim=0)
                angles.plot(range(1, count + 1), curve, style, color=colour, linewidth=0.8 if colour == INK else 2.0)
        for face, label in ((INK, "centred"), ("white", "not centred")):
            shares.plot([], [], "o", color=INK, markersize=5, markerfacecolor=face, label=label)
        shares.set_yticks(range(len(names)), ["held-out home", *names[1:]][::-1])
        shares.set(
            xlabel="squared norm outside the home span, %", title="How much the home span misses", xlim=(0, None)
        )
        shares.legend(loc="lower right")
        for label, members in {"held-out home": [HOME], **groups}.items():
            colour = _colour(members[0])
            angles.plot([], [], color=colour, linewidth=0.8 if colour == INK else 2.0, label=label)
        angles.axhline(90, color=INK, linewidth=0.8, linestyle="--")
        angles.annotate("perpendicular", (1, 90), xytext=(0, 3), textcoords="offset points", color=INK)
        angles.set(xlabel="principal angle, from the smallest (dotted: not centred)", ylabel="degrees", ylim=(0, 130),
                   title="Angles between the home span and others")  # fmt: skip
        angles.set_yticks(range(0, 91, 15))
        angles.legend(loc="upper right")
        return as_svg(figure)


def _colour(name: str) -> str:
    return PROBE if name == HOME else FINETUNE if name.startswith("shift-") else INK

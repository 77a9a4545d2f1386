"""Claim 4: in-domain and out-of-domain directions are (nearly) perpendicular.

Shape letters: N images, M home images, D features, r and q dimensions of spans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    """A split against the home span of one draw of training images.

    Attributes:
        outside: (N,) shares of the squared norm outside the home span, in [0, 1].
        angles: (min(r, q),) principal angles between the home span and the split's, degrees, ascending.
        chance: the same for a random span of the split's q dimensions.
        rank: r.
    """

    outside: Tensor
    angles: Tensor
    chance: Tensor
    rank: int


Found = Mapping[str, Sequence[Seen]]
"""Split → for each seed."""


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
    centred, uncentred = ({name: [] for name in asked} for _ in range(2))
    common = []
    for i, seed in enumerate(seeds):
        home = embed(backbone, few_shot(data["train"], SHOTS, seed=seed)).values.double()
        mean = home.mean(dim=0)
        common.append(energy_inside(asked[HOME], F.normalize(mean, dim=0)[:, None]).mean().item())
        for name, values in asked.items():
            centred[name].append(see(home - mean, values - mean, seed=seed))
            uncentred[name].append(see(home, values, seed=seed))
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
        figure=_figure(centred, groups),
        fine_print=_fine_print(centred, groups, common, backbone.feature_dim, seeds),
        quick=quick,
    )


def see(home: Tensor, values: Tensor, *, seed: int) -> Seen:
    """Measure `values` (N, D) against the span of `home` (M, D); at most M images make the split's own span."""
    basis, own = span(home, ENERGY), span(values[: len(home)], ENERGY)
    generator = torch.Generator().manual_seed(seed)
    chance = torch.linalg.qr(torch.randn(own.shape, generator=generator, dtype=torch.float64)).Q
    return Seen(
        outside=1 - energy_inside(values, basis),
        angles=principal_angles(basis, own).rad2deg(),
        chance=principal_angles(basis, chance).rad2deg(),
        rank=basis.shape[1],
    )


def excess(found: Found, away: Sequence[str]) -> Interval:
    """Mean share outside of the splits `away` less that of held-out home; over images and seeds."""
    blocks = [torch.stack([seen.outside for seen in found[name]]) for name in away]
    home = torch.stack([seen.outside for seen in found[HOME]])
    if not any(name.startswith("shift-") for name in away):  # corruptions are of the home images: pairs
        return bootstrap_interval(torch.stack(blocks).mean(dim=0) - home, seed=0, bounds=(-1.0, 1.0))
    k = len(away)  # of k + 1 independent splits the mean of x_1 … x_k and -k h is (Σ x - k h) / (k + 1)
    mean = mean_over_splits([*blocks, -k * home], seed=0, bounds=(-float(k), 1.0))
    return Interval(*(value * (k + 1) / k for value in (mean.value, mean.low, mean.high)))


def mean_angle(found: Found, names: Sequence[str], *, chance: bool = False) -> Interval:
    """Mean principal angle over the splits, in degrees; over seeds. `chance`: to random spans of their dimensions."""
    each = [[(seen.chance if chance else seen.angles).mean().item() for seen in found[name]] for name in names]
    return over_seeds(np.mean(each, axis=0))


def _rows(centred: Found, uncentred: Found, groups: Mapping[str, Sequence[str]]) -> tuple[Comparison, ...]:
    def angle(found: Found, names: Sequence[str], to: str, *, primary: bool = False) -> Comparison:
        return judged(f"mean angle to {to}, degrees", mean_angle(found, names), "above", NEARLY, primary=primary)

    return (
        *(judged(f"share outside the home span, {group} - held-out home", excess(centred, names), "above")
          for group, names in groups.items()),
        *(angle(centred, names, group, primary=True) for group, names in groups.items()),
        judged("mean angle to held-out home, degrees", mean_angle(centred, [HOME]), "below", NEARLY, primary=False),
        *(angle(uncentred, names, f"{group}, not centred") for group, names in groups.items()),
    )  # fmt: skip


def _fine_print(
    found: Found, groups: Mapping[str, Sequence[str]], common: Sequence[float], dim: int, seeds: Sequence[int]
) -> tuple[str, ...]:
    ranks = sorted({seen.rank for of_split in found.values() for seen in of_split})
    chance = ", ".join(
        f"{mean_angle(found, names, chance=True).value:.0f} ({group})" for group, names in groups.items()
    )
    return (
        f"{SHOTS} training images a class, seeds {list(seeds)} (another draw each); {NUM_ASKED} images of each split. "
        f"Of {dim} dimensions the home span takes {' to '.join(map(str, dict.fromkeys((ranks[0], ranks[-1]))))}.",
        "Held-out home is the yardstick below: its angle is the effect of few images, not of a shift. The one above: "
        f"random spans of the shifts' own dimensions lie at a mean of {chance} degrees, since spans this large cannot "
        "avoid one another.",
        "By construction only the orthogonal complement of the home span is perpendicular to it; shifted features "
        "reach into that complement but do not lie in it.",
        f"{np.mean(common):.0%} of the squared norm of held-out home features lies along the mean of the training "
        "features. Spans seen from zero share that direction; the verdict rests on the centred rows.",
    )


def _figure(found: Found, groups: Mapping[str, Sequence[str]]) -> str:
    names = [HOME, *(name for members in groups.values() for name in members)]
    with drawing():
        figure, (shares, angles) = panels(2, width=9.0, height=0.2 * len(names) + 2.0)
        for y, name in enumerate(names[::-1]):
            share = bootstrap_interval(torch.stack([seen.outside for seen in found[name]]), seed=0, bounds=(0.0, 1.0))
            shares.plot([100 * share.low, 100 * share.high], [y, y], color=_colour(name), linewidth=2.0)
            shares.plot(100 * share.value, y, "o", color=_colour(name), markersize=5)
            curve = _over_seeds([seen.angles for seen in found[name]])
            thick = 0.8 if _colour(name) == INK else 2.0
            angles.plot(range(1, len(curve) + 1), curve, color=_colour(name), linewidth=thick)
        shares.set_yticks(range(len(names)), ["held-out home", *names[1:]][::-1])
        shares.set(xlabel="squared norm outside the home span, %", title="What the home span misses", xlim=(0, None))
        for label, members in {"held-out home": [HOME], **groups}.items():
            angles.plot([], [], color=_colour(members[0]), label=label)
        first, members = next(iter(groups.items()))
        curve = _over_seeds([seen.chance for seen in found[members[0]]])
        label = f"random span, size of {first if len(members) == 1 else members[0]}"
        angles.plot(range(1, len(curve) + 1), curve, ":", color=INK, label=label)
        angles.axhline(90, color=INK, linewidth=0.8, linestyle="--")
        angles.annotate("perpendicular", (1, 90), xytext=(0, 3), textcoords="offset points", color=INK)
        angles.set(xlabel="principal angle, from the smallest", ylabel="degrees", ylim=(0, 100),
                   title="Angles between the home span and others")  # fmt: skip
        angles.set_yticks(range(0, 91, 15))
        figure.legend(loc="outside lower right", ncols=2)
        return as_svg(figure)


def _over_seeds(curves: Sequence[Tensor]) -> Tensor:
    shortest = min(len(curve) for curve in curves)
    return torch.stack([curve[:shortest] for curve in curves]).mean(dim=0)


def _colour(name: str) -> str:
    return PROBE if name == HOME else FINETUNE if name.startswith("shift-") else INK

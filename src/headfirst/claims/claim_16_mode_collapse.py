"""Claim 16: mode collapse: the generator settles on few modes.

On a grid of 25 Gaussians it can be counted; then on images. A diffusion model, which plays no game, learns both too.
What is kept under `work`: what every player of the grid made on the way and at the end, and the generators of images.

Shape letters: R readings of a training, N points or images, C channels, S pixels a side, D features.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from headfirst.adapt import LinearProbe, LinearProbeModel
from headfirst.claims.claim import ClaimResult, Comparison, judged, over_seeds, range_found
from headfirst.claims.claim_16_figure import COLLAPSING, HEALTHY, pictured
from headfirst.claims.experiment import in_a_folder, ready
from headfirst.claims.point_diffusion import PointDiffusion
from headfirst.claims.trained import DENOISER, seen, trained
from headfirst.data import ImageSet, shuffled_by_name
from headfirst.features import embed, side_by_side
from headfirst.generate import GAN, NON_SATURATING, Diffusion, Generator, GridGAN, grid_mode, grid_points, read_grid
from headfirst.metrics import (
    Interval,
    class_weight_distance,
    density_coverage,
    duplicate_estimate,
    modes_covered,
)
from headfirst.nn import PretrainedBackbone
from headfirst.types import Features, Progress, silent

PAIR: Mapping[str, GridGAN] = {HEALTHY: GridGAN(), COLLAPSING: GridGAN.collapsing()}
DIFFUSION, OF_GRID = "diffusion", PointDiffusion(scale=math.sqrt(8.0))
NUM_POINTS = 2500
"""What it is judged by, as many as a GAN of the grid."""
_NOISE = 2**20  # plus the seed: another stream than that of its training
QUICK_STEPS = 5000
MODES, HALF_OF_THEM, ALL_BUT_ONE = 25, 12.5, 24.0
OUTSIDE = math.exp(-4.5)
"""Share of the real points that lie beyond 3σ of their centre: of no mode."""

WATCHED, NEIGHBOUR = 250, 5
"""Real points that the alarm compares with; a point is covered where a generated one lies no further than its fifth
neighbour among the real ones."""
EARLY, LOW = 0.5, 0.5
"""The alarm, which knows of no modes: after this share of the turns, fewer real points than this share are covered;
as many points of a perfect sampler would cover all but one in 10⁵."""
RARE = 1e-3
"""Two points are alike where they are as near as the nearest thousandth of the pairs of real points."""
COMPARED = 500

OF_IMAGES = GAN(size=16, epochs=20, conditional=False)
IMAGES: Mapping[str, GAN | Diffusion] = {
    HEALTHY: OF_IMAGES,
    COLLAPSING: replace(OF_IMAGES, losses=NON_SATURATING, r1=0.0, r2=0.0, betas=(0.5, 0.999)),
    DIFFUSION: replace(DENOISER, size=OF_IMAGES.size),
}
NUM_IMAGES, SHOWN = 1000, 20

Trace = Mapping[str, Tensor]
"""Of one training: "turns", "modes", "coverage", "alike" (R,), and "points" (N, 2) at its end."""

Grid = Mapping[str, list[Trace]]
"""Setting → for each seed."""


def cures() -> dict[str, GridGAN]:
    """The collapsing setting with one thing changed: the same players, points and turns."""
    sick, healthy = PAIR[COLLAPSING], PAIR[HEALTHY].rules
    penalties = {"r1": healthy.r1, "r2": healthy.r2, "anneal": healthy.anneal, "lazy": healthy.lazy}
    return {
        "pairs compared": replace(sick, rules=replace(sick.rules, losses=healthy.losses)),
        "R1 + R2": replace(sick, rules=replace(sick.rules, **penalties)),
    }


@dataclass(frozen=True, kw_only=True)
class OfImages:
    """What one generator of images makes.

    Attributes:
        classes: covered, by a probe on the backbone's features.
        weights: total variation between the classes' shares and those of real images.
        coverage: of the test images, over what as many other real ones would cover.
        alarms: collapses that the training itself reported.
        shown: (K, C, S, S) for the picture.
    """

    classes: int
    weights: float
    coverage: float
    alarms: int
    shown: Float[Tensor, "k c s s"]


Images = Mapping[str, list[OfImages]]
"""Setting → for each seed; empty where no images were learned."""


@in_a_folder
def run(
    data: ImageSet,
    backbone: PretrainedBackbone,
    seeds: Sequence[int],
    *,
    quick: bool = False,
    work: Path,
    progress: Progress = silent,
) -> ClaimResult:
    """The 25-mode grid under a healthy and a collapsing setting, what cures the latter, and images under both.

    Args:
        quick: fewer turns, no cures, no diffusion model and no images.
    """
    settings: dict[str, GridGAN | PointDiffusion] = {**PAIR, **cures(), DIFFUSION: OF_GRID}
    if quick:
        settings = {name: replace(each, steps=QUICK_STEPS) for name, each in PAIR.items()}
    jobs: list[Callable[[], object]] = [
        partial(played, each, seed, work) for each in settings.values() for seed in seeds
    ]
    if not quick:
        data = ready(data, backbone, progress)
        jobs = [partial(trained, each, data["train"], seed, work) for each in IMAGES.values() for seed in seeds] + jobs
    side_by_side(jobs, stage="trainings", progress=progress)  # kept under work, and read from there
    grid = {name: [played(recipe, seed, work) for seed in seeds] for name, recipe in settings.items()}
    found = {} if quick else on_images(data, backbone, seeds, work)
    return ClaimResult(
        number=16,
        title="Mode collapse: the generator settles on few modes",
        statement="On a grid of 25 Gaussians, under the non-saturating loss without gradient penalties (named "
        "beforehand), a generator settles on few modes: on fewer than half of them in the mean, and fewer than the "
        f"same players in as many turns under the default rules, which cover more than {ALL_BUT_ONE:g} in the mean. An "
        f"alarm that knows no modes tells the two apart in every training: after {EARLY:.0%} of the turns, fewer "
        f"than {LOW:.0%} of real points have a generated one near under the one, more under the other.",
        rows=_rows(grid, found),
        figure=pictured(grid, {name: each[0].shown for name, each in found.items()}, at=EARLY, low=LOW),
        fine_print=_fine_print(grid, found, seeds, settings[HEALTHY].steps),
        quick=quick,
    )


def played(recipe: GridGAN | PointDiffusion, seed: int, work: Path) -> Trace:
    """One training of the grid, a diffusion model's read at its end alone; from `work` where it was finished before."""
    own = (NUM_POINTS, _NOISE) if isinstance(recipe, PointDiffusion) else ()
    key = hashlib.sha256(repr((recipe, WATCHED, NEIGHBOUR, RARE, COMPARED, *own)).encode()).hexdigest()[:16]
    path = work / f"grid-{seed}-{key}.safetensors"
    if not path.is_file():
        real, seen_ = grid_points(np.arange(WATCHED), seed=seed, epoch=recipe.steps), []
        last = torch.zeros(0, 2)

        def watch(done: int, points: Tensor) -> None:
            nonlocal last
            last = points.clone()
            seen_.append((float(done), float(read_grid(points).modes), *watched(points, real)))

        if isinstance(recipe, PointDiffusion):
            noise = torch.randn(NUM_POINTS, 2, generator=torch.Generator().manual_seed(_NOISE + seed))
            watch(recipe.steps, recipe.fit(partial(_fresh_points, seed), seed=seed)(noise))
        else:
            recipe.fit(seed=seed, watch=watch)
        columns = torch.tensor(seen_, dtype=torch.float64).T.contiguous()
        part = path.with_suffix(".part")
        save_file({**{n: c.clone() for n, c in zip(("turns", "modes", "coverage", "alike"), columns, strict=True)},
                   "points": last}, part)  # fmt: skip
        part.replace(path)  # whole, or not there
    return load_file(path)


def _fresh_points(seed: int, num: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    epoch = int(torch.randint(2**31, (1,), generator=generator))
    return grid_points(np.arange(num), seed=seed, epoch=epoch)


def watched(points: Float[Tensor, "n 2"], real: Float[Tensor, "m 2"]) -> tuple[float, float]:
    """What needs no modes to be known: share of the real points that are covered; how much more often two generated
    points are alike than two real ones."""
    found = density_coverage(real, points, NEIGHBOUR)
    near = torch.pdist(real.double()).quantile(RARE).item()
    return found.coverage, duplicate_estimate(points[:COMPARED], near).rate / RARE


def early(trace: Trace) -> float:
    """What the alarm reads: share of real points covered, after the share `EARLY` of the turns."""
    turns = trace["turns"]
    return trace["coverage"][(turns - EARLY * turns[-1]).abs().argmin()].item()


def reverse_divergence(points: Float[Tensor, "n 2"]) -> float:
    """KL(q ‖ p) in nats of the shares of 25 modes and of what belongs to none; finite whatever is left out."""
    q = torch.bincount(grid_mode(points) + 1, minlength=MODES + 1).double() / len(points)
    p = torch.tensor([OUTSIDE, *[(1 - OUTSIDE) / MODES] * MODES], dtype=torch.float64)
    return torch.special.xlogy(q, q / p).sum().item()


def on_images(data: ImageSet, backbone: PretrainedBackbone, seeds: Sequence[int], work: Path) -> Images:
    """Both settings on images without their classes, judged in the backbone's features."""
    train = embed(backbone, data["train"])
    test = embed(backbone, data["test"].take(shuffled_by_name(data["test"].ids, seed=0)[:NUM_IMAGES]))
    probe = LinearProbe(seed=0).fit(train)
    return {
        name: [of_generator(trained(recipe, data["train"], seed, work), probe, test, backbone) for seed in seeds]
        for name, recipe in IMAGES.items()
    }


def of_generator(
    generator: Generator, probe: LinearProbeModel, test: Features, backbone: PretrainedBackbone
) -> OfImages:
    """Everything that is asked of one generator."""
    images = generator.sample(NUM_IMAGES, seed=0).pixels.float() / 255
    features = seen(images, backbone)
    labels = probe.predict(features)
    shares = torch.bincount(probe.predict(test), minlength=len(test.classes)).double() / len(test)
    coverage = density_coverage(test.values, features, NEIGHBOUR)
    return OfImages(
        classes=modes_covered(labels, len(test.classes), least=NUM_IMAGES // (10 * len(test.classes))),
        weights=class_weight_distance(labels, shares).total_variation,
        coverage=coverage.coverage / coverage.expected_coverage,
        alarms=sum("collapse" in event for event in generator.record["events"]),
        shown=images[:SHOWN].clone(),
    )


def _rows(grid: Grid, images: Images) -> tuple[Comparison, ...]:
    of: dict[str, Callable[[Trace], float]] = {
        "modes of 25": _modes,
        "reading": early,
        "share": _share,
        "shares": lambda trace: -_shares(trace),
        "kl": lambda trace: -reverse_divergence(trace["points"]),
        "alike": lambda trace: -trace["alike"][-1].item(),
    }
    found = {what: {name: [read(t) for t in traces] for name, traces in grid.items()} for what, read in of.items()}

    def gap(what: str, more: str = HEALTHY, less: str = COLLAPSING) -> Interval:
        return over_seeds([a - b for a, b in zip(found[what][more], found[what][less], strict=True)])

    modes, reading = found["modes of 25"], found["reading"]
    rows = [
        judged("modes of 25: healthy - collapsing", gap("modes of 25"), "above"),
        judged("modes of 25: collapsing", over_seeds(modes[COLLAPSING]), "below", HALF_OF_THEM),
        judged("modes of 25: healthy", over_seeds(modes[HEALTHY]), "above", ALL_BUT_ONE),
        judged("what the alarm reads in each collapsing training", range_found(reading[COLLAPSING]), "below", LOW),
        judged("what it reads in each healthy one", range_found(reading[HEALTHY]), "above", LOW),
        judged("share of points within 3σ of a mode: healthy - collapsing", gap("share"), "above", primary=False),
        judged("total variation of the modes' shares: collapsing - healthy", gap("shares"), "above", primary=False),
        judged("reverse KL of the modes' shares, nats: collapsing - healthy", gap("kl"), "above", primary=False),
        judged("pairs alike, over those of real points: collapsing - healthy", gap("alike"), "above", primary=False),
    ]
    for name in filter(grid.__contains__, cures()):
        rows += [
            judged(f"modes of 25: {name} - collapsing", gap("modes of 25", name), "above", primary=False),
            judged(f"modes of 25: {name}", over_seeds(modes[name]), "above", ALL_BUT_ONE, primary=False),
        ]
    if DIFFUSION in grid:
        rows += [
            judged(f"modes of 25: {DIFFUSION}", over_seeds(modes[DIFFUSION]), "above", ALL_BUT_ONE, primary=False),
            judged(f"modes of 25: {DIFFUSION} - healthy", gap("modes of 25", DIFFUSION, HEALTHY), "above",
                   primary=False),
            judged(f"share of points within 3σ of a mode: {DIFFUSION} - healthy", gap("share", DIFFUSION, HEALTHY),
                   "above", primary=False),
            judged(f"total variation of the modes' shares: healthy - {DIFFUSION}", gap("shares", DIFFUSION, HEALTHY),
                   "above", primary=False),
        ]  # fmt: skip
    if not images:
        return tuple(rows)
    by: dict[str, Callable[[OfImages], float]] = {
        "classes covered": lambda found: float(found.classes),
        "coverage of test images": lambda found: found.coverage,
        "1 - total variation of the classes' shares": lambda found: 1 - found.weights,
    }
    for more, less in ((HEALTHY, COLLAPSING), (DIFFUSION, HEALTHY)):
        pairs = list(zip(images[more], images[less], strict=True))
        rows += [
            judged(f"images: {what}: {more} - {less}", over_seeds([read(a) - read(b) for a, b in pairs]), "above",
                   primary=False)
            for what, read in by.items()
        ]  # fmt: skip
    return tuple(rows)


def _fine_print(grid: Grid, images: Images, seeds: Sequence[int], steps: int) -> tuple[str, ...]:
    def counts(name: str) -> str:
        return f"{name} {', '.join(str(int(_modes(trace))) for trace in grid[name])}"

    alike = {name: np.mean([trace["alike"][-1].item() for trace in grid[name]]) for name in PAIR}
    lines = [
        f"Seeds {seeds[0]} to {seeds[-1]}; {steps} turns of {PAIR[HEALTHY].batch_size} points, half of them each "
        "player's; a mode is covered by 10 of 2,500 points within 3σ. A perfect sampler has 25 modes, a share of 0.989 "
        "within 3σ, a total variation of 0.045, a reverse KL of 0.005. The "
        "collapsing setting differs from the healthy "
        f"one in {', '.join(differing(*PAIR.values()))}.",
        f"Modes by seed: {'; '.join(counts(name) for name in PAIR)}.",
        f"The alarm asks of {WATCHED} real points whether a generated one is no further than its fifth neighbour among "
        "them, as with next to all of one distribution. That points repeat says less on this grid: "
        f"at the end two are alike {alike[HEALTHY]:.2g} times as often as two real ones in "
        f"healthy and {alike[COLLAPSING]:.2g} times in collapsing trainings.",
    ]
    if DIFFUSION in grid:
        share, shares = ([np.mean([read(t) for t in grid[name]]) for name in (DIFFUSION, HEALTHY)] for read in
                         (_share, _shares))  # fmt: skip
        lines += [
            "The same budget, the collapsing setting with one change; modes by seed: "
            f"{'; '.join(counts(name) for name in cures())}.",
            f"A diffusion model plays against nobody: it learns to take noise away, of every point, and so cannot do "
            f"well by leaving some out. {OF_GRID.steps} steps of {OF_GRID.batch_size} points, "
            f"{OF_GRID.sampling.num_evaluations} evaluations for a point; modes by seed: "
            f"{counts(DIFFUSION)}; share within 3σ {share[0]:.3f} (healthy {share[1]:.3f}), total variation "
            f"{shares[0]:.3f} (healthy {shares[1]:.3f}). What it gets wrong lies between the modes.",
        ]
    if images:
        told = "; ".join(
            f"{name}: classes {', '.join(str(found.classes) for found in each)}, coverage "
            f"{', '.join(f'{found.coverage:.2f}' for found in each)}, total variation "
            f"{', '.join(f'{found.weights:.2f}' for found in each)}"
            + (
                f", the training itself reported a collapse in {sum(found.alarms > 0 for found in each)} of {len(each)}"
                if name in PAIR
                else ""
            )
            for name, each in images.items()
        )
        lines.append(
            f"Images of {OF_IMAGES.size} pixels a side: {OF_IMAGES.epochs} epochs without classes, the same seeds, the "
            f"same two settings, and a diffusion model of {DENOISER.epochs} epochs, drawn with "
            f"{DENOISER.sampling.num_evaluations} evaluations; {NUM_IMAGES} images judged in "
            "the backbone's features, "
            f"coverage over that of as many real ones. {told}."
        )
    return tuple(lines)


def differing(a: GridGAN, b: GridGAN) -> list[str]:
    """Names of what two recipes have otherwise."""
    parts = [(a, b), (a.rules, b.rules)]
    names = [f.name for x, y in parts for f in fields(x) if getattr(x, f.name) != getattr(y, f.name)]
    return [name for name in names if name != "rules"]


def _modes(trace: Trace) -> float:
    return trace["modes"][-1].item()


def _share(trace: Trace) -> float:
    return read_grid(trace["points"]).share


def _shares(trace: Trace) -> float:
    return read_grid(trace["points"]).class_weight_distance

"""Claim 16: mode collapse: the generator settles on few modes.

On a grid of 25 Gaussians it can be counted; then on images. What is kept under `work`: what every player of the grid
made on the way and at the end, and the generators of images.

Shape letters: R readings of a training, N points or images, C channels, S pixels a side, D features.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from headfirst.adapt import LinearProbe, LinearProbeModel
from headfirst.claims.claim import ClaimResult, Comparison, judged, over_seeds, range_found
from headfirst.claims.experiment import ready
from headfirst.claims.figures import FINETUNE, INK, LPFT, PROBE, as_svg, drawing
from headfirst.claims.trained import seen, strip, trained
from headfirst.data import ImageSet, shuffled_by_name
from headfirst.features import embed
from headfirst.generate import GAN, NON_SATURATING, RELATIVISTIC, Generator, GridGAN, grid_mode, grid_points, read_grid
from headfirst.metrics import (
    binomial_interval,
    class_weight_distance,
    density_coverage,
    duplicate_estimate,
    expected_coverage,
    modes_covered,
)
from headfirst.nn import PretrainedBackbone
from headfirst.types import Features, Progress, silent

HEALTHY, COLLAPSING = "healthy", "collapsing"
PAIR: Mapping[str, GridGAN] = {HEALTHY: GridGAN(), COLLAPSING: GridGAN.collapsing()}
MODES, HALF_OF_THEM, ALL_BUT_ONE = 25, 12.5, 24.0
OUTSIDE = math.exp(-4.5)
"""Share of the real points that lie beyond 3σ of their centre: of no mode."""

WATCHED, NEIGHBOUR = 250, 5
"""Real points that the alarm compares with; a point is covered where a generated one lies no further than its fifth
neighbour among the real ones."""
EARLY, LOW = 0.5, 0.5
"""The alarm, which knows of no modes: after this share of the turns, fewer real points are covered than this share of
what other real points would cover."""
RARE = 1e-3
"""Two points are alike where they are as near as the nearest thousandth of the pairs of real points."""
COMPARED = 500

CURED, IMAGED = 3, 3
"""Seeds of each cure, and of the images."""
OF_IMAGES = GAN(width=16, epochs=30, conditional=False)
IMAGES: Mapping[str, GAN] = {
    HEALTHY: OF_IMAGES,
    COLLAPSING: replace(OF_IMAGES, losses=NON_SATURATING, r1=0.0, r2=0.0, betas=(0.5, 0.999)),
}
NUM_IMAGES, SHOWN, POINTS_SHOWN = 1000, 20, 500

Trace = Mapping[str, Tensor]
"""Of one training: "turns", "modes", "coverage", "alike" (R,), and "points" (N, 2) at its end."""

Grid = Mapping[str, list[Trace]]
"""Setting → for each seed."""


def cures() -> dict[str, GridGAN]:
    """The collapsing setting with one thing changed, or two: the same players, points and turns."""
    sick = PAIR[COLLAPSING]
    penalties = {"r1": PAIR[HEALTHY].rules.r1, "r2": PAIR[HEALTHY].rules.r2}
    return {
        "pairs compared": replace(sick, rules=replace(sick.rules, losses=RELATIVISTIC)),
        "R1 + R2": replace(sick, rules=replace(sick.rules, **penalties)),
        "both": replace(sick, rules=replace(sick.rules, losses=RELATIVISTIC, **penalties)),
        "no momentum": replace(sick, rules=replace(sick.rules, betas=PAIR[HEALTHY].rules.betas)),
        "16 noise dimensions": replace(sick, noise_dim=16),
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


def run(
    data: ImageSet,
    backbone: PretrainedBackbone,
    seeds: Sequence[int],
    *,
    quick: bool = False,
    work: Path | None = None,
    progress: Progress = silent,
) -> ClaimResult:
    """The 25-mode grid under a healthy and a collapsing setting, what cures the latter, and images under both.

    Args:
        seeds: the grid takes twice as many for the two settings, `CURED` for each cure; the quick version has as many
            as given, no cures and no images.
    """
    if work is None:
        with TemporaryDirectory(prefix="headfirst-claim-16-") as folder:
            return run(data, backbone, seeds, quick=quick, work=Path(folder), progress=progress)
    work.mkdir(parents=True, exist_ok=True)
    of_pair = seeds if quick else range(seeds[0], seeds[0] + 2 * len(seeds))
    settings = {name: (recipe, of_pair) for name, recipe in PAIR.items()}
    if not quick:
        settings |= {name: (recipe, of_pair[:CURED]) for name, recipe in cures().items()}
    of_images = () if quick else seeds[:IMAGED]
    images = None if quick else ready(data, backbone, progress)["train"]
    jobs: list[Callable[[], object]] = [
        *(partial(played, recipe, seed, work) for recipe, several in settings.values() for seed in several),
        *(partial(trained, recipe, images, seed, work) for recipe in IMAGES.values() for seed in of_images),
    ]
    for i, job in enumerate(jobs):
        job()
        progress("trainings", i + 1, len(jobs))
    grid = {name: [played(recipe, seed, work) for seed in several] for name, (recipe, several) in settings.items()}
    found = {} if quick else on_images(ready(data, backbone, progress), backbone, of_images, work)
    return ClaimResult(
        number=16,
        title="Mode collapse: the generator settles on few modes",
        statement="On a grid of 25 Gaussians, under the non-saturating loss without gradient penalties (named "
        "beforehand), a generator settles on few modes: on fewer than half of them in the mean, and fewer than the "
        f"same players in as many turns under the default rules, which cover more than {ALL_BUT_ONE:g} in the mean. An "
        f"alarm that knows no modes tells the two apart: after {EARLY:.0%} of the turns, real points are covered less "
        f"than {LOW:.0%} as often as by other real points, in most collapsing trainings and in few healthy ones.",
        rows=_rows(grid, found),
        figure=_figure(grid, found),
        fine_print=_fine_print(grid, found, of_pair, of_images),
        quick=quick,
    )


def played(recipe: GridGAN, seed: int, work: Path) -> Trace:
    """One training of the grid; from `work` where it was finished before."""
    key = hashlib.sha256(repr((recipe, WATCHED, NEIGHBOUR, RARE, COMPARED)).encode()).hexdigest()[:16]
    path = work / f"grid-{seed}-{key}.safetensors"
    if not path.is_file():
        real, seen_ = grid_points(np.arange(WATCHED), seed=seed, epoch=recipe.steps), []
        last = torch.zeros(0, 2)

        def watch(done: int, points: Tensor) -> None:
            nonlocal last
            last = points.clone()
            seen_.append((float(done), float(read_grid(points).modes), *watched(points, real)))

        recipe.fit(seed=seed, watch=watch)
        columns = torch.tensor(seen_, dtype=torch.float64).T.contiguous()
        part = path.with_suffix(".part")
        save_file({**{n: c.clone() for n, c in zip(("turns", "modes", "coverage", "alike"), columns, strict=True)},
                   "points": last}, part)  # fmt: skip
        part.replace(path)  # whole, or not there
    return load_file(path)


def watched(points: Float[Tensor, "n 2"], real: Float[Tensor, "m 2"]) -> tuple[float, float]:
    """What needs no modes to be known: coverage of the real points, over that by as many other real points; how much
    more often two generated points are alike than two real ones."""
    found = density_coverage(real, points, NEIGHBOUR)
    near = torch.pdist(real.double()).quantile(RARE).item()
    return found.coverage / found.expected_coverage, duplicate_estimate(points[:COMPARED], near).rate / RARE


def warned(trace: Trace) -> bool:
    """Whether the alarm is raised: see `EARLY`."""
    turns = trace["turns"]
    at = int((turns - EARLY * turns[-1]).abs().argmin())
    return bool(trace["coverage"][at] < LOW)


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
    modes = {name: [_modes(trace) for trace in traces] for name, traces in grid.items()}
    raised = {name: sum(warned(trace) for trace in grid[name]) for name in PAIR}
    of = {name: [read_grid(trace["points"]) for trace in grid[name]] for name in PAIR}
    kl = {name: [reverse_divergence(trace["points"]) for trace in grid[name]] for name in PAIR}
    alike = {name: [trace["alike"][-1].item() for trace in grid[name]] for name in PAIR}
    n = len(grid[HEALTHY])

    def gap(values: Mapping[str, Sequence[float]], more: str, less: str) -> Any:
        return over_seeds([a - b for a, b in zip(values[more], values[less], strict=False)])

    rows = [
        judged("modes of 25: healthy - collapsing", gap(modes, HEALTHY, COLLAPSING), "above"),
        judged("modes of 25: collapsing", over_seeds(modes[COLLAPSING]), "below", HALF_OF_THEM),
        judged("modes of 25: healthy", over_seeds(modes[HEALTHY]), "above", ALL_BUT_ONE),
        judged("share of collapsing trainings in which the alarm is raised",
               binomial_interval(raised[COLLAPSING], n), "above", 0.5),
        judged("share of healthy trainings in which it is raised",
               binomial_interval(raised[HEALTHY], n), "below", 0.5),
        judged("share of healthy trainings that cover all 25",
               binomial_interval(sum(m == MODES for m in modes[HEALTHY]), n), "above", 0.5, primary=False),
        judged("share of points within 3σ of a mode: healthy - collapsing",
               gap({name: [r.share for r in each] for name, each in of.items()}, HEALTHY, COLLAPSING), "above",
               primary=False),
        judged("total variation of the modes' shares: collapsing - healthy",
               gap({name: [r.class_weight_distance for r in each] for name, each in of.items()}, COLLAPSING, HEALTHY),
               "above", primary=False),
        judged("reverse KL of the modes' shares, nats: collapsing - healthy", gap(kl, COLLAPSING, HEALTHY), "above",
               primary=False),
        judged("pairs alike, over those of real points: collapsing - healthy", gap(alike, COLLAPSING, HEALTHY),
               "above", primary=False),
    ]  # fmt: skip
    for name in list(grid)[len(PAIR) :]:
        rows += [
            judged(f"modes of 25: {name} - collapsing", gap(modes, name, COLLAPSING), "above", primary=False),
            judged(f"modes of 25: {name}", range_found(modes[name]), "above", ALL_BUT_ONE, primary=False),
        ]  # fmt: skip
    return (*rows, *_rows_of_images(images))


def _rows_of_images(images: Images) -> list[Comparison]:
    if not images:
        return []
    of: dict[str, Callable[[OfImages], float]] = {
        "classes covered: healthy - collapsing": lambda found: float(found.classes),
        "coverage of test images: healthy - collapsing": lambda found: found.coverage,
        "total variation of the classes' shares: collapsing - healthy": lambda found: -found.weights,
    }
    pairs = list(zip(images[HEALTHY], images[COLLAPSING], strict=True))
    rows = [
        judged(f"images: {what}", over_seeds([read(a) - read(b) for a, b in pairs]), "above", primary=False)
        for what, read in of.items()
    ]
    for name, side in ((COLLAPSING, "above"), (HEALTHY, "below")):
        count = sum(found.alarms > 0 for found in images[name])
        rows.append(judged(f"images: share of {name} trainings that report a collapse",
                           binomial_interval(count, len(images[name])), side, 0.5, primary=False))  # fmt: skip
    return rows


def _fine_print(grid: Grid, images: Images, of_pair: Sequence[int], of_images: Sequence[int]) -> tuple[str, ...]:
    def counts(name: str) -> str:
        return f"{name} {', '.join(str(int(_modes(trace))) for trace in grid[name])}"

    recipe = PAIR[HEALTHY]
    perfect = expected_coverage(WATCHED, len(grid[HEALTHY][0]["points"]), NEIGHBOUR)
    alike = {name: np.mean([trace["alike"][-1].item() for trace in grid[name]]) for name in PAIR}
    lines = [
        f"Seeds {of_pair[0]} to {of_pair[-1]}; {recipe.steps} turns of {recipe.batch_size} points, half of them each "
        "player's; a mode is covered by 10 of 2,500 points within 3σ. A perfect sampler has 25 modes, a share of 0.989 "
        "within 3σ, a total variation of 0.045, a reverse KL of 0.005.",
        f"Modes by seed: {counts(HEALTHY)}; {counts(COLLAPSING)}.",
        f"The alarm compares {WATCHED} real points with the generated ones: a real point is covered where a generated "
        f"one is no further than its fifth neighbour; other real points would cover {perfect:.2f}. That points repeat "
        f"says less on this grid: at the end two are alike {alike[HEALTHY]:.2g} times as often as two real ones in "
        f"healthy and {alike[COLLAPSING]:.2g} times in collapsing trainings.",
    ]
    others = list(grid)[len(PAIR) :]
    if others:
        lines.append(
            f"The same budget, {len(grid[others[0]])} seeds each, the collapsing setting with one or two changes; "
            f"modes by seed: {'; '.join(counts(name) for name in others)}. Healthy is both and no momentum."
        )
    if images:
        told = "; ".join(
            f"{name}: classes {', '.join(str(found.classes) for found in each)}, coverage "
            f"{', '.join(f'{found.coverage:.2f}' for found in each)}, total variation "
            f"{', '.join(f'{found.weights:.2f}' for found in each)}"
            for name, each in images.items()
        )
        lines.append(
            f"Images: {OF_IMAGES.epochs} epochs without classes, seeds {list(of_images)}, the same two changes; "
            f"{NUM_IMAGES} images judged in the backbone's features, coverage over that of as many real ones. {told}."
        )
    return tuple(lines)


def _modes(trace: Trace) -> float:
    return trace["modes"][-1].item()


COLOURS = {HEALTHY: PROBE, COLLAPSING: FINETUNE}


def _figure(grid: Grid, images: Images) -> str:
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(11.0, 8.2 if images else 6.4), layout="constrained")
        rows = figure.subfigures(3 if images else 2, 1, height_ratios=[3.2, 3.2, 1.8][: 3 if images else 2])
        real = grid_points(np.arange(POINTS_SHOWN), seed=0)
        for panel, (title, points) in zip(
            rows[0].subplots(1, 3),
            {"the grid": real, **{name: grid[name][0]["points"] for name in PAIR}}.items(),
            strict=True,
        ):
            panel.plot(*points[:POINTS_SHOWN].T.numpy(), "o", color=COLOURS.get(title, INK), markersize=1.5, alpha=0.5)
            panel.set(title=title, xlim=(-5.5, 5.5), ylim=(-5.5, 5.5), aspect="equal", xticks=(), yticks=())
        left, middle, right = rows[1].subplots(1, 3)
        _draw_traces(left, grid, "modes")
        left.set(title="Modes covered", xlabel="turns", ylim=(0, 26))
        left.legend(loc="center right")
        _draw_traces(middle, grid, "coverage")
        end = grid[HEALTHY][0]["turns"][-1].item()
        middle.plot([EARLY * end], [LOW], "v", color=INK)
        middle.axhline(LOW, color=INK, linewidth=0.8, linestyle="--")
        middle.set(title="What the alarm reads", xlabel="turns", ylabel="coverage, of real points'", ylim=(0, 1.1))
        for i, (name, traces) in enumerate(grid.items()):
            counts = [_modes(trace) for trace in traces]
            jitter = np.linspace(-0.2, 0.2, len(counts))
            right.plot(counts, i + jitter, "o", color=COLOURS.get(name, LPFT), markersize=4, alpha=0.7)
        right.set_yticks(range(len(grid)), list(grid))
        right.set(title="Modes at the end, each seed", xlim=(0, 26))
        right.invert_yaxis()
        if images:
            for panel, (name, each) in zip(rows[2].subplots(len(images), 1), images.items(), strict=True):
                panel.imshow(strip(each[0].shown), interpolation="nearest")
                panel.set(xticks=(), yticks=())
                panel.spines[:].set_visible(False)
                panel.set_ylabel(name, rotation=0, horizontalalignment="right", verticalalignment="center")
        return as_svg(figure)


def _draw_traces(panel: Any, grid: Grid, what: str) -> None:
    for name in PAIR:
        for i, trace in enumerate(grid[name]):
            panel.plot(trace["turns"], trace[what], color=COLOURS[name], alpha=0.5, linewidth=1,
                       label=None if i else name)  # fmt: skip

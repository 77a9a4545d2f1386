"""Claim 12: Gaussian noise is what a generator turns into samples.

Points of known distributions first, then images. What is kept under `work`: the points, and the generators of images.

Shape letters: N points or images, Z noise, M steps, C channels, S pixels a side, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from headfirst.claims.claim import ClaimResult, Comparison, judged, over_seeds, range_found
from headfirst.claims.experiment import in_a_folder, ready
from headfirst.claims.figures import FINETUNE, INK, LPFT, PROBE, as_svg, drawing
from headfirst.claims.images_of_noise import (
    FRESH,
    LINEAR,
    NOISE,
    NUM_IMAGES,
    PATHS,
    STEPS,
    OfImages,
    Scene,
    looked_at,
    of_generator,
)
from headfirst.claims.known_targets import NOISES, TARGETS, EnergyDescent, points, wasserstein
from headfirst.claims.point_diffusion import PointDiffusion
from headfirst.claims.trained import AUTOENCODER, DENOISER, QUICK_AUTOENCODER, strip, trained
from headfirst.data import ImageSet
from headfirst.features import side_by_side
from headfirst.generate import GAN, NON_SATURATING, VAE, Diffusion
from headfirst.nn import PretrainedBackbone
from headfirst.types import Progress, silent

NEAR, HALF = 0.2, 0.5
"""Shares of the untouched noise's distance to the target that what is generated must be below: of points, of images."""

JUMP = 0.25
"""Share of the distance between the images at both ends of a path that none of `STEPS` steps may cover."""
HALVED = 0.75
"""Twice as many steps must make the largest smaller than this share: ½ where the map is smooth, 1 at a jump."""

NUM_POINTS = 20_000
LEAST_SHOWN = 1e-3
"""What is smaller, or below 0 for want of a bias, is drawn here."""
Learner = EnergyDescent | PointDiffusion
LEARNERS: Mapping[str, Learner] = {"perceptron": EnergyDescent(), "diffusion": PointDiffusion()}
QUICK_LEARNERS: Mapping[str, Learner] = {
    "perceptron": EnergyDescent(steps=1000), "diffusion": PointDiffusion(steps=1000)
}  # fmt: skip
RECIPES: Mapping[str, VAE | GAN | Diffusion] = {
    "VAE": AUTOENCODER,
    "GAN": GAN(width=16, losses=NON_SATURATING, epochs=12, conditional=False),
    "diffusion": DENOISER,
}
QUICK_RECIPES: Mapping[str, VAE | GAN | Diffusion] = {
    "VAE": QUICK_AUTOENCODER,
    "GAN": GAN(width=16, losses=NON_SATURATING, epochs=8, conditional=False),
    "diffusion": replace(DENOISER, epochs=3, sampling=replace(DENOISER.sampling, num_steps=4)),
}
POINTS_SHOWN = 700

RETRAINED = next(iter(TARGETS))
"""The target that a perceptron also learns from uniform noise."""

Points = Mapping[tuple[str, str], list[Mapping[str, float]]]
"""(target, learner) → for each seed, `nearness` of each of `NOISES` and of `FRESH`."""

Images = Mapping[str, list[OfImages]]
"""Kind of generator → for each seed."""


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
    """Generators of points and of images, what they make of noise, and of the way between two noises."""
    scene = looked_at(ready(data, backbone, progress), backbone)
    learners, recipes = (QUICK_LEARNERS, QUICK_RECIPES) if quick else (LEARNERS, RECIPES)
    otherwise = EnergyDescent(noise="uniform", steps=learners["perceptron"].steps)
    learned = {(target, how): learner for how, learner in learners.items() for target in TARGETS}
    jobs: list[Callable[[], object]] = [
        *(partial(_images, recipe, scene, backbone, seed, work) for recipe in recipes.values() for seed in seeds),
        *(partial(_points, target, learner, seed, work) for (target, _), learner in learned.items() for seed in seeds),
        *(partial(_points, RETRAINED, otherwise, seed, work) for seed in seeds),
    ]
    found: Iterator[Any] = iter(side_by_side(jobs, stage="generators", progress=progress))
    of_images = {kind: [next(found) for _ in seeds] for kind in recipes}
    of_points = {each: [next(found) for _ in seeds] for each in learned}
    retrained = [next(found) for _ in seeds]
    drawn = {each: points(each[0], learned[each], seeds[0], num=NUM_POINTS, work=work) for each in learned}
    return ClaimResult(
        number=12,
        title="Gaussian noise is what a generator turns into samples",
        statement="(1) What a trained generator makes of standard normal noise is nearer to its target than noise is "
        f"that has the target's mean and variance in every coordinate: at less than {NEAR:g} of the distance for known "
        f"distributions (sliced Wasserstein distance), at less than {HALF:g} for images (Fréchet distance to test "
        "images). (2) The same noise gives the same image, bit for bit. (3) From one noise to another the image "
        f"changes smoothly: the largest of {STEPS} steps covers less than {JUMP:g} of the distance between both ends, "
        f"and the largest of {2 * STEPS} is less than {HALVED:g} of it (means over {PATHS} paths).",
        rows=_rows(of_points, retrained, of_images, scene),
        figure=_figure(drawn, of_points, of_images, scene),
        fine_print=_fine_print(of_points, of_images, scene, recipes, learners, seeds),
        quick=quick,
    )


def _images(
    recipe: VAE | GAN | Diffusion, scene: Scene, backbone: PretrainedBackbone, seed: int, work: Path
) -> OfImages:
    return of_generator(trained(recipe, scene.pool, seed, work), scene, backbone, seed)


def _points(target: str, learner: Learner, seed: int, work: Path) -> dict[str, float]:
    return nearness(points(target, learner, seed, num=NUM_POINTS, work=work))


def nearness(found: Mapping[str, Tensor]) -> dict[str, float]:
    """Distance to the target over that of noise, of what was made of each of `NOISES` and of another sample."""
    noise = wasserstein(found[NOISE], found["target"])
    return {of: wasserstein(found[of], found["target"]) / noise for of in (*NOISES, FRESH)}


def _rows(
    of_points: Points, retrained: Sequence[Mapping[str, float]], of_images: Images, scene: Scene
) -> tuple[Comparison, ...]:
    noise = scene.distance[NOISE]
    every = [found for each in of_images.values() for found in each]
    rows = [
        judged(f"{target}, {how}: distance to it, generated over noise",
               over_seeds([found["Gaussian"] for found in each]), "below", NEAR)
        for (target, how), each in of_points.items()
    ]  # fmt: skip
    rows += [
        judged(f"{kind}: distance to real images, generated over noise",
               over_seeds([found.distance["Gaussian"] / noise for found in each]), "below", HALF)
        for kind, each in of_images.items()
    ]  # fmt: skip
    rows.append(judged("images that change when the same noise is asked for again",
                       range_found([float(found.changed) for found in every]), "exactly"))  # fmt: skip
    for kind, each in of_images.items():
        rows += [
            judged(f"{kind}: largest of {STEPS} steps between two noises, over the distance of the ends' images",
                   over_seeds([found.step for found in each]), "below", JUMP),
            judged(f"{kind}: largest of {2 * STEPS} steps over the largest of {STEPS}",
                   over_seeds([found.halved for found in each]), "below", HALVED),
        ]  # fmt: skip
    return (*rows, *_other_noise(of_points, retrained, of_images, noise), *_on_the_sphere(of_images, every))


def _other_noise(
    of_points: Points, retrained: Sequence[Mapping[str, float]], of_images: Images, noise: float
) -> list[Comparison]:
    """Noise that the generators were not trained with, and that one was."""
    rows = []
    for kind in NOISES:
        if kind == "Gaussian":
            continue
        gaps = {
            f"{target}, {how}": [found[kind] - found["Gaussian"] for found in each]
            for (target, how), each in of_points.items()
        } | {
            name: [(found.distance[kind] - found.distance["Gaussian"]) / noise for found in each]
            for name, each in of_images.items()
        }  # fmt: skip
        rows += [
            judged(f"{name}: the same with {kind} noise instead - with Gaussian", over_seeds(gap), "above",
                   primary=False)
            for name, gap in gaps.items()
        ]  # fmt: skip
    otherwise = over_seeds([found["uniform"] for found in retrained])
    rows.append(judged(f"{RETRAINED}: distance to it, generated over noise, trained with uniform noise", otherwise,
                       "below", NEAR, primary=False))  # fmt: skip
    return rows


def _on_the_sphere(of_images: Images, every: Sequence[OfImages]) -> list[Comparison]:
    """Noise lies near a sphere, which the straight line leaves."""
    rows = [
        judged("images that another seed's noise gives too", range_found([float(found.repeated) for found in every]),
               "exactly", primary=False),
        judged("half-way along the straight line: ‖z‖ / √Z",
               range_found([found.midpoint["straight"] for found in every]), "below", 0.75, primary=False),
        judged("half-way along the arc: ‖z‖ / √Z", range_found([found.midpoint["spherical"] for found in every]),
               "above", 0.95, primary=False),
    ]  # fmt: skip
    for kind, each in of_images.items():
        rows += [
            judged(f"{kind}: distance to its own samples, half-way straight - half-way on the arc",
                   over_seeds([found.off["straight"] - found.off["spherical"] for found in each]), "above",
                   primary=False),
            judged(f"{kind}: distance to the fifth nearest real image, half-way straight over on the arc",
                   over_seeds([found.nearest["straight"] / found.nearest["spherical"] for found in each]), "above",
                   1.0, primary=False),
        ]  # fmt: skip
    return rows


def _fine_print(
    of_points: Points,
    of_images: Images,
    scene: Scene,
    recipes: Mapping[str, VAE | GAN | Diffusion],
    learners: Mapping[str, Learner],
    seeds: Sequence[int],
) -> tuple[str, ...]:
    noise = scene.distance[NOISE]
    floors = {
        target: over_seeds([found[FRESH] for found in of_points[target, "perceptron"]]).value for target in TARGETS
    }
    again, linear = (scene.distance[of] / noise for of in (FRESH, LINEAR))
    epochs = ", ".join(f"{kind} {recipe.epochs}" for kind, recipe in recipes.items())
    spheres = ", ".join(
        f"{np.mean([f.norm for f in each]):.3f} ± {np.mean([f.spread for f in each]):.3f} of √Z ({kind})"
        for kind, each in of_images.items()
    )
    a_point, an_image = (
        each.sampling.num_evaluations
        for each in (*learners.values(), *recipes.values())
        if isinstance(each, PointDiffusion | Diffusion)
    )
    return (
        f"Seeds {list(seeds)}. Known targets have mean 0 and covariance I. Perceptrons learn them from noise of as "
        f"many dimensions, in {learners['perceptron'].steps} steps down the energy distance, diffusion models in "
        f"{learners['diffusion'].steps} steps, drawn along the path without noise on the way; {NUM_POINTS} points are "
        f"compared. A diffusion model is asked {a_point} times for a point and {an_image} times for an image. Images: "
        f"{len(scene.pool)} to learn from, in epochs: {epochs}; {NUM_IMAGES} generated against {len(scene.real)} test "
        "images in the backbone's features.",
        "What another sample of the target gives, over noise: "
        + ", ".join(f"{value:.3f} ({name})" for name, value in {**floors, "images": again}.items())
        + f". What is left above that is the generator's error. A linear map of noise, which gives images the right "
        f"mean and covariance, is at {linear:.3f}.",
        "What was changed after a first look, before the first run over five seeds: the limit for images, which was "
        f"{NEAR:g}; the perceptrons, which with three hidden layers left the eight modes at 0.19 to 0.23 of noise's "
        "distance; the GAN's losses, which are non-saturating here. With the relativistic ones, which `GAN()` has, its "
        "generator made black images only, as it then ended in a sigmoid alone.",
        "The noise need not be Gaussian: a generator needs the noise that it was trained with. The rows on uniform and "
        "skewed noise, of the same mean and variance, say what other noise does to one that was trained with Gaussian "
        "noise, and how near one comes that was trained with uniform noise. Of many dimensions the first layer makes "
        "sums, which are nearly Gaussian whatever the noise.",
        f"Noise lies near a sphere: its norm is {spheres}, so half-way on a straight line it is too short, √½ of that. "
        "What that does to the images is in the last rows as it was found: nearness to real images says how typical "
        "they are, distance to the generator's samples also how varied.",
    )


def _figure(
    drawn: Mapping[tuple[str, str], Mapping[str, Tensor]], of_points: Points, of_images: Images, scene: Scene
) -> str:
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(11.5, 10.6), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=(1.35, 1.5))
        above, below = parts
        left, right = above.subfigures(1, 2, width_ratios=(3, 1.6))
        panels = left.subplots(len(LEARNERS), len(TARGETS))
        for panel, ((target, how), found) in zip(panels.flat, drawn.items(), strict=True):
            (_draw_line if found["target"].shape[1] == 1 else _draw_plane)(panel, found)
            panel.set_title(f"{target}, {how}")
        panels[0, 0].legend(fontsize=8, loc="upper center")
        _draw_ratios(right.subplots(1, 1), of_points, of_images, scene)
        _draw_strips(below, of_images, scene)
        return as_svg(figure)


def _draw_line(panel: Any, found: Mapping[str, Tensor]) -> None:
    bins = np.linspace(-3, 3, 61)
    for name, colour, label in (
        ("noise", INK, "noise"),
        ("target", PROBE, "target"),
        ("Gaussian", FINETUNE, "generated"),
    ):
        panel.hist(found[name].flatten().numpy(), bins=bins, density=True, histtype="step", color=colour, label=label,
                   linewidth=1.2)  # fmt: skip
    panel.set(xlabel="x", ylabel="density", ylim=(0, 2.4))


def _draw_plane(panel: Any, found: Mapping[str, Tensor]) -> None:
    for name, colour in (("noise", INK), ("target", PROBE), ("Gaussian", FINETUNE)):
        x, y = found[name][:POINTS_SHOWN].T.numpy()
        panel.scatter(x, y, s=2, color=colour, alpha=0.25 if name == "noise" else 0.5, linewidths=0, rasterized=True)
    panel.set(aspect="equal", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), xticks=(-2, 0, 2), yticks=(-2, 0, 2))


def _draw_ratios(panel: Any, of_points: Points, of_images: Images, scene: Scene) -> None:
    """Distances to the target over that of noise: of what is generated from each noise, and of a fresh sample."""
    noise, again = scene.distance[NOISE], scene.distance[FRESH]
    lines: dict[str, dict[str, list[float]]] = {
        f"{target.split(' in ')[0]}, {how}": {of: [found[of] for found in each] for of in (*NOISES, FRESH)}
        for (target, how), each in of_points.items()
    }
    for kind, each in of_images.items():
        lines[kind] = {of: [found.distance[of] / noise for found in each] for of in NOISES} | {FRESH: [again / noise]}
    for of, colour, mark in ((FRESH, PROBE, "|"), ("uniform", LPFT, "^"), ("skewed", "#8172b3", "x"),
                             ("Gaussian", FINETUNE, "o")):  # fmt: skip
        x = [max(float(np.mean(found[of])), LEAST_SHOWN) for found in lines.values()]
        label = of if of == FRESH else f"from {of} noise"
        panel.plot(x, range(len(lines)), mark, color=colour, label=label, markersize=8 if mark == "|" else 5)
    for y, found in enumerate(lines.values()):
        interval = over_seeds(found["Gaussian"])
        panel.plot([max(interval.low, LEAST_SHOWN), max(interval.high, LEAST_SHOWN)], [y, y], color=FINETUNE)
    places = [HALF if name in of_images else NEAR for name in lines]
    panel.plot(
        places, range(len(lines)), linestyle="none", marker="<", color=INK, markersize=4, label="must be left of"
    )
    panel.plot([1, 1], [-0.5, len(lines) - 0.5], color=INK, linewidth=0.8)
    panel.set_yticks(range(len(lines)), list(lines))
    panel.set(xscale="log", xlabel="distance, over that of noise", ylim=(len(lines) - 0.5, -3.2))
    panel.legend(fontsize=7, loc="upper left")


def _draw_strips(below: Any, of_images: Images, scene: Scene) -> None:
    first = {kind: each[0].shown for kind, each in of_images.items()}
    strips = {
        **scene.shown,
        **{f"{kind}, {name}": images for kind, shown in first.items() for name, images in shown.items()},
    }
    for panel, (name, images) in zip(below.subplots(len(strips), 1), strips.items(), strict=True):
        panel.imshow(strip(images), interpolation="nearest")
        panel.set(xticks=(), yticks=())
        panel.spines[:].set_visible(False)
        panel.set_ylabel(name, rotation=0, horizontalalignment="right", verticalalignment="center", fontsize=8)

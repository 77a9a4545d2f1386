"""Claim 15: the KL term keeps the latent near N(0, I).

E KL(q(z|x) ‖ p(z)) = I(x; z) + KL(q(z) ‖ p(z)): the term pays for what the latents say of the image, and for the
distance of the aggregate posterior q(z) = E q(z|x) to the prior (Hoffman & Johnson, "ELBO surgery", 2016). What is kept
under `work`: the trained networks.

Shape letters: N images, Z latent dimensions, K draws an image, B values of β.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.claims.claim import ClaimResult, Comparison, judged, over_seeds, range_found
from headfirst.claims.experiment import in_a_folder, ready
from headfirst.claims.figures import FINETUNE, INK, LPFT, PROBE, as_svg, drawing
from headfirst.claims.trained import AUTOENCODER, QUICK_AUTOENCODER, made, seen, strip, trained
from headfirst.data import ImageSet, ImageSplit, shuffled_by_name
from headfirst.features import side_by_side
from headfirst.generate import VAE, Generator, Pictures, elbo, encode, latent_diagnostics, pictures
from headfirst.metrics import frechet_distance
from headfirst.nn import PretrainedBackbone
from headfirst.types import Progress, silent

BETAS = (0.0, 0.1, 1.0, 4.0, 16.0, 64.0)
JUDGED_BETAS = BETAS[:-1]
"""The distance must fall from each of these to the next; at the last of all, nothing may be left to fall."""
USUAL, LARGEST = 1.0, BETAS[-1]

FAR = 10.0
"""Nats from N(0, I) that the aggregate posterior without the term must at least be."""
SAME = 0.01
"""Relative difference of Monte Carlo's KL and the closed form that counts as none."""

NUM_IMAGES, DRAWS = 1000, 64
SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Images to learn from, prepared; test images of the size that is learned, and their features (N, D)."""

    pool: ImageSplit
    test: Pictures
    real: Float[Tensor, "n d"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found of one network on test images.

    Attributes:
        distance: KL in nats to N(0, I) of the normal distribution with the moments of the aggregate posterior.
        differs: whether a test at 1 % tells a dimension of it from N(0, 1).
        kl, reconstruction: nats an image; the second E log p(x | z).
        drawn: KL by Monte Carlo.
        active: latent dimensions that say something of the image, of `dims`.
        warned: of posterior collapse.
        quality: Fréchet distance to test images of what is decoded from N(0, I), without the bias of few images.
        shown: (K, C, S, S) images decoded from N(0, I).
    """

    distance: float
    differs: bool
    kl: float
    reconstruction: float
    drawn: float
    active: int
    dims: int
    warned: bool
    quality: float
    shown: Float[Tensor, "k c s s"]


Sweep = Mapping[float, list[Found]]
"""β → for each seed."""


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
    """One VAE for each β and seed, their latents on test images beside N(0, I), and what they decode from it."""
    scene = looked_at(ready(data, backbone, progress), backbone)
    recipe = QUICK_AUTOENCODER if quick else AUTOENCODER
    recipes = {beta: replace(recipe, beta=beta) for beta in BETAS}
    jobs = [partial(learned, each, scene, backbone, seed, work) for each in recipes.values() for seed in seeds]
    found = iter(side_by_side(jobs, stage="networks", progress=progress))
    sweep = {beta: [next(found) for _ in seeds] for beta in recipes}
    return ClaimResult(
        number=15,
        title="The KL term keeps the latent near N(0, I)",
        statement=f"In a VAE with the loss -E log p(x|z) + β KL, the aggregate posterior of test images is more than "
        f"{FAR:g} nats from N(0, I) without the term (β = 0), and comes nearer with each of β = "
        f"{', '.join(f'{beta:g}' for beta in JUDGED_BETAS[1:])}; the closed form of the KL is what Monte Carlo finds, "
        f"to {SAME:.0%}. Distance: the KL of a normal distribution with the mean and covariance of the latents.",
        rows=_rows(sweep),
        figure=_figure(sweep),
        fine_print=_fine_print(sweep, scene, recipe, seeds),
        quick=quick,
    )


def looked_at(data: ImageSet, backbone: PretrainedBackbone) -> Scene:
    """Of prepared and audited images."""
    pool = pictures(data["train"])
    some = data["test"].take(shuffled_by_name(data["test"].ids, seed=0)[:NUM_IMAGES])
    test = pictures(some, size=pool.size, grey=pool.grey)
    return Scene(pool=data["train"], test=test, real=seen(test.batch(), backbone))


def learned(recipe: VAE, scene: Scene, backbone: PretrainedBackbone, seed: int, work: Path) -> Found:
    """What one network, which is trained or found under `work`, says of the test images."""
    return measured(trained(recipe, scene.pool, seed, work), scene, backbone, seed)


def measured(generator: Generator, scene: Scene, backbone: PretrainedBackbone, seed: int) -> Found:
    """Everything that is asked of one network."""
    latents = latent_diagnostics(generator, scene.test, seed=seed)
    parts = elbo(generator, scene.test, seed=seed)
    random = torch.Generator().manual_seed(seed)
    images = made(generator, torch.randn(NUM_IMAGES, len(latents.kl), generator=random))
    return Found(
        distance=latents.aggregate_distance,
        differs=latents.aggregate_p < 0.01,
        kl=parts.kl.double().mean().item(),
        reconstruction=parts.reconstruction.double().mean().item(),
        drawn=monte_carlo_kl(generator, scene.test, random),
        active=latents.active_units,
        dims=len(latents.kl),
        warned=latents.warning is not None,
        quality=frechet_distance(seen(images, backbone), scene.real).corrected,
        shown=images[:SHOWN].clone(),
    )


def monte_carlo_kl(generator: Generator, images: Pictures, random: torch.Generator) -> float:
    """Mean over images and draws z of log q(z|x) - log p(z), nats; float64, written out and not by the library's KL."""
    q = encode(generator, images)
    mean, log_variance = q.location.double(), q.spread.double()
    total = 0.0
    for _ in range(DRAWS):
        noise = torch.randn(mean.shape, generator=random, dtype=torch.float64)
        z = mean + (log_variance / 2).exp() * noise
        total += (z.square() - noise.square() - log_variance).sum(dim=1).mean().item() / 2
    return total / DRAWS


def _rows(sweep: Sweep) -> tuple[Comparison, ...]:
    def step(a: float, b: float, of: Callable[[Found], float]) -> list[float]:
        return [of(after) - of(before) for before, after in zip(sweep[a], sweep[b], strict=True)]

    rows = [
        judged("β = 0: nats from N(0, I)", over_seeds([found.distance for found in sweep[0.0]]), "above", FAR),
        *(
            judged(f"β = {b:g} against {a:g}: change of log10 of the distance to N(0, I)",
                   over_seeds(step(a, b, lambda found: math.log10(found.distance))), "below")
            for a, b in pairwise(JUDGED_BETAS)
        ),
    ]  # fmt: skip
    excess = over_seeds([found.drawn / found.kl - 1 for found in sweep[USUAL]])
    rows += [
        judged(f"β = {USUAL:g}: KL, Monte Carlo over closed form, less 1", excess, "above", -SAME),
        judged(f"β = {USUAL:g}: KL, Monte Carlo over closed form, less 1", excess, "below", SAME),
    ]
    rows += [
        judged(f"β = {b:g} against {a:g}: change of the log-likelihood of images given their latents, nats",
               over_seeds(step(a, b, lambda found: found.reconstruction)),
               "below", primary=False)
        for a, b in pairwise(BETAS)
    ]  # fmt: skip
    rows += [
        judged(f"images decoded from N(0, I), Fréchet distance: β = {beta:g} - β = {USUAL:g}",
               over_seeds(step(USUAL, beta, lambda found: found.quality)), "above", primary=False)
        for beta in BETAS if beta != USUAL
    ]  # fmt: skip
    for beta, warned in ((USUAL, 0.0), (LARGEST, 1.0)):
        share = range_found([float(found.warned) for found in sweep[beta]])
        rows.append(judged(f"β = {beta:g}: warning of posterior collapse", share, "exactly", warned, primary=False))
    for what, values in (
        ("active latent dimensions", [float(found.active) for found in sweep[LARGEST]]),
        ("nats that the latents say of an image", [found.kl for found in sweep[LARGEST]]),
    ):
        rows.append(judged(f"β = {LARGEST:g}: {what}", range_found(values), "below", 0.5, primary=False))
    return tuple(rows)


def _fine_print(sweep: Sweep, scene: Scene, recipe: VAE, seeds: Sequence[int]) -> tuple[str, ...]:
    N, Z = len(scene.test), sweep[USUAL][0].dims
    best = min(BETAS, key=lambda beta: sum(found.quality for found in sweep[beta]))
    active = ", ".join(f"{sum(found.active for found in sweep[b]) / len(seeds):.3g} (β = {b:g})" for b in BETAS)
    told = sum(found.differs for found in sweep[USUAL])
    excess = over_seeds([found.drawn / found.kl - 1 for found in sweep[USUAL]])
    covers = "covers" if excess.low <= 0 <= excess.high else "does not cover"
    return (
        f"Seeds {list(seeds)}; {len(scene.pool)} images to learn from, {recipe.epochs} epochs, {Z} latent dimensions; "
        f"{N} test images. {N} draws of N(0, I) itself would be at {Z * (Z + 3) / (4 * N):.2g} nats.",
        f"Near is not equal: with {N} images a test at 1 % tells the latents from N(0, 1) at β = {USUAL:g} with {told} "
        f"of {len(seeds)} seeds. The distance looks at means and covariances alone.",
        f"The term does not only keep the latents near, it pays for what they say: active dimensions of {Z}: {active}."
        + (
            f" At β = {LARGEST:g} the latents are at N(0, I) because they say nothing, and the decoder makes one image "
            "of all of them."
            if not any(found.active for found in sweep[LARGEST])
            else ""
        ),
        f"Images decoded from N(0, I) are nearest to test images at β = {best:g}. Too small a β leaves the decoder "
        "without practice where N(0, I) lies, too large a one without anything to decode.",
        f"Monte Carlo: {DRAWS} draws an image; its interval over seeds {covers} the closed form.",
    )


def _figure(sweep: Sweep) -> str:
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(11.5, 6.2), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=(1.1, 1.0))
        above, below = parts
        left, middle, right = above.subplots(1, 3)
        _draw_sweep(left, sweep, lambda found: found.distance, PROBE)
        left.set(ylabel="nats from N(0, I)", yscale="log", title="Aggregate posterior")
        _draw_trade(middle, sweep)
        _draw_sweep(right, sweep, lambda found: found.quality, FINETUNE)
        right.set(ylabel="Fréchet distance to test images", title="Images decoded from N(0, I)", ylim=(0, None))
        _draw_active(left.twinx(), sweep)
        _draw_strips(below, sweep)
        return as_svg(figure)


def _draw_sweep(panel: Any, sweep: Sweep, of: Callable[[Found], float], colour: str) -> None:
    each = [over_seeds([of(found) for found in sweep[beta]]) for beta in BETAS]
    x = range(len(BETAS))
    panel.plot(x, [f.value for f in each], "o-", color=colour, markersize=4)
    least = min(of(found) for every in sweep.values() for found in every) / 2
    panel.fill_between(x, [max(f.low, least) for f in each], [f.high for f in each], color=colour, alpha=0.2)
    panel.set_xticks(x, [f"{beta:g}" for beta in BETAS])
    panel.set(xlabel="β")


def _draw_active(panel: Any, sweep: Sweep) -> None:
    active = [over_seeds([float(found.active) for found in sweep[beta]]).value for beta in BETAS]
    panel.plot(range(len(BETAS)), active, "s--", color=LPFT, markersize=4)
    panel.set(ylim=(0, 1.05 * sweep[USUAL][0].dims))
    panel.set_ylabel("active latent dimensions", color=LPFT)
    panel.spines["right"].set_visible(True)


def _draw_trade(panel: Any, sweep: Sweep) -> None:
    """Rate against distortion, a point for each seed."""
    for beta, each in sweep.items():
        panel.plot([f.kl for f in each], [-f.reconstruction for f in each], "o", color=INK, alpha=0.6, markersize=4)
        x, y = each[0].kl, min(-f.reconstruction for f in each)
        panel.annotate(f"{beta:g}", (x, y), xytext=(0, -14), textcoords="offset points", ha="center", fontsize=8)
    panel.margins(y=0.12)
    panel.set(xscale="symlog", xlabel="rate: KL, nats an image", ylabel="distortion: -log p(x|z), nats an image",
              title="What the latents say and what is lost, by β")  # fmt: skip


def _draw_strips(below: Any, sweep: Sweep) -> None:
    for panel, (beta, each) in zip(below.subplots(len(sweep), 1), sweep.items(), strict=True):
        panel.imshow(strip(each[0].shown), interpolation="nearest")
        panel.set(xticks=(), yticks=())
        panel.spines[:].set_visible(False)
        panel.set_ylabel(f"β = {beta:g}", rotation=0, horizontalalignment="right", verticalalignment="center")

"""Claim 13: the GAN generator maximises the discriminator's cross-entropy.

On a line, where both densities p (real) and q_θ (generated) are known: the best discriminator has the logit log p/q,
and its cross-entropy is then log 4 - 2 JSD(p, q).

Shape letters: S seeds, N points, T steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.claims.claim import ClaimResult, Comparison, judged, over_seeds, range_found
from headfirst.claims.densities import (
    BASES,
    GAUSSIAN,
    GRID,
    TWO_MODES,
    Mixture,
    generated,
    gradient_of,
    jsd,
    log_density_of,
    softened_kl,
)
from headfirst.claims.figures import FINETUNE, INK, PROBE, as_svg, drawing, panels
from headfirst.claims.point_games import (
    BATCH,
    FAR,
    FEW_NODES,
    LOSSES,
    NUM_NODES,
    PER_ROUND,
    QUICK_ROUNDS,
    QUICK_STEPS,
    ROUNDS,
    STEPS,
    WIDTH,
    Played,
    Taught,
    against_best,
    game,
    sizes_when_found_out,
    start_of,
)
from headfirst.features import torch_threads
from headfirst.generate import discriminator_loss, gradient_ratio
from headfirst.types import Progress, silent

COLOURS = {"saturating": FINETUNE, "non-saturating": PROBE}


def twice_jsd(log_p: Tensor, log_q: Tensor) -> Tensor:
    """What the saturating loss descends at the best discriminator."""
    return 2 * jsd(log_p, log_q)


DESCENDED: Mapping[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "saturating": ("2 JSD(p, q)", twice_jsd),
    "non-saturating": ("KL(q‖p) - 2 JSD(p, q)", softened_kl),
}

PAIRS: Mapping[str, tuple[Mixture, Mixture]] = {
    "one mode against one": (GAUSSIAN, Mixture(weights=(1.0,), means=(1.0,), sds=(0.7,))),
    "two modes against one": (TWO_MODES, Mixture(weights=(1.0,), means=(0.5,), sds=(1.5,))),
}
"""Real and generated density for a discriminator alone."""

DISTANCES = tuple(0.5 * i for i in range(1, 13))

DESCENT_STEPS, DESCENT_RATE = 150, 0.2
"""Plain gradient descent on θ against the best discriminator."""

ROUNDING, QUADRATURE = 1e-8, 1e-3
LOGIT_MARGIN, LOSS_MARGIN, END_MARGIN, HALF_MARGIN, DEAD = 0.1, 0.005, 0.1, 0.05, 0.1


Found = Mapping[str, Mapping[str, list[float]]]
"""Kind of measurement → what was measured → for each seed."""


def run(
    data: None,
    backbone: None,
    seeds: Sequence[int],
    *,
    quick: bool = False,
    work: Path | None = None,
    progress: Progress = silent,
) -> ClaimResult:
    """Discriminators alone, generators against the best discriminator, and games of two; no images, no backbone."""
    steps, rounds = (QUICK_STEPS, QUICK_ROUNDS) if quick else (STEPS, ROUNDS)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    taught: dict[str, list[Taught]] = {}
    games: dict[str, list[Played]] = {}
    with torch_threads(1):  # networks this small take longer on two
        for i, (name, (p, q)) in enumerate(PAIRS.items()):
            taught[name] = against_best(p, q, seeds=seeds, steps=steps)
            progress("discriminators alone", i + 1, len(PAIRS))
        for i, name in enumerate(LOSSES):
            games[name] = game(name, seeds=seeds, rounds=rounds)
            progress("games", i + 1, len(LOSSES))
        trained = sizes_when_found_out(seeds=seeds, steps=steps // 4)
        for i, seed in enumerate(seeds):
            for base in BASES.values():
                exact_gradients(base, start_of(seed), found)
            for name in LOSSES:
                ends = [descent(name, base, base, start_of(seed))[-1] for base in BASES.values()]
                found["end against the best"][name].append(max(end.norm().item() for end in ends))
            progress("generators against the best discriminator", i + 1, len(seeds))
        unreached = {name: descent(name, TWO_MODES, GAUSSIAN, torch.zeros(2, dtype=torch.float64)) for name in LOSSES}
    return ClaimResult(
        number=13,
        title="The GAN generator maximises the discriminator's cross-entropy",
        statement="On known densities p (real) and q (generated): a trained discriminator comes to the logit log p/q "
        "and to the cross-entropy log 4 - 2 JSD(p, q); at the best discriminator the saturating loss maximises that "
        "cross-entropy, and so descends 2 JSD, while the non-saturating loss descends KL(q‖p) - 2 JSD; a generator "
        "that can reach p ends at q = p with D = ½ by either loss; where fakes are found out the saturating gradient "
        "is e^l times the other and dies.",
        rows=_rows(found, taught, games, trained, unreached),
        figure=_figure(taught, games, trained),
        fine_print=_fine_print(seeds, steps, rounds, games, unreached),
        quick=quick,
    )


def best_logits(p: Mixture, base: Mixture, theta: Tensor, x: Tensor) -> Tensor:
    """log p/q_θ at x, as a discriminator that does not move with θ."""
    return p.log_density(x) - log_density_of(base, theta.detach(), x)


def gradient(
    loss: Callable[[Tensor], Tensor], p: Mixture, base: Mixture, theta: Tensor, z: Float[Tensor, " n"]
) -> Float[Tensor, " 2"]:
    """∂ loss / ∂θ through the samples G(z), at the best discriminator of p and q_θ."""
    theta = theta.clone().requires_grad_()
    return torch.autograd.grad(loss(best_logits(p, base, theta, generated(theta, z))), theta)[0]


def exact_gradients(base: Mixture, theta: Tensor, found: dict[str, dict[str, list[float]]]) -> None:
    """Append to `found` how far each loss's gradient departs from what it is said to be, relative to that."""
    z = base.nodes(NUM_NODES)
    real = best_logits(base, base, theta, z)
    ascent = -gradient(partial(discriminator_loss, real), base, base, theta, z)
    for name, loss in LOSSES.items():
        given = gradient(loss, base, base, theta, z)
        found["cross-entropy"][name].append(_departure(given, ascent))
        descended = gradient_of(DESCENDED[name][1], base, base, theta)
        found["divergence"][name].append(_departure(given, descended))
    x = generated(torch.tensor([FAR, 0.0], dtype=torch.float64), z).requires_grad_()
    logits = best_logits(base, base, torch.tensor([FAR, 0.0], dtype=torch.float64), x)
    push, other = (
        torch.autograd.grad(LOSSES[name](logits), x, retain_graph=True)[0] for name in ("saturating", "non-saturating")
    )
    there = other != 0  # between two modes the logit has a summit
    ratio = (push[there] / other[there]) / gradient_ratio(logits[there])
    found["e^l"]["saturating"].append((ratio - 1).abs().max().item())


def _departure(given: Tensor, expected: Tensor) -> float:
    return ((given - expected).norm() / expected.norm()).item()


def descent(name: str, p: Mixture, base: Mixture, start: Tensor) -> Float[Tensor, "t 2"]:
    """θ under gradient descent on one of `LOSSES` against the best discriminator, which follows at once."""
    z, path = base.nodes(FEW_NODES), [start]
    for _ in range(DESCENT_STEPS):
        path.append(path[-1] - DESCENT_RATE * gradient(LOSSES[name], p, base, path[-1], z))
    return torch.stack(path)


def _rows(
    found: Found,
    taught: Mapping[str, list[Taught]],
    games: Mapping[str, list[Played]],
    trained: Mapping[str, list[float]],
    unreached: Mapping[str, Tensor],
) -> tuple[Comparison, ...]:
    rows = []
    for name, several in taught.items():
        rows += [
            judged(f"trained discriminator, {name}: mean |logit - log p/q|",
                   over_seeds([each.deviation for each in several]), "below", LOGIT_MARGIN),
            judged(f"trained discriminator, {name}: cross-entropy - (log 4 - 2 JSD), nats",
                   over_seeds([each.excess for each in several]), "below", LOSS_MARGIN),
        ]  # fmt: skip
    rows.append(judged("saturating gradient against ascent of the cross-entropy: relative departure",
                       range_found(found["cross-entropy"]["saturating"]), "below", ROUNDING))  # fmt: skip
    for name in LOSSES:
        rows.append(judged(f"{name} gradient against that of {DESCENDED[name][0]}: relative departure",
                           range_found(found["divergence"][name]), "below", QUADRATURE))  # fmt: skip
    rows.append(judged("each fake's gradient, saturating / non-saturating against e^l: largest relative departure",
                       range_found(found["e^l"]["saturating"]), "below", ROUNDING))  # fmt: skip
    ratios = [a / b for a, b in zip(trained["saturating"], trained["non-saturating"], strict=True)]
    rows.append(judged(f"generator's gradient at a trained discriminator, fakes {FAR:g} sd away: saturating / "
                       "non-saturating", over_seeds(ratios), "below", DEAD))  # fmt: skip
    for name in LOSSES:
        rows += [
            judged(f"{name}, best discriminator: |(μ, log s)| at the end, 0 being q = p",
                   range_found(found["end against the best"][name]), "below", QUADRATURE),
            judged(f"{name}, trained discriminator: |(μ, log s)| at the end",
                   over_seeds([each.end for each in games[name]]), "below", END_MARGIN),
            judged(f"{name}, trained discriminator: mean |D - ½| at the end",
                   over_seeds([each.after for each in games[name]]), "below", HALF_MARGIN),
        ]  # fmt: skip
    apart = (unreached["saturating"][-1] - unreached["non-saturating"][-1]).norm().item()
    return (
        *rows,
        judged("mean |D - ½| before the generator's first step", over_seeds([g.before for g in games["saturating"]]),
               "above", HALF_MARGIN, primary=False),
        judged("non-saturating gradient against ascent of the cross-entropy: relative departure",
               range_found(found["cross-entropy"]["non-saturating"]), "below", ROUNDING, primary=False),
        judged("a generator of one mode, p of two: distance between the two losses' ends", range_found([apart]),
               "below", QUADRATURE, primary=False),
    )  # fmt: skip


def _fine_print(
    seeds: Sequence[int],
    steps: int,
    rounds: int,
    games: Mapping[str, list[Played]],
    unreached: Mapping[str, Tensor],
) -> tuple[str, ...]:
    off = ", ".join(
        f"{sum(each.after for each in several) / len(several):.3f} ({name})" for name, several in games.items()
    )
    ends = ", ".join(
        f"{name} μ = {path[-1][0].item():.2f}, s = {path[-1][1].exp().item():.2f}" for name, path in unreached.items()
    )
    return (
        f"Seeds {list(seeds)}: other weights, draws and starts each. The trained discriminators are networks of two "
        f"hidden layers of {WIDTH}, Adam, {steps} steps of {BATCH} fresh points of each kind; in the game "
        f"{PER_ROUND} steps for each of the generator's {rounds}. Deviations are integrals over the line under ½p + "
        "½q, divergences quadrature, cross-entropies means over quantiles of p and q.",
        "The generator moves and stretches a density, G(z) = μ + s z, of one mode or two, and p is that density: q = p "
        "can be reached. The best discriminator, log p/q in closed form, follows it at once; the game is with a "
        "trained network, on one mode.",
        "The sentence is true of the saturating loss only. The non-saturating loss pushes each fake the same way, but "
        "weights fakes otherwise: its gradient in θ is not an ascent of the cross-entropy (second row from the end), "
        "and the divergence it descends is 2 KL(½p + ½q‖p) (Arjovsky & Bottou, ICLR 2017, give KL(q‖p) - 2 JSD, the "
        "same number). Both hold at the best discriminator of the moment, not for one that lags.",
        f"The two share their fixed point only where q = p can be reached. A Gaussian generator for p of two modes "
        f"ends at {ends}.",
        f"The trained game does not stand still: at the end D is off ½ by {off}. Both learning "
        "rates fall to zero, which helps it to settle.",
    )


def _figure(
    taught: Mapping[str, list[Taught]], games: Mapping[str, list[Played]], trained: Mapping[str, list[float]]
) -> str:
    with drawing():
        figure, (left, middle, right) = panels(3, width=12.0, height=3.8)
        name, (p, q) = list(PAIRS.items())[-1]
        seen = GRID.abs() <= 4
        x = GRID[seen]
        for i, each in enumerate(taught[name]):
            left.plot(x, each.logits[seen], color=PROBE, alpha=0.5, label="trained" if i == 0 else None)
        left.plot(x, (p.log_density(GRID) - q.log_density(GRID))[seen], "--", color=INK, label="log p/q")
        floor = -6.0
        for density, colour, label in ((p, INK, "p, real"), (q, FINETUNE, "q, generated")):
            height = floor + 4 * density.log_density(x).exp()
            left.fill_between(x, floor, height, color=colour, alpha=0.25, linewidth=0, label=label)
        left.set(xlabel="x", ylabel="logit", ylim=(floor, 3.5), title="The discriminator's logit")
        left.legend(fontsize=8, loc="upper right")

        z = GAUSSIAN.nodes(FEW_NODES)
        for loss, function in LOSSES.items():
            sizes = [
                gradient(function, GAUSSIAN, GAUSSIAN, torch.tensor([d, 0.0], dtype=torch.float64), z).norm().item()
                for d in DISTANCES
            ]
            middle.plot(DISTANCES, sizes, "-", color=COLOURS[loss], label=f"{loss}, best D")
            middle.plot([FAR] * len(trained[loss]), trained[loss], "o", color=COLOURS[loss], markersize=4, alpha=0.7,
                        label=f"{loss}, trained D")  # fmt: skip
        middle.set(yscale="log", xlabel="distance of the fakes, sd", ylabel="size of the generator's gradient",
                   title="Where fakes are found out")  # fmt: skip
        middle.legend(fontsize=8)

        for loss, several in games.items():
            for i, each in enumerate(several):
                mu, s = each.path[:, 0], each.path[:, 1].exp()
                right.plot(mu, s, color=COLOURS[loss], alpha=0.7, linewidth=1, label=loss if i == 0 else None)
                right.plot(mu[:1], s[:1], "o", color=INK, markersize=3)
        right.plot([0], [1], "+", color=INK, markersize=14, label="q = p")
        right.set(xlabel="μ", ylabel="s", title="The generator, from its starts (dots)")
        right.legend(fontsize=8)
        return as_svg(figure)

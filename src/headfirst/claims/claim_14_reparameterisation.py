"""Claim 14: reparameterisation lets gradients reach the encoder.

Two estimates of one gradient, ∂/∂(a, b) E f(z) with z ~ q(a, b), from one draw: pathwise, ∂ f(z(a, b, ε)), and
score-function (REINFORCE), f(z) ∂ log q(z). The expectation is known in closed form.

Shape letters: N draws, D latent dimensions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.claims.claim import ClaimResult, Comparison, judged, over_seeds, range_found
from headfirst.claims.figures import FINETUNE, INK, LPFT, PROBE, as_svg, drawing, panels
from headfirst.claims.linear_vae import (
    Surrogate,
    by_the_score,
    by_the_score_with_baseline,
    cut,
    learn,
    leave_one_out,
    through_the_sample,
)
from headfirst.features import torch_threads
from headfirst.generate import gaussian_log_likelihood, logistic_log_density, logistic_sample, reparameterised
from headfirst.metrics import Interval
from headfirst.types import Progress, silent

LOCATION = 0.7


def gaussian_log_density(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """(N,) log N(z; μ, σ²)."""
    return gaussian_log_likelihood(mean, log_variance, z)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A latent's distribution: its second parameter b, its noise, its sample and its log-density."""

    b: float
    noise: Callable[..., Tensor]
    sample: Callable[[Tensor, Tensor, Tensor], Tensor]
    log_density: Callable[[Tensor, Tensor, Tensor], Tensor]

    def parameters(self, noise: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
        """(N, D) locations and b, as leaves: each draw has its own, and so its own gradient."""
        a, b = (torch.full_like(noise, value, requires_grad=True) for value in (LOCATION, self.b))
        return a, b


FAMILIES: dict[str, Family] = {
    "Gaussian": Family(b=math.log(0.64), noise=torch.randn, sample=reparameterised, log_density=gaussian_log_density),
    "logistic": Family(b=math.log(0.5), noise=torch.rand, sample=logistic_sample, log_density=logistic_log_density),
}
"""b is log σ² and log s."""

FAST = 4.0


def square(z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Σ z²."""
    return z.square().sum(dim=1)


def cosine(z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Σ cos z."""
    return z.cos().sum(dim=1)


def fast_cosine(z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Σ cos 4z."""
    return (FAST * z).cos().sum(dim=1)


def step(z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Σ 1[z > 0], whose derivative is 0 wherever it has one."""
    return ((1 + z.sign()) / 2).sum(dim=1)


Function = Callable[[Tensor], Tensor]
SMOOTH: Mapping[str, Function] = {"Σ z²": square, "Σ cos z": cosine}
STEP = "Σ 1[z > 0]"

EXPECTATIONS: Mapping[tuple[str, str], Callable[[Tensor, Tensor], Tensor]] = {
    ("Gaussian", "Σ z²"): lambda a, b: a.square() + b.exp(),
    ("Gaussian", "Σ cos z"): lambda a, b: (-b.exp() / 2).exp() * a.cos(),
    ("Gaussian", STEP): lambda a, b: torch.special.ndtr(a * (-b / 2).exp()),
    ("logistic", "Σ z²"): lambda a, b: a.square() + (2 * b).exp() * math.pi**2 / 3,
    ("logistic", "Σ cos z"): lambda a, b: a.cos() * (math.pi * b.exp()) / (math.pi * b.exp()).sinh(),
    ("logistic", STEP): lambda a, b: (a * (-b).exp()).sigmoid(),
}
"""(family, function) → E f of one dimension, of location a and b."""

BATCHES, DRAWS, QUICK_DRAWS, JUDGED_DIM = 8, 50_000, 25_000, 10
"""Of each seed, for unbiasedness; batches have draws of their own."""
MARGIN = 0.05
"""Largest relative departure from the closed form that still counts as none."""
DIMS = (1, 3, 10, 30, 100)
VARIANCE_NUMBERS, VARIANCE_DRAWS = 200_000, 10_000
"""For variances: draws times dimensions, and at least so many draws."""

ESTIMATORS = ("pathwise", "score function", "score function, baseline")
COLOURS = {"pathwise": PROBE, "score function": FINETUNE, "score function, baseline": LPFT, "gradient cut": INK}
SURROGATES: Mapping[str, Surrogate] = {
    "pathwise": through_the_sample,
    "score function": by_the_score,
    "score function, baseline": by_the_score_with_baseline,
    "gradient cut": cut,
}
RATES, VAE_STEPS, QUICK_VAE_STEPS = (0.003, 0.01, 0.03), 400, 150

Deviations = Mapping[tuple[str, str, str], list[Tensor]]
"""(family, function, estimator) → for each batch (2,) relative deviations of location and b."""
Ratios = Mapping[tuple[str, str], list[list[float]]]
"""(family, estimator) → for each seed the variance over that of pathwise, by dimension."""
Gaps = Mapping[str, list[list[float]]]
"""One of `SURROGATES` → for each seed the gap to the best bound, by step."""


def run(
    data: None,
    backbone: None,
    seeds: Sequence[int],
    *,
    quick: bool = False,
    work: Path | None = None,
    progress: Progress = silent,
) -> ClaimResult:
    """Both estimates against closed forms, their variances by dimension, and a linear VAE; no images, no backbone."""
    draws, steps = (QUICK_DRAWS, QUICK_VAE_STEPS) if quick else (DRAWS, VAE_STEPS)
    deviations: dict[tuple[str, str, str], list[Tensor]] = defaultdict(list)
    ratios: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    fast: list[float] = []
    gaps: dict[str, list[list[float]]] = defaultdict(list)
    unreached: list[float] = []
    with torch_threads(1):
        rates = {name: chosen_rate(way, steps=steps, seed=max(seeds) + 1) for name, way in SURROGATES.items()}
        for i, seed in enumerate(seeds):
            for (family, function), found in deviations_of(draws, seed=seed):
                for estimator, each in found.items():
                    deviations[family, function, estimator].append(each)
            for family in FAMILIES:
                by_dim = [variance_ratios(FAMILIES[family], square, dim, seed=seed) for dim in DIMS]
                for estimator in ESTIMATORS[1:]:
                    ratios[family, estimator].append([found[estimator] for found in by_dim])
            fast.append(variance_ratios(FAMILIES["Gaussian"], fast_cosine, 1, seed=seed)["score function"])
            unreached.append(reaching_a_plain_draw(seed=seed))
            for name, way in SURROGATES.items():
                gaps[name].append(learn(way, rate=rates[name], steps=steps, seed=seed))
            progress("seeds", i + 1, len(seeds))
    return ClaimResult(
        number=14,
        title="Reparameterisation lets gradients reach the encoder",
        statement="Through a plain draw z ~ q no gradient reaches the parameters of q. Through a reparameterised one "
        "it does: for smooth f the pathwise estimate of ∂E f(z) has, like the score function's, the closed form as "
        f"its mean (to {MARGIN:.0%}), and for Σ z² less variance, by a factor that grows with the dimension; for a "
        "Gaussian and, by its inverse distribution function, for a logistic latent.",
        rows=_rows(deviations, ratios, fast, gaps, unreached),
        figure=_figure(ratios, gaps, seeds[0]),
        fine_print=_fine_print(deviations, ratios, gaps, rates, seeds, draws, steps),
        quick=quick,
    )


def pathwise(family: Family, f: Function, noise: Float[Tensor, "n d"]) -> Float[Tensor, "2 n d"]:
    """∂ f(z) / ∂(a, b) of each draw, through the sample."""
    a, b = family.parameters(noise)
    return torch.stack(torch.autograd.grad(f(family.sample(a, b, noise)).sum(), (a, b)))


def score_function(family: Family, f: Function, noise: Float[Tensor, "n d"]) -> Float[Tensor, "2 n d"]:
    """f(z) ∂ log q(z) / ∂(a, b) of each draw."""
    a, b = family.parameters(noise)
    z = family.sample(a, b, noise).detach()
    return torch.stack(torch.autograd.grad((f(z) * family.log_density(z, a, b)).sum(), (a, b)))


def with_baseline(f: Function) -> Function:
    """f less its mean over the other draws."""
    return lambda z: leave_one_out(f(z))


def truth(family: str, function: str) -> Float[Tensor, " 2"]:
    """∂ E f / ∂(a, b) of one dimension, from the closed form."""
    a, b = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (LOCATION, FAMILIES[family].b))
    return torch.stack(torch.autograd.grad(EXPECTATIONS[family, function](a, b), (a, b)))


def deviations_of(draws: int, *, seed: int) -> Iterator[tuple[tuple[str, str], dict[str, Tensor]]]:
    """(family, function) and, by estimator, the mean estimate over the truth, less 1; several batches of each."""
    generator = torch.Generator().manual_seed(seed)
    for family, function in EXPECTATIONS:
        expected, f = truth(family, function), {**SMOOTH, STEP: step}[function]
        for _ in range(BATCHES):
            noise = FAMILIES[family].noise(draws, JUDGED_DIM, generator=generator, dtype=torch.float64)
            yield (
                (family, function),
                {
                    "pathwise": pathwise(FAMILIES[family], f, noise).mean(dim=(1, 2)) / expected - 1,
                    "score function": score_function(FAMILIES[family], f, noise).mean(dim=(1, 2)) / expected - 1,
                },
            )


def variance_ratios(family: Family, f: Function, dim: int, *, seed: int) -> dict[str, float]:
    """Total variance of the gradient (the trace of its covariance) over that of pathwise, by estimator."""
    draws = max(VARIANCE_DRAWS, VARIANCE_NUMBERS // dim)
    noise = family.noise(draws, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    quiet = pathwise(family, f, noise).var(dim=1).sum()
    return {
        "score function": (score_function(family, f, noise).var(dim=1).sum() / quiet).item(),
        "score function, baseline": (score_function(family, with_baseline(f), noise).var(dim=1).sum() / quiet).item(),
    }


def reaching_a_plain_draw(*, seed: int) -> float:
    """Largest |∂ Σ z² / ∂(μ, σ)| where z comes from `torch.normal` and not from `reparameterised`."""
    mean = torch.full((100,), LOCATION, requires_grad=True)
    sd = torch.full((100,), 0.8, requires_grad=True)
    z = torch.normal(mean, sd, generator=torch.Generator().manual_seed(seed))
    return max(grad.abs().max().item() for grad in torch.autograd.grad(square(z[:, None]).sum(), (mean, sd)))


def chosen_rate(way: Surrogate, *, steps: int, seed: int) -> float:
    """The learning rate with the least gap at the end, on a seed that is not reported."""
    return min(RATES, key=lambda rate: learn(way, rate=rate, steps=steps, seed=seed)[-1])


def off_by(deviations: Sequence[Tensor]) -> Interval:
    """|mean relative deviation| of location or b, whichever may be further off; over batches.

    Below a margin it says that both ends of the interval of the mean lie within ± the margin.
    """

    def size(found: Interval) -> Interval:
        ends = abs(found.low), abs(found.high)
        return Interval(abs(found.value), 0.0 if found.low <= 0 <= found.high else min(ends), max(ends))

    return max((size(over_seeds(each)) for each in torch.stack(list(deviations)).T.numpy()), key=lambda s: s.high)


def slope(ratios: Sequence[float]) -> float:
    """Least-squares slope of log ratio on log D."""
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (DIMS, ratios))
    x = x - x.mean()
    return ((x @ y) / (x @ x)).item()


def _rows(
    deviations: Deviations, ratios: Ratios, fast: list[float], gaps: Gaps, unreached: list[float]
) -> tuple[Comparison, ...]:
    rows, aside = [], []
    for (family, function, estimator), found in deviations.items():
        row = judged(f"{family}, {function}, {estimator}: |mean / closed form - 1|", off_by(found), "below", MARGIN,
                     primary=function != STEP)  # fmt: skip
        (rows if row.primary else aside).append(row)
    for family in FAMILIES:
        found = ratios[family, "score function"]
        rows += [
            judged(f"{family}, Σ z², D = {dim}: variance, score function / pathwise",
                   over_seeds([each[DIMS.index(dim)] for each in found]), "above", 1.0)
            for dim in (1, JUDGED_DIM, DIMS[-1])
        ]  # fmt: skip
        rows.append(judged(f"{family}, Σ z²: slope of log variance ratio on log D",
                           over_seeds([slope(each) for each in found]), "above"))  # fmt: skip
        baseline = [each[DIMS.index(JUDGED_DIM)] for each in ratios[family, "score function, baseline"]]
        aside.append(judged(f"{family}, Σ z², D = {JUDGED_DIM}: variance, score function with a baseline / pathwise",
                            over_seeds(baseline), "above", 1.0, primary=False))  # fmt: skip
    aside.append(judged(f"Gaussian, cos {FAST:g}z: variance, score function / pathwise", over_seeds(fast), "above", 1.0,
                        primary=False))  # fmt: skip
    for name in ESTIMATORS[1:]:
        more = [a[-1] - b[-1] for a, b in zip(gaps[name], gaps["pathwise"], strict=True)]
        aside.append(judged(f"linear VAE, gap to the best bound, {name} - pathwise (nats)", over_seeds(more), "above",
                            primary=False))  # fmt: skip
    closed = [each[0] - each[-1] for each in gaps["gradient cut"]]
    aside.append(judged("linear VAE, gradient cut: how much of the gap is closed (nats)", range_found(closed),
                        "exactly", primary=False))  # fmt: skip
    return (
        judged("plain draw: largest gradient that reaches location or scale", range_found(unreached), "exactly"),
        *rows,
        *aside,
    )


def _fine_print(
    deviations: Deviations,
    ratios: Ratios,
    gaps: Gaps,
    rates: Mapping[str, float],
    seeds: Sequence[int],
    draws: int,
    steps: int,
) -> tuple[str, ...]:
    smooth = [found for (_, function, _), found in deviations.items() if function != STEP]
    covered = [
        interval.low <= 0 <= interval.high
        for found in smooth
        for interval in (over_seeds(each) for each in torch.stack(found).T.numpy())
    ]
    baseline = " and ".join(
        f"{sum(each[DIMS.index(JUDGED_DIM)] for each in ratios[family, ESTIMATORS[2]]) / len(seeds):.3g} ({family})"
        for family in FAMILIES
    )
    ends = ", ".join(
        f"{name} {sum(each[-1] for each in several) / len(several):.3g} (rate {rates[name]:g})"
        for name, several in gaps.items()
    )
    return (
        f"Seeds {list(seeds)}, {BATCHES} batches of {draws:,} draws each, D = {JUDGED_DIM}, location {LOCATION:g}, "
        f"σ² = 0.64, logistic scale 0.5. Departures are those of location or scale, whichever may be further off, over "
        f"all batches; {sum(covered)} of the {len(covered)} intervals cover the closed form. Variance is the trace of "
        f"the gradient's covariance for one draw, from at least {VARIANCE_DRAWS:,} draws a seed.",
        f"A baseline, the mean of f over the other draws, costs nothing and leaves the score function with {baseline} "
        f"times the pathwise variance at D = {JUDGED_DIM}.",
        "It is the smoothness of f that makes the pathwise estimate right and quiet. A step's derivative is 0 wherever "
        "it has one: the pathwise estimate is 0 and all of the gradient is missed, while the score function is right. "
        f"And f that waves fast (cos {FAST:g}z) has a derivative so large that the score function is the quieter one.",
        f"Linear VAE with a decoder that stays, one draw a point, Adam, {steps} steps, each way at the best of "
        f"{len(RATES)} learning rates on a seed that is not reported. Gap to the best bound at the end, in nats, from "
        f"{gaps['pathwise'][0][0]:.3g} at the start: {ends}. The KL's gradient needs no draw; alone it keeps the "
        "encoder at the prior.",
    )


def _figure(ratios: Ratios, gaps: Gaps, seed: int) -> str:
    with drawing():
        figure, (left, middle, right) = panels(3, width=12.0, height=3.8)
        family, counts = FAMILIES["Gaussian"], torch.arange(1, 10_001)
        noise = family.noise(
            len(counts), JUDGED_DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        shown = torch.logspace(0, 4, 200).long().unique()
        for estimator, estimate in (("score function", score_function), ("pathwise", pathwise)):
            running = estimate(family, square, noise)[0, :, 0].cumsum(dim=0) / counts
            left.plot(shown, running[shown - 1], color=COLOURS[estimator], label=estimator)
        left.axhline(truth("Gaussian", "Σ z²")[0].item(), color=INK, linestyle="--", linewidth=0.8, label="closed form")
        left.set(xscale="log", ylim=(-8, 10), xlabel="draws", ylabel="mean estimate",
                 title=f"∂E Σ z² / ∂μ, D = {JUDGED_DIM}")  # fmt: skip
        left.legend(fontsize=8)

        styles = {"score function": "-", "score function, baseline": "--"}
        for (name, estimator), several in ratios.items():
            colour, marker = (PROBE, "o") if name == "Gaussian" else (FINETUNE, "s")
            mean = torch.tensor(several).mean(dim=0)
            middle.plot(DIMS, mean, styles[estimator], marker=marker, color=colour, markersize=4,
                        label=f"{name}{estimator.removeprefix('score function')}")  # fmt: skip
        middle.axhline(1.0, color=INK, linestyle=":", linewidth=0.8)
        middle.set(xscale="log", yscale="log", xlabel="dimensions D", ylabel="variance, score function / pathwise",
                   title="Σ z²")  # fmt: skip
        middle.set_xticks(DIMS, [str(dim) for dim in DIMS])
        middle.minorticks_off()
        middle.legend(fontsize=8)

        for name, several in gaps.items():
            every = torch.tensor(several)
            right.plot(
                every.mean(dim=0), color=COLOURS[name], label=name, linestyle=":" if name == "gradient cut" else "-"
            )
            right.fill_between(range(every.shape[1]), every.amin(dim=0), every.amax(dim=0), color=COLOURS[name],
                               alpha=0.2, linewidth=0)  # fmt: skip
        right.set(yscale="log", xlabel="steps", ylabel="gap to the best bound, nats", title="A linear VAE's encoder")
        right.legend(fontsize=8)
        return as_svg(figure)

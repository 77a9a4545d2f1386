"""Claim 10: the logit scale (inverse temperature) sets the sharpness.

Logits are cosines z between features and class means (of a dual encoder: class names); probabilities are softmax(s z),
the same as softmax(z / T) with T = 1 / s. Entropy H(s) falls for every image: dH/ds = -s Var_p(z) ≤ 0.

Shape letters: N images, K classes, S seeds, B bins, F scales.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from headfirst.adapt import ZeroShot, ZeroShotModel
from headfirst.claims.claim import ClaimResult, Comparison, judged, range_found
from headfirst.claims.experiment import SHOTS, ready
from headfirst.claims.figures import FINETUNE, INK, PROBE, as_svg, drawing, panels
from headfirst.data import ImageSet, few_shot
from headfirst.features import embed
from headfirst.metrics import Interval, bootstrap_interval, bootstrap_statistic, fit_temperature
from headfirst.nn import DualEncoder, PretrainedBackbone
from headfirst.types import Features, Progress, silent

FACTORS = tuple(2.0**power for power in range(-4, 5))
"""The sweep, as multiples of the fitted scale; the judged neighbours are half and double."""

HALF, FITTED, DOUBLE = (FACTORS.index(factor) for factor in (0.5, 1.0, 2.0))
ROUNDING = 1e-12
NUM_BINS = 15

Found = dict[str, list[Tensor]]
"""Split → for each seed (N, K) cosines, or (F, N) of something measured at each scale."""


def run(
    data: ImageSet,
    backbone: PretrainedBackbone | DualEncoder,
    seeds: Sequence[int],
    *,
    quick: bool = False,
    work: Path | None = None,
    progress: Progress = silent,
) -> ClaimResult:
    """One head of class means a seed, or the one head of the class names; its scale is fitted on validation and swept
    on test and the data's shifts."""
    text = None
    if isinstance(backbone, DualEncoder):
        encoder, backbone = backbone, backbone.image_alone()
        text = ZeroShot(data.classes).fit(encoder)
        seeds = seeds[:1]  # nothing is drawn
    data = ready(data, backbone, progress)
    asked: dict[str, Features] = {}
    for name in ("test", *data.shifts()):
        asked[name] = embed(backbone, data[name], progress=progress)
    val = embed(backbone, data["val"], progress=progress)
    scales: list[float] = []
    probabilities: dict[str, list[Tensor]] = defaultdict(list)  # (F, N, K)
    departures: list[float] = []
    for i, seed in enumerate(seeds):
        if text is None:
            directions = class_means(embed(backbone, few_shot(data["train"], SHOTS, seed=seed)))
        else:
            directions = text.directions.double()
        scale = 1 / fit_temperature(cosines(val, directions), val.labels)
        scales.append(scale)
        for name, features in asked.items():
            z = cosines(features, directions)
            swept = torch.stack([sharpened(z, factor * scale) for factor in FACTORS])
            divided = torch.stack([(z / (1 / (factor * scale))).softmax(dim=1) for factor in FACTORS])
            departures.append((swept - divided).abs().max().item())
            probabilities[name].append(swept)
        progress("seeds", i + 1, len(seeds))
    labels = {name: features.labels for name, features in asked.items()}
    return ClaimResult(
        number=10,
        title="The logit scale (inverse temperature) sets the sharpness",
        statement=f"As the scale of a head of class {'means' if text is None else 'names'} over cosines rises, the "
        "entropy of its probabilities falls on every image and its arg-max stays; at the scale fitted on validation, "
        "log-loss and expected calibration error on test are below those at half and at double that scale; dividing by "
        "the temperature 1/s is the same as multiplying by s, to rounding.",
        rows=_rows(probabilities, labels, departures),
        figure=_figure(probabilities, labels),
        fine_print=(
            f"{_drawn(text, seeds)}; scales fitted on {len(val)} validation images: "
            f"{', '.join(f'{scale:.3g}' for scale in scales)}, that is temperatures "
            f"{', '.join(f'{1 / scale:.2g}' for scale in scales)}. Calibration error of the top label, {NUM_BINS} bins "
            "of equal mass. Differences are paired over images and seeds; resampling adds to calibration errors, most "
            "to small ones, so that their intervals err against the claim.",
            "A scale that fits at home need not fit away: the rows on the shifts say by how much confidence is then "
            "off. It moves no decision, so accuracy is out of its reach, at home as away.",
        ),
        quick=quick,
    )


def class_means(home: Features) -> Tensor:
    """(K, D) directions of the class means of normalised home features, float64."""
    unit = F.normalize(home.values.double(), dim=1)
    means = torch.stack([unit[home.labels == k].mean(dim=0) for k in range(len(home.classes))])
    return F.normalize(means, dim=1)


def cosines(features: Features, directions: Tensor) -> Tensor:
    """(N, K) cosines in [-1, 1], float64, of features with the classes' directions (K, D)."""
    return F.normalize(features.values.double(), dim=1) @ directions.T


def _drawn(text: ZeroShotModel | None, seeds: Sequence[int]) -> str:
    if text is None:
        return f"{SHOTS} training images a class, seeds {list(seeds)} (another draw each)"
    return f"Class names read by {text.encoder}, whose own scale is {text.logit_scale:.3g}; no training image"


def sharpened(z: Tensor, scale: float) -> Tensor:
    """softmax(scale · z), rows sum to one."""
    return (scale * z).softmax(dim=1)


def entropies(probabilities: Tensor) -> Tensor:
    """(F, N) entropies in nats of probabilities (F, N, K)."""
    return torch.special.entr(probabilities).sum(dim=-1)


def log_losses(probabilities: Tensor, labels: Tensor) -> Tensor:
    """(F, N) log-losses in nats."""
    at_label = probabilities.gather(2, labels[None, :, None].expand(len(probabilities), -1, 1))[..., 0]
    # A probability of 0 has no logarithm; the least positive double, 708 nats, stands for it.
    return -at_label.clamp(min=torch.finfo(torch.float64).tiny).log()


def calibration_gaps(probabilities: Tensor, labels: Tensor) -> Tensor:
    """(N, B): (correct - confidence) / N of each image in the column of its bin; the absolute column sums add up to the
    expected calibration error."""
    confidence, predicted = probabilities.max(dim=1)
    bins = confidence.argsort(stable=True).argsort() * NUM_BINS // len(confidence)
    gaps = ((predicted == labels).double() - confidence) / len(confidence)
    return gaps[:, None] * F.one_hot(bins, NUM_BINS)


def calibration_excess(probabilities: Sequence[Tensor], labels: Tensor, other: int) -> Interval:
    """Calibration error at scale number `other` less that at the fitted one; over images and seeds.

    The error of resampled images lies above that of the images themselves, most where it is small: the interval errs
    against the claim.
    """
    pairs = [tuple(calibration_gaps(p[f], labels) for f in (other, FITTED)) for p in probabilities]

    def excess(weights: Tensor, pair: tuple[Tensor, ...]) -> Tensor:
        away, fitted = ((weights @ gaps).abs().sum(dim=1) for gaps in pair)
        return away - fitted

    whole = torch.ones(1, len(labels), dtype=torch.float64)
    return bootstrap_statistic(
        lambda weights: torch.stack([excess(weights, pair) for pair in pairs]).mean(dim=0),
        torch.cat([excess(whole, pair) for pair in pairs]),
        len(labels),
        seed=0,
        bounds=(-1.0, 1.0),
    )


def _rows(
    probabilities: Mapping[str, list[Tensor]], labels: Mapping[str, Tensor], departures: list[float]
) -> tuple[Comparison, ...]:
    everything = [swept for of_split in probabilities.values() for swept in of_split]
    steps = [entropies(swept).diff(dim=0) for swept in everything]
    rises = [float((step > ROUNDING).sum()) for step in steps]
    decisions = [swept.argmax(dim=2) for swept in everything]
    changes = [float((decided != decided[FITTED]).sum()) for decided in decisions]
    mean_steps = torch.cat([step.mean(dim=1) for step in steps])
    rows = [
        judged("mean entropy, change from a scale to its double (nats)", range_found(mean_steps.numpy()), "below"),
        judged("images whose entropy rises with the scale", range_found(rises), "exactly"),
        judged("decisions that the scale changes", range_found(changes), "exactly"),
        judged("probabilities, s z against z / T: largest difference", range_found(departures), "below", ROUNDING),
    ]
    for name, of_split in probabilities.items():
        losses = torch.stack([log_losses(swept, labels[name]) for swept in of_split])
        for word, other in (("half", HALF), ("double", DOUBLE)):
            loss = bootstrap_interval(losses[:, other] - losses[:, FITTED], seed=0)
            error = calibration_excess(of_split, labels[name], other)
            for what, found in (("log-loss", loss), ("calibration error", error)):
                rows.append(judged(f"{what} on {name}, {word} the scale - fitted", found, "above",
                                   primary=name == "test"))  # fmt: skip
    return tuple(rows)


def _figure(probabilities: Mapping[str, list[Tensor]], labels: Mapping[str, Tensor]) -> str:
    with drawing():
        figure, axes = panels(3, width=11.0)
        colours = [PROBE, FINETUNE, *[INK] * len(labels)]
        for colour, (name, of_split) in zip(colours, probabilities.items(), strict=False):
            curves = (
                [entropies(swept).mean(dim=1) for swept in of_split],
                [log_losses(swept, labels[name]).mean(dim=1) for swept in of_split],
                [
                    torch.stack([calibration_gaps(p, labels[name]).sum(dim=0).abs().sum() for p in swept])
                    for swept in of_split
                ],
            )
            for panel, found in zip(axes, curves, strict=True):
                every = torch.stack(found)
                panel.plot(FACTORS, every.mean(dim=0), "o-", color=colour, label=name, markersize=4)
                panel.fill_between(FACTORS, every.amin(dim=0), every.amax(dim=0), color=colour, alpha=0.2)
        titles = ("Entropy (nats)", "Log-loss (nats)", "Calibration error")
        for panel, title in zip(axes, titles, strict=True):
            panel.axvline(1.0, color=INK, linewidth=0.8, linestyle="--")
            panel.set(xscale="log", xlabel="scale, as a multiple of the fitted one", title=title)
            panel.set_xticks(FACTORS[::2], [f"{factor:g}" for factor in FACTORS[::2]])
            panel.minorticks_off()
        axes[0].set_ylim(bottom=0)
        axes[1].set_yscale("log")  # at large scales it grows as the scale does
        axes[2].set_ylim(bottom=0)
        axes[0].legend()
        return as_svg(figure)

"""Which method to ship: decided on held-out images that are never reported, checked on the ones that are.

The utility of a method is its accuracy at home (the validation split) times `home_weight`, plus its accuracy away
(corrupted validation images and `val-<name>` folders, averaged) times the rest. The method of the highest expected
utility wins, unless it is worse than the probe or zero-shot at home beyond the interval of the paired difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from headfirst.errors import InputError
from headfirst.evaluation import by_method_and_split, correct
from headfirst.metrics import Interval, bootstrap_interval, mean_over_splits, paired_difference
from headfirst.metrics.resampling import NUM_DRAWS, mean_draws
from headfirst.types import Predictions, Recommendation, Row

T = TypeVar("T")

HOME = "val"
CORRUPTED = "val-corrupted"
TUNED = ("finetune", "lp-ft", "wise-ft", "flyp")
COMPARED = ("vae", "diffusion")
"""Measured beside the others and never recommended: nothing on the backbone that could be saved."""


def choose(
    selection: Sequence[Predictions],
    reported: Sequence[Predictions],
    *,
    home_weight: float = 0.5,
    baselines: Sequence[str] = ("probe", "zero-shot"),
    seed: int = 0,
) -> Recommendation:
    """The recommendation.

    Args:
        selection: predictions on `val`, `val-corrupted` and `val-<name>`, cross-fitted: no image is scored by a
            model whose learning rate it chose.
        reported: predictions on `test` and the shifts; read only for the verdict.
        home_weight: share of the utility that home has, in [0, 1].
        baselines: what a method must not lose to at home; those that were not run rule nothing out.
        seed: of the bootstrap.
    """
    if not 0 <= home_weight <= 1:
        raise InputError(f"home_weight is a share in [0, 1], got {home_weight}; 0.5 weighs home and away alike")
    groups = by_method_and_split(selection)
    methods = list(dict.fromkeys(method for method, _ in groups))
    splits = list(dict.fromkeys(split for _, split in groups))
    if HOME not in splits:
        raise InputError(f"a choice needs the split {HOME!r}, got {', '.join(splits) or 'none'}")
    utilities: dict[str, Interval] = {}
    blocks: dict[str, list[Tensor]] = {}
    ruled_out: dict[str, tuple[str, Interval]] = {}
    rows: list[Row] = []
    for method in methods:
        scored = {split: correct(groups[method, split]).double() for split in splits}
        blocks[method] = _home_and_away(scored, home_weight)
        utilities[method] = mean_over_splits(blocks[method], seed=seed, bounds=(0.0, 1.0))
        first = groups[method, HOME][0]
        for split, interval in [
            *((split, bootstrap_interval(block, bounds=(0.0, 1.0), seed=seed)) for split, block in scored.items()),
            ("home and away", utilities[method]),
        ]:
            n = scored[split].shape[1] if split in scored else sum(b.shape[1] for b in scored.values())
            rows.append(
                Row(method=method, split=split, metric="accuracy", value=interval.value, low=interval.low,
                    high=interval.high, n=n, seed_count=len(scored[HOME]), chosen_on=first.chosen_on)
            )  # fmt: skip
        for baseline in baselines:
            if method != baseline and (baseline, HOME) in groups:
                against = paired_difference(scored[HOME], correct(groups[baseline, HOME]).double(), seed=seed)
                if against.high < 0:
                    ruled_out[method] = (baseline, against)
    best = max((m for m in _open(utilities) if m not in ruled_out), key=lambda method: utilities[method].value)
    return Recommendation(
        method=best,
        sentence=_sentence(best, methods),
        reason=_reason(best, _open(utilities), _wins(_open(blocks), seed), ruled_out, splits, home_weight, methods),
        verdict=verdict(best, reported, seed=seed),
        scores=tuple(rows),
    )


def verdict(method: str, reported: Sequence[Predictions], *, seed: int = 0) -> str:
    """What the reported splits, read once and afterwards, say of the choice of `method`."""
    groups = by_method_and_split(reported)
    splits = list(dict.fromkeys(split for _, split in groups))
    others = [m for m in dict.fromkeys(m for m, _ in groups) if m != method]
    sentences = []
    for where, names in (
        ("At home (test)", [split for split in splits if split == "test"]),
        ("Away (mean over shifts)", [split for split in splits if split.startswith("shift-")]),
    ):
        better = {}
        for other in others if names else ():
            gaps = [correct(groups[other, name]).double() - correct(groups[method, name]).double() for name in names]
            gap = mean_over_splits(gaps, seed=seed, bounds=(-1.0, 1.0))
            if gap.low > 0:
                better[other] = gap
        if better:
            listed = ", ".join(f"{m} by {points(gap)}" for m, gap in sorted(better.items(), key=lambda x: -x[1].value))
            sentences.append(f"{where} another choice would have been better: {method} is beaten by {listed}.")
        elif names and others:
            sentences.append(f"{where} nothing contradicts the choice: no method beats {method} beyond the interval.")
    return " ".join(sentences)


def points(gap: Interval) -> str:
    """A difference of accuracies in percentage points.

    >>> points(Interval(0.021, 0.008, 0.034))
    '2.1 points [0.8, 3.4]'
    """
    return f"{100 * gap.value:.1f} points [{100 * gap.low:.1f}, {100 * gap.high:.1f}]"


def _open(of: Mapping[str, T]) -> dict[str, T]:
    """What is said of the methods that may be recommended."""
    return {method: found for method, found in of.items() if method not in COMPARED}


def _home_and_away(scored: Mapping[str, Tensor], home_weight: float) -> list[Tensor]:
    """Blocks whose unweighted mean is w · home + (1 - w) · mean of the away splits.

    A validation image and its corrupted copy are one image, so they make one block; other folders stand alone.
    """
    away = [split for split in scored if split != HOME]
    blocks = {split: ((1 - home_weight) / len(away)) * scored[split] for split in away}
    home = (home_weight if away else 1.0) * scored[HOME]
    first = home + blocks.pop(CORRUPTED) if CORRUPTED in blocks else home
    all_blocks = [first, *blocks.values()]
    return [len(all_blocks) * block for block in all_blocks]


def _wins(blocks: Mapping[str, Sequence[Tensor]], seed: int) -> dict[str, float]:
    """Share of paired resamples of the images in which each method has the highest utility; ties go to the first."""
    draws = torch.stack(
        [
            torch.stack([mean_draws(b, seed=seed + i, num_draws=NUM_DRAWS) for i, b in enumerate(group)]).mean(dim=0)
            for group in blocks.values()
        ]
    )
    counts = torch.bincount(draws.argmax(dim=0), minlength=len(blocks)).double() / NUM_DRAWS
    return dict(zip(blocks, counts.tolist(), strict=True))


def _sentence(best: str, methods: Sequence[str]) -> str:
    names = {
        "zero-shot": "the class names alone, without a label (zero-shot)",
        "anchored-probe": "the probe anchored to the class names (anchored-probe)",
        "flyp": "the dual encoder tuned on images and prompts (flyp)",
        "knn": "nearest neighbours on the frozen backbone (knn)",
        "lda": "linear discriminant analysis on the frozen backbone (lda)",
        "naive-bayes": "naive Bayes on the frozen backbone (naive-bayes)",
        "probe": "the linear probe on the frozen backbone (probe)",
        "finetune": "the fine-tuned model (finetune)",
        "lp-ft": "the model tuned head first (lp-ft)",
        "wise-ft": "the weight average of probe and tuned model (wise-ft)",
    }
    sentence = f"Ship {names.get(best, best)}."
    if best not in TUNED and any(method in TUNED for method in methods):
        sentence += " Fine-tuning does not pay here."
    return sentence


def _reason(
    best: str,
    utilities: Mapping[str, Interval],
    wins: Mapping[str, float],
    ruled_out: Mapping[str, tuple[str, Interval]],
    splits: Sequence[str],
    home_weight: float,
    methods: Sequence[str],
) -> str:
    runners = [m for m in sorted(utilities, key=lambda m: -utilities[m].value) if m != best and m not in ruled_out]
    weights = f"{100 * home_weight:.0f} % of the utility is home and {100 - 100 * home_weight:.0f} % away"
    reason = (
        f"Chosen on {', '.join(splits)}, none of which is reported: {weights}, and {best} has the highest, "
        f"{_percent(utilities[best])}"
    )
    reason += f", before {runners[0]} with {_percent(utilities[runners[0]])}" if runners else ""
    reason += f"; it leads in {100 * wins[best]:.0f} % of paired resamples of the images." if runners else "."
    for method in methods:
        reason += f" {method} was measured beside them and stands for no choice." if method in COMPARED else ""
    for method, (baseline, gap) in ruled_out.items():
        reason += f" {method} was ruled out: at home it is {points(gap)} against the {baseline}."
    return reason


def _percent(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"

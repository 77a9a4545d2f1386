"""How often the planner's 95 % intervals held, on Gaussian classes, where further labels can be drawn.

    python bench/planner_coverage.py [--sets 80]

In each set class means are drawn, then training and validation features. The planner says what `more` labels a class
are worth, of all classes and of one: the one it would name first, that of the lowest recall on validation. Then these
labels are drawn, the probe is fitted with them, and what they brought is seen on 5,000 images a class. An interval
that says 95 % should hold 95 % of the time; how far half of it reaches is in points of balanced accuracy.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import torch
from record import record

from headfirst.adapt import LinearProbe
from headfirst.metrics import binomial_interval
from headfirst.study.fewer_labels import right_with_fewer
from headfirst.study.worth import Valuation, Worth
from headfirst.types import Features

NUM_CLASSES, NUM_FEATURES, APART = 4, 8, 0.6
NUM_TEST = 5000
SEEDS = range(10)


@dataclass(frozen=True)
class Setting:
    """Labels of each class, how many more are valued, validation images of each class."""

    labels: int
    more: int
    val: int


SETTINGS = (Setting(10, 10, 20), Setting(20, 20, 40), Setting(40, 20, 100), Setting(10, 40, 40))


@dataclass(frozen=True)
class Trial:
    """What was promised and what came; shares of balanced accuracy."""

    value: float
    low: float
    high: float
    truth: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--sets", type=int, default=80)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    found = {}
    for setting in SETTINGS:
        pairs = [trials(setting, seed) for seed in range(options.sets)]
        name = f"{setting.labels} labels, {setting.more} more, {setting.val} validation images of each class"
        every, one = zip(*pairs, strict=True)
        found[name] = {"every class": summary(every), "one class": summary(one)}
        print(name, found[name], flush=True)
    figures = {"classes": NUM_CLASSES, "features": NUM_FEATURES, "sets": options.sets, "settings": found}
    record("planner_coverage", {**figures, "seconds": round(time.perf_counter() - start)})


def trials(setting: Setting, seed: int) -> tuple[Trial, Trial]:
    """One set: more labels of every class, and of the hardest one."""
    random = torch.Generator().manual_seed(seed)
    means = APART * torch.randn(NUM_CLASSES, NUM_FEATURES, generator=random)

    def drawn(each: int, *, only: int | None = None) -> Features:
        classes = torch.arange(NUM_CLASSES) if only is None else torch.tensor([only])
        labels = classes.repeat_interleave(each)
        values = means[labels] + torch.randn(len(labels), NUM_FEATURES, generator=random)
        ids = tuple(map(str, range(len(labels))))
        return Features(values=values, labels=labels, classes=tuple("abcd"), ids=ids, split="", source="")

    train, val, test = drawn(setting.labels), drawn(setting.val), drawn(NUM_TEST)
    l2 = LinearProbe().fit(train).l2
    valuation = Valuation(train=train, val=val, l2=l2, more=setting.more, seeds=SEEDS)
    curve, ((hardest,), _) = valuation.overall(), valuation.by_class(1)
    assert curve is not None

    def right(labelled: Features) -> float:
        counts = labelled.labels.bincount().numpy()[None]
        strength = l2 * len(train) / len(labelled)
        return right_with_fewer(labelled, test, counts, l2=strength, seeds=[0]).double().mean().item()

    def trial(worth: Worth, further: Features) -> Trial:
        gain = right(joined(train, further)) - before
        return Trial(worth.value, worth.low, worth.high, gain)

    before = right(train)
    alone = drawn(setting.more, only=train.classes.index(hardest.class_name))
    return trial(curve.worth, drawn(setting.more)), trial(hardest, alone)


def joined(a: Features, b: Features) -> Features:
    ids = tuple(map(str, range(len(a) + len(b))))
    return replace(a, values=torch.cat([a.values, b.values]), labels=torch.cat([a.labels, b.labels]), ids=ids)


def summary(trials: tuple[Trial, ...]) -> dict[str, object]:
    held = sum(t.low <= t.truth <= t.high for t in trials)
    share = binomial_interval(held, len(trials))
    return {
        "held": round(share.value, 3),
        "held_interval": [round(share.low, 3), round(share.high, 3)],
        "points_promised": round(100 * fmean(t.value for t in trials), 2),
        "points_that_came": round(100 * fmean(t.truth for t in trials), 2),
        "points_half_width": round(100 * float(np.median([(t.high - t.low) / 2 for t in trials])), 2),
        "points_largest_truth_beyond": round(100 * max(max(t.low - t.truth, t.truth - t.high) for t in trials), 2),
    }


if __name__ == "__main__":
    main()

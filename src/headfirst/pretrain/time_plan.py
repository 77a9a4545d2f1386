"""A pre-training for a given number of minutes: measure a step, then choose what fits.

What enters: backbones to choose from, the largest first, the images and the time. What leaves: the first backbone that
can look at the images often enough, and as many epochs as end on time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from headfirst.data import ImageSplit, prepare_split
from headfirst.errors import InputError
from headfirst.nn import PretrainedBackbone
from headfirst.pretrain.pretraining import Pretraining
from headfirst.pretrain.signals import watched
from headfirst.pretrain.training import CHECKS, train_backbone
from headfirst.types import Progress, silent

ENOUGH_EPOCHS = 40
"""A network that sees the images less often is too large for the time: a smaller one learns more in it."""
SHARE = 0.9
"""Of the time; the rest is for what the measurement did not see."""
_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class TimePlan:
    """What was chosen.

    Attributes:
        choice: which of the backbones.
        epochs: passes over the images.
        seconds_per_step: measured, on the backbone chosen.
        reading_seconds: of a look at the quality signals.
        tried: of each backbone that was measured, how many epochs it could do.
    """

    choice: int
    epochs: int
    seconds_per_step: float
    reading_seconds: float
    tried: tuple[int, ...]


def plan_time(
    candidates: Sequence[Callable[[], PretrainedBackbone]],
    images: ImageSplit,
    recipe: Pretraining,
    *,
    minutes: float,
    labelled: ImageSplit | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> TimePlan:
    """Measure the candidates, in order, until one fits.

    Args:
        candidates: make a backbone each, the largest first; with one, only the epochs are chosen.
        minutes: for measuring and training, the looks at it included; not for mending a collapse.

    Raises:
        InputError: minutes that are not positive, or not enough for one pass over the images by the smallest.
    """
    if not 0 < minutes < float("inf"):
        raise InputError(f"minutes must be positive, got {minutes}")
    began = time.monotonic()
    steps, tried = max(1, len(images) // recipe.batch_size), []
    step = reading = 0.0
    for number, make in enumerate(candidates):
        progress("measuring steps", number, len(candidates))
        step, reading = measure(make(), images, recipe, labelled=labelled, seed=seed, device=device)
        left = 60 * minutes * SHARE - (time.monotonic() - began)  # measuring takes its time too
        tried.append(epochs_within(left, step * steps, reading))
        if tried[-1] >= ENOUGH_EPOCHS:
            break
    progress("measuring steps", len(candidates), len(candidates))
    if tried[-1] < 1:
        need = (step * steps + 2 * reading) / SHARE / 60
        raise InputError(
            f"{minutes:g} minutes are not enough for one pass over {len(images)} images, which takes about "
            f"{need:.2g} here; give more, or fewer images"
        )
    return TimePlan(
        choice=len(tried) - 1, epochs=tried[-1], seconds_per_step=step, reading_seconds=reading, tried=tuple(tried)
    )


def epochs_within(seconds: float, epoch: float, reading: float) -> int:
    """How many epochs fit, with a reading before the first and after each, but no more than `CHECKS` of those.

    >>> epochs_within(101.0, 9.0, 1.0), epochs_within(1000.0, 9.0, 1.0)           # 101 = 1 + 10 · (9 + 1)
    (10, 106)
    """
    if (few := int((seconds - reading) / (epoch + reading))) <= CHECKS:
        return max(0, few)
    return int((seconds - (CHECKS + 1) * reading) / epoch)


def measure(
    backbone: PretrainedBackbone,
    images: ImageSplit,
    recipe: Pretraining,
    *,
    labelled: ImageSplit | None,
    seed: int,
    device: str,
) -> tuple[float, float]:
    """Seconds of a step, the median of a few, and of a look at the signals."""
    few = images.take(range(min(len(images), _STEPS * recipe.batch_size)))
    few = prepare_split(few, recipe.pretext.preprocessing(backbone))[0]  # decoded once, and not at every look
    if labelled is not None:
        labelled = prepare_split(watched(labelled, seed=seed), backbone.preprocessing)[0]
    moments: list[float] = []

    def watch(stage: str, done: int, total: int) -> None:
        if stage.startswith("pre-training"):
            moments.append(time.perf_counter())

    epochs = max(1, -(-(_STEPS + 1) // max(1, len(few) // recipe.batch_size)))
    began = time.perf_counter()
    train_backbone(backbone, few, replace(recipe, epochs=epochs), labelled=labelled, seed=seed, device=device,
                   progress=watch)  # fmt: skip
    whole = time.perf_counter() - began
    steps = [b - a for a, b in pairwise(moments)]
    step = statistics.median(steps)
    return step, max(0.0, whole - step * len(moments)) / (epochs + 1)

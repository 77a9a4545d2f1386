"""`headfirst generate train`: choose the time, train, show how it grows, save.

What enters: a set of images and a recipe. What leaves: in one folder the generator, grids of its images as they came
about, and a report; the same call goes on where a stopped one was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from headfirst.data import ImageSet
from headfirst.data.imageset import ImageSplit
from headfirst.data.rows import write_atomically
from headfirst.errors import FingerprintError, InputError
from headfirst.evaluation import versions
from headfirst.generate import Generator
from headfirst.study.generator_data import Pool, training_pool
from headfirst.study.generator_report import (
    COLUMNS,
    GeneratorReport,
    Row,
    Strip,
    column_of,
    rows_of,
    strips_of,
)
from headfirst.study.picture_grid import inline_png, picture_grid, readable_png
from headfirst.types import Progress, Quarantined, silent

SHARE = 0.9
"""Of the time; the rest is for what the measurement did not see."""
MOST_READINGS = 20
"""Of a training, as the recipes have them."""
_STEPS = 4
MOST_GROWN = 12


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneratorTraining:
    """`generator`, its report and where both are; `quarantined`: files that were set aside."""

    generator: Generator
    report: GeneratorReport
    folder: Path
    quarantined: tuple[Quarantined, ...]


def train_generator(
    images: ImageSet,
    recipe: Any,
    out: Path,
    *,
    minutes: float | None = None,
    with_classes: bool = True,
    seed: int = 0,
    device: str = "cpu",
    force: bool = False,
    told: Callable[[str], None] = lambda _: None,
    written: Callable[[GeneratorReport], object] = lambda _: None,
    finished: Callable[[GeneratorReport, Generator], GeneratorReport] = lambda report, _: report,
    progress: Progress = silent,
) -> GeneratorTraining:
    """Train on `train`, or on `train` and `unlabelled` where labels are not there or not wanted.

    At every reading the generator so far, samples-<epochs>.png and the report are written into `out`.

    Args:
        recipe: `VAE`, `GAN` or `Diffusion`, or what has their `fit`, `epochs`, `batch_size` and `size`; with
            `fewest_epochs` where one does not do.
        out: a new or empty folder, or that of a stopped run of the same recipe.
        minutes: choose the epochs so that training ends in this time.
        force: train on too few images too.
        told: is told what is found on the way, a sentence at a time.
        written: is given the report, at every reading and at the end.
        finished: completes the last report.

    Raises:
        InputError: too few images, too little time, a size that cannot be.
        DataError: there is nothing to learn from.
        FingerprintError: the stopped run was of another recipe or other images.
    """
    work = out.with_name(f".{out.name}.training")  # a stopped training goes on from here
    pool = training_pool(images, size=recipe.size, with_classes=with_classes, progress=progress)
    for sentence in findings(pool):
        told(sentence)
    val = images.splits.get("val")
    recipe = _planned(recipe, pool, val, minutes, work, seed, device, told, progress)
    work.mkdir(parents=True, exist_ok=True)
    grown = _Grown(work / "grown.json")

    def reported(generator: Generator, epochs: int, rows: tuple[Row, ...]) -> GeneratorReport:
        record = generator.record
        return GeneratorReport(
            name=images.name,
            kind=generator.kind,
            epochs=epochs,
            planned=recipe.epochs,
            seconds=float(record.get("seconds") or 0.0),
            readings=tuple(record.get("readings", ())),
            events=tuple(record.get("events", ())),
            strips=strips_of(rows),
            grown=grown.shown(),
            about=_about(images, pool, generator, device, seed),
            versions=versions(),
        )

    def watch(epochs: int, generator: Generator) -> None:
        generator.save(out)
        rows = rows_of(generator, seed=seed, device=device)
        grid = readable_png(torch.cat([row.pixels for row in rows]), columns=COLUMNS)
        write_atomically(out / f"samples-{epochs:05d}.png", grid)
        grown.add(epochs, rows)
        written(reported(generator, epochs, rows))

    generator = recipe.fit(pool.split, val=val, seed=seed, directory=work, device=device, force=force, watch=watch,
                           progress=progress)  # fmt: skip
    generator.save(out)
    report = reported(generator, recipe.epochs, rows_of(generator, seed=seed, device=device))
    report = finished(report, generator)
    written(report)
    shutil.rmtree(work, ignore_errors=True)
    aside = (*images.quarantined, *pool.quarantined)
    return GeneratorTraining(generator=generator, report=report, folder=out, quarantined=aside)


class _Grown:
    """The same images at each reading, on disk so that a stopped run still has them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pictures: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}

    def add(self, epochs: int, rows: tuple[Row, ...]) -> None:
        column = column_of(rows)
        self.pictures[str(epochs)] = inline_png(picture_grid(column, columns=COLUMNS))
        write_atomically(self.path, json.dumps(self.pictures).encode())

    def shown(self) -> tuple[Strip, ...]:
        """Some of the readings, evenly, with the first and the last."""
        epochs = sorted(self.pictures, key=int)
        last, few = len(epochs) - 1, min(len(epochs), MOST_GROWN)
        some = dict.fromkeys(epochs[round(i * last / max(few - 1, 1))] for i in range(few))
        return tuple(Strip(name=epoch, picture=self.pictures[epoch], num=COLUMNS) for epoch in some)


def findings(pool: Pool) -> list[str]:
    """What was done to the images, in sentences."""
    found = []
    if pool.resized:
        found.append(pool.resized)
    if pool.left_out:
        found.append(f"{len(pool.left_out)} images are also in another split: they are not learned from")
    return found


def _about(images: ImageSet, pool: Pool, generator: Generator, device: str, seed: int) -> dict[str, object]:
    return {
        "data": images.name,
        "images": len(pool.split),
        "pixels a side": pool.size,
        "resized": pool.resized or "no",
        "left out, for they are also in another split": len(pool.left_out),
        "set aside": len(images.quarantined) + len(pool.quarantined),
        "classes": list(generator.classes),
        "recipe": generator.recipe,
        "seed": seed,
        "device": device,
        "trained on (sha256)": generator.trained_on,
        "generator (sha256)": generator.fingerprint,
    }


def _planned(
    recipe: Any,
    pool: Pool,
    val: ImageSplit | None,
    minutes: float | None,
    work: Path,
    seed: int,
    device: str,
    told: Callable[[str], None],
    progress: Progress,
) -> Any:
    """The recipe with its epochs; what was chosen once stays chosen."""
    if minutes is None:
        return recipe
    if not 0 < minutes < float("inf"):
        raise InputError(f"minutes must be positive, got {minutes}")
    record = work / "plan.json"
    asked = hashlib.sha256(repr((recipe, seed, pool.split.fingerprint)).encode()).hexdigest()
    if record.is_file():
        plan = json.loads(record.read_text())
        if (plan["minutes"], plan["of"]) != (minutes, asked):
            raise FingerprintError(
                f"{work} holds a training planned for {plan['minutes']:g} minutes, or for another recipe or other "
                "images; give the same command to go on, or start anew with --fresh"
            )
        return replace(recipe, epochs=plan["epochs"])
    began = time.monotonic()
    progress("measuring steps", 0, 1)
    epoch, reading = measure(recipe, pool.split, val, seed=seed, device=device)
    progress("measuring steps", 1, 1)
    left = 60 * minutes * SHARE - (time.monotonic() - began)  # measuring takes its time too
    epochs, fewest = epochs_within(left, epoch, reading), getattr(recipe, "fewest_epochs", 1)
    if epochs < fewest:
        passes = "one pass" if fewest == 1 else f"the {fewest} passes it takes"
        raise InputError(
            f"{minutes:g} minutes are not enough for {passes} over {len(pool.split)} images, which takes about "
            f"{fewest * (epoch + 2 * reading) / SHARE / 60:.2g} here; give more, or fewer images"
        )
    work.mkdir(parents=True, exist_ok=True)
    write_atomically(record, json.dumps({"minutes": minutes, "of": asked, "epochs": epochs}).encode())
    told(f"{minutes:g} minutes: {epochs} epochs, {epoch:.2g} s each")
    return replace(recipe, epochs=epochs)


def epochs_within(seconds: float, epoch: float, reading: float) -> int:
    """How many epochs fit, with a reading after each, but no more than `MOST_READINGS` of those.

    >>> epochs_within(100.0, 9.0, 1.0), epochs_within(1020.0, 10.0, 1.0)
    (10, 100)
    """
    if (few := int(seconds / (epoch + reading))) <= MOST_READINGS:
        return max(0, few)
    return int((seconds - MOST_READINGS * reading) / epoch)


def measure(recipe: Any, images: ImageSplit, val: ImageSplit | None, *, seed: int, device: str) -> tuple[float, float]:
    """Seconds of a pass over the images, from the median of a few steps, and of a reading with what it shows."""
    few = images.take(range(min(len(images), _STEPS * recipe.batch_size)))
    moments: list[float] = []
    looks = 0

    def step(stage: str, done: int, total: int) -> None:
        if "training" in stage:
            moments.append(time.perf_counter())

    def look(epochs: int, generator: Generator) -> None:
        nonlocal looks
        looks += 1
        strips_of(rows_of(generator, seed=seed, device=device))

    began = time.perf_counter()
    passes = max(2, getattr(recipe, "fewest_epochs", 1))
    replace(recipe, epochs=passes).fit(few, val=val, seed=seed, device=device, force=True, watch=look, progress=step)
    whole = time.perf_counter() - began
    median = statistics.median(b - a for a, b in pairwise(moments))
    steps = len(moments) / passes
    return median * steps * len(images) / len(few), max(0.0, whole - passes * median * steps) / max(looks, 1)

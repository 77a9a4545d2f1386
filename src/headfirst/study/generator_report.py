"""What the page of a generator shows: plain data, each part optional; strips of its images.

Shape letters: N images, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from headfirst.data import ImageSet
from headfirst.evaluation import versions
from headfirst.generate import Generator
from headfirst.study.distillation_quality import Quality, SpeedUp
from headfirst.study.generator_evaluation import GeneratorEvaluation, Lookalike
from headfirst.study.generator_scores import GeneratorScores
from headfirst.study.picture_grid import inline_png, picture_grid

COLUMNS = 12
"""Images of a row."""
MOST_ROWS = 20
"""Classes, or rows without any, that are shown."""
_PLAIN_ROWS = 5


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A row of images as one `data:image/png;base64,…` address."""

    name: str
    picture: str
    num: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """The same images, at most so many evaluations of the network each, one row for each way to draw them."""

    evaluations: int
    strips: tuple[Strip, ...]


@dataclass(frozen=True, kw_only=True)
class GeneratorReport:
    """A training, or an evaluation.

    Attributes:
        name: of the images.
        kind: vae, gan or diffusion.
        epochs, planned: done, and to be done; 0 where it is not known.
        readings: one mapping each, with the epoch.
        events: alarms and the like, sentences.
        strips: images by class.
        grown: the same images of one seed at several readings, the first reading first.
        verdict: against another generator, a sentence.
        quality: of a student and its teacher, or of many samplers, by evaluations.
        by_evaluations: images of the latter.
        speed_ups: of the latter, at equal quality over the slowest sampler.
        about: settings, hashes.
    """

    name: str
    kind: str
    epochs: int = 0
    planned: int = 0
    seconds: float = 0.0
    readings: tuple[Mapping[str, Any], ...] = ()
    events: tuple[str, ...] = ()
    strips: tuple[Strip, ...] = ()
    grown: tuple[Strip, ...] = ()
    scores: GeneratorScores | None = None
    lookalikes: tuple[Lookalike, ...] = ()
    verdict: str = ""
    quality: tuple[Quality, ...] = ()
    by_evaluations: tuple[Step, ...] = ()
    speed_ups: tuple[SpeedUp, ...] = ()
    about: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """Images of a class, or any: (N, 3, S, S)."""

    name: str
    pixels: UInt8[Tensor, "n 3 s s"]


def rows_of(generator: Generator, *, seed: int = 0, device: str = "cpu") -> tuple[Row, ...]:
    """`COLUMNS` images of each class (of the first 20 that have training images), or a few rows of any."""
    if not generator.classes:
        pixels = generator.sample(_PLAIN_ROWS * COLUMNS, seed=seed, device=device).pixels
        return tuple(Row(name="", pixels=part) for part in pixels.split(COLUMNS))
    there = [k for k, share in enumerate(generator.shares) if share > 0][:MOST_ROWS]
    return tuple(
        Row(
            name=generator.classes[k],
            pixels=generator.sample(COLUMNS, seed=seed, label=k, device=device).pixels,
        )
        for k in there
    )


def strips_of(rows: Sequence[Row]) -> tuple[Strip, ...]:
    """Each row as a picture."""
    return tuple(
        Strip(name=row.name, picture=inline_png(picture_grid(row.pixels, columns=COLUMNS)), num=len(row.pixels))
        for row in rows
    )


def column_of(rows: Sequence[Row]) -> UInt8[Tensor, "n 3 s s"]:
    """One image of each row, up to `COLUMNS`; of a few rows, more of each."""
    each = -(-COLUMNS // len(rows))
    return torch.cat([row.pixels[:each] for row in rows])[:COLUMNS]


def evaluation_report(
    found: GeneratorEvaluation, generator: Generator, images: ImageSet, *, device: str = "cpu", verdict: str = ""
) -> GeneratorReport:
    """What the page of an evaluation shows."""
    scores = found.scores
    return GeneratorReport(
        name=images.name,
        kind=generator.kind,
        readings=tuple(generator.record.get("readings", ())),
        events=tuple(generator.record.get("events", ())),
        strips=strips_of(rows_of(generator, seed=scores.seed, device=device)),
        scores=scores,
        lookalikes=found.lookalikes,
        verdict=verdict,
        about={
            "recipe": generator.recipe,
            "generator (sha256)": scores.generator,
            "trained on (sha256)": generator.trained_on,
            "real images (sha256)": scores.real,
            "backbone": scores.backbone,
            "backbone and preprocessing (sha256)": scores.features,
            "preprocessing": scores.preprocessing,
            "seed": scores.seed,
            "device": device,
        },
        versions=versions(),
    )

"""The training that consistency distillation and consistency training share: a student, its target, and readings.

What enters: networks and a loss. What leaves: a `Generator`, whose record says how near its images come to
those of the model it started from.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headfirst.generate.diffusion.course import (
    Course,
    Optimised,
    compared_images,
    error_reading,
    relative_error,
    teach,
)
from headfirst.generate.diffusion.network import DiffusionNetwork
from headfirst.generate.diffusion.one_step import LevelledDenoiser
from headfirst.generate.diffusion.sampling import Sampling
from headfirst.generate.generator import Generator
from headfirst.train import Batch, append_line, read_lines

READINGS = 6
"""Of a training, at most."""
REFERENCE = Sampling(method="heun", num_steps=18)
"""How the teacher's images are drawn that the student's are held against."""


class Pair(nn.Module):
    """A student and its target f⁻, an average of it; a checkpoint keeps both."""

    def __init__(self, network: DiffusionNetwork) -> None:
        super().__init__()
        self.network = network
        self.target = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """f⁻ ← μ f⁻ + (1 - μ) f."""
        for mean, now in zip(self.target.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)


def consistency_function(network: DiffusionNetwork, labels: Tensor | None, told: Tensor | None) -> LevelledDenoiser:
    """f of these classes, told the share of its range of guidance."""
    return lambda x, sigma: network.denoise(x, sigma, labels, told)


def taught(
    course: Course,
    module: nn.Module,
    network: DiffusionNetwork,
    loss: Callable[[Batch], Tensor],
    recipe: Optimised,
    *,
    teacher: Generator | None,
    guidance: float,
    work: Path,
    name: str,
    watch: Callable[[int, Generator], None] | None,
) -> Generator:
    """Train and read in turns, until the end.

    Args:
        module: what a checkpoint keeps; `network`, a part of it or the same, is trained.
        recipe: with `epochs` and what `Optimised` has.
        teacher: whose images those of one evaluation are held against; None has none.
        guidance: of both.
    """
    log = work / "readings.jsonl"
    readings = {line["epoch"]: line for line in read_lines(log)}
    of = teacher.fingerprint if teacher else None
    fingerprint = course.identity(name, recipe, of)
    every = -(-recipe.epochs // READINGS)
    generator, reference = None, None
    for epoch in sorted({*range(every, recipe.epochs + 1, every), recipe.epochs}):
        if epoch in readings and epoch != recipe.epochs:
            continue
        record = teach(course, module, network, loss, recipe, epochs=recipe.epochs, fingerprint=fingerprint,
                       work=work, until_epoch=epoch, stage=f"training ({name})")  # fmt: skip
        generator = course.generator(network, recipe, work)
        if epoch not in readings:
            reading: dict[str, Any] = {"epoch": epoch, "loss": record.losses[-1]}
            if teacher is not None:
                if reference is None:
                    reference = compared_images(teacher, course, replace(REFERENCE, guidance=guidance))
                made = compared_images(generator, course, replace(generator.network.sampling, num_steps=1))
                reading |= error_reading("error", relative_error(made, reference, seed=course.seed))
            readings[epoch] = reading
            append_line(log, reading)
        so_far = [readings[e] for e in sorted(readings) if e <= epoch]
        generator = replace(
            generator,
            record={
                "losses": list(record.losses),
                "readings": so_far,
                "events": _events(so_far[-1]) if teacher else [],
                "seconds": round(record.seconds, 3),
                "seed": course.seed,
                "images": len(course.pool),
                "teacher": of,
            },
        )
        (watch or (lambda epochs, generator: None))(epoch, generator)
    assert generator is not None  # the last epoch is never passed over
    return generator


def _events(reading: dict[str, Any]) -> list[str]:
    if reading["error_high"] is None:
        return []
    ends = ", ".join(f"{100 * reading[key]:.3g}" for key in ("error_low", "error_high"))
    return [f"images of one evaluation differ from the teacher's by {100 * reading['error']:.3g} % [{ends}] of their "
            "spread"]  # fmt: skip

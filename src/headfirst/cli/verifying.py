"""`headfirst generate verify`: what samplers do on a diffusion model, measured."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headfirst.cli.console import note, progress_display, say
from headfirst.cli.generating import ModelArgument
from headfirst.cli.options import HomeOption, JsonOption, QuietOption, SeedOption, open_any_images
from headfirst.errors import InputError

if TYPE_CHECKING:
    from headfirst.study import LikelihoodGap, SamplerReading, Verification


def verify(
    model: ModelArgument,
    sampler: Annotated[
        str | None, typer.Option(help="One sampler alone: a name, or your own as FILE.py:NAME, which is run.")
    ] = None,
    levels: Annotated[
        Path | None, typer.Option(help="Your own noise levels, a JSON list or one a line: errors on them.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Images, for what the levels cost in likelihood: a folder or 'digits'.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which of them.")] = "test",
    seed: SeedOption = 0,
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure each sampler on this model: its order, where more steps do not pay, where it blows up."""
    from headfirst.generate import load_generator, pictures
    from headfirst.study import load_sampler, read_levels, verify_generator

    own = None if sampler is None else load_sampler(sampler)
    given = None if levels is None else read_levels(levels)
    generator = load_generator(model)
    shown = None
    if data is not None:
        images = open_any_images(data, home)
        if split not in images:
            raise InputError(f"--data {data} has no split {split!r}; it has {', '.join(images.splits)}")
        shown = pictures(images[split], size=generator.network.size)
        if shown.channels != generator.network.channels:
            raise InputError("the images of --data are in colour and the model's are grey, or the other way round")
    with progress_display(quiet=quiet) as progress:
        found = verify_generator(generator, images=shown, levels=given, sampler=own, seed=seed, progress=progress)
    if as_json:
        say(json.dumps(_finite(asdict(found)), indent=1))
        return
    note(f"errors are to a path of {found.evaluations} evaluations in float64, root mean square", quiet=quiet)
    _say_readings(found.readings)
    _say_levels(found)
    if found.likelihood is not None:
        _say_likelihood(found.likelihood, "latent" if generator.kind == "latent-diffusion" else "pixel")
    elif data is None:
        note("likelihood: not asked; give images with --data", quiet=quiet)


def _say_readings(readings: tuple[SamplerReading, ...]) -> None:
    steps = next((r.order.steps for r in readings if r.order is not None), ())
    say(
        f"{'sampler':<15}order  " + "".join(f"{f'{n} steps':>10}" for n in steps) + "  more steps do not pay / blows up"
    )
    for r in readings:
        if r.order is None:
            say(f"{r.name:<15}random" + " " * (1 + 10 * len(steps)) + "  " + _where(r))
            continue
        slope = "-" if r.order.slope is None else f"{r.order.slope:.2f}"
        errors = "".join(f"{error:>10.2g}" for error in r.order.errors)
        say(f"{r.name:<15}{slope:<6} {errors}  {_where(r)}")


def _where(reading: SamplerReading) -> str:
    """Where it stalls and where it is not finite."""
    stalls = "" if reading.order is None else ", ".join(f"{n} to {2 * n}" for n in reading.order.plateaus)
    fails = ", ".join(map(str, reading.not_finite))
    return " / ".join((stalls or "-", f"at {fails} steps" if fails else "nowhere"))


def _say_levels(found: Verification) -> None:
    if found.levels is None:
        return
    say(f"on your {found.levels.num_steps} steps, relative error of an image:")
    for name, error in sorted(found.levels.errors.items(), key=lambda item: item[1].value):
        say(f"  {name:<15}{error.value:.2g} [{error.low:.2g}, {error.high:.2g}]")


def _say_likelihood(gap: LikelihoodGap, number: str) -> None:
    say(f"nats a {number} of noisy images (-log p), {gap.num_levels} levels:")
    for name, value in (("probability flow", gap.flow), ("variational bound", gap.bound), ("gap", gap.gap)):
        say(f"  {name:<18}{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]")


def _finite(value: object) -> object:
    """JSON has no infinity: None stands for it."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

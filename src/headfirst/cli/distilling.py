"""`headfirst generate distil`: a student of few steps from a trained diffusion model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headfirst.cli.console import duration, note, progress_display, say
from headfirst.cli.generating import ModelArgument, clear_growth, training_of
from headfirst.cli.options import (
    BackboneOption,
    DeviceOption,
    FreshOption,
    HomeOption,
    JsonOption,
    QuietOption,
    SeedOption,
    open_any_images,
    open_backbone,
    resolve_device,
)
from headfirst.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from headfirst.study import Quality

METHODS = ("progressive", "consistency", "latent-consistency", "consistency-training")
GUIDANCE_RANGE = (1.0, 4.0)
"""Of latent consistency."""


def distil(
    model: ModelArgument,
    data: Annotated[
        str, typer.Option(help="Images to distil on, and real ones to judge by: a folder, a manifest, or 'digits'.")
    ],
    method: Annotated[
        str,
        typer.Option(
            help=f"One of {', '.join(METHODS)}. latent-consistency makes guidance an input of the student; "
            "consistency-training learns from the images and takes only its first weights from the model."
        ),
    ] = "consistency",
    steps: Annotated[
        int, typer.Option(help="Evaluations of an image by the student; of progressive a power of two.")
    ] = 4,
    guidance: Annotated[
        float | None,
        typer.Option(help="Of the teacher, which the student then has built in; latent-consistency: the greatest."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Choose the epochs so that distilling ends in this time.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images. Default: the method's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step. Default: the method's.")] = None,
    backbone: BackboneOption = None,
    num: Annotated[int, typer.Option(help="Images of each row of the quality table.")] = 1000,
    split: Annotated[str, typer.Option(help="Which real images: a split that the model never saw.")] = "test",
    seed: SeedOption = 0,
    home: HomeOption = None,
    out: Annotated[Path, typer.Option(help="Folder for the student and its page.")] = Path("headfirst-student"),
    device: DeviceOption = "auto",
    fresh: FreshOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Distil a diffusion model into a student of few steps, and say how much quality that costs.

    Rerunning the same command resumes a stopped training. The student is sampled, evaluated and saved as any generator.
    """
    if method not in METHODS:
        raise InputError(f"--method {method!r} is none of {', '.join(METHODS)}{did_you_mean(method, METHODS)}")
    if minutes is not None and epochs is not None:
        raise InputError("--minutes chooses the epochs; give it or --epochs")
    if num < 10:
        raise InputError(f"--num must be at least 10 for there to be something to measure, got {num}")
    from headfirst.generate import load_generator
    from headfirst.generate.diffusion import require_teacher
    from headfirst.report import generate_json, write_generate
    from headfirst.study import distil as distil_generator

    training = training_of(out)
    recipe = _recipe(method, guidance, num_steps=steps, epochs=epochs, batch_size=batch_size)
    teacher = load_generator(model)
    require_teacher(teacher)
    images = open_any_images(data, home)
    features = open_backbone(backbone, data)
    where = resolve_device(device)
    if fresh and training.is_dir():
        shutil.rmtree(training)
        clear_growth(out)
    with progress_display(quiet=quiet) as progress:
        done = distil_generator(teacher, images, recipe, out, backbone=features, minutes=minutes, num=num, split=split,
                                seed=seed, device=where, told=lambda sentence: note(sentence, quiet=quiet),
                                written=lambda report: write_generate(report, out), progress=progress)  # fmt: skip
    if as_json:
        say(generate_json(done.report))
        return
    say(f"{method}, {done.report.epochs} epochs in {duration(done.report.seconds)}")
    for event in done.report.events:
        say(event)
    _say_quality(done.report.quality)
    say(f"student: {out}")
    say(f"page: {out / 'generate.html'}")
    say(f"next: headfirst generate sample {out}")


def _recipe(method: str, guidance: float | None, **given: Any) -> Any:
    """What was not given is the method's own."""
    from headfirst.generate.diffusion import ConsistencyDistillation, ConsistencyTraining, ProgressiveDistillation

    own = {name: value for name, value in given.items() if value is not None}
    if method == "progressive":
        return ProgressiveDistillation(guidance=1.0 if guidance is None else guidance, **own)
    if method == "latent-consistency":
        low, high = GUIDANCE_RANGE if guidance is None else (1.0, guidance)
        if not low < high:
            raise InputError(f"latent-consistency learns guidance from 1 up to --guidance, got {high:g}; give more")
        return ConsistencyDistillation(guidance=(low, high), **own)
    if method == "consistency":
        w = 1.0 if guidance is None else guidance
        return ConsistencyDistillation(guidance=(w, w), **own)
    if guidance is not None:
        raise InputError("consistency-training has no teacher to guide; leave --guidance out, or choose another method")
    return ConsistencyTraining(**own)


def _say_quality(rows: tuple[Quality, ...]) -> None:
    """A line for each way of drawing images."""
    from headfirst.report import quality_lines

    say("Fréchet distance to real images by evaluations of the network")
    for cells in quality_lines(rows):
        model, way, evaluations, value, interval, *_, cost = cells
        say(f"  {model:<8} {way:<28} {evaluations:>4}  {value} [{interval}]  {cost} ms an image")

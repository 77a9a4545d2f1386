"""`headfirst generate curve`: quality against evaluations, every sampler and student of a diffusion model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from headfirst.cli.console import progress_display, say
from headfirst.cli.generating import ModelArgument
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
    out_folder,
    resolve_device,
)
from headfirst.errors import InputError


def curve(
    model: ModelArgument,
    data: Annotated[str, typer.Option(help="Real images to judge by: a folder, a manifest, or 'digits'.")],
    student: Annotated[list[Path] | None, typer.Option(help="A student of the model; may be given again.")] = None,
    sampler: Annotated[
        list[str] | None, typer.Option(help="A sampler; may be given again. Default: six of them.")
    ] = None,
    evaluations: Annotated[
        str, typer.Option(help="Evaluations of the network for an image, at most, with commas.")
    ] = "1,2,4,8,16,32,64",
    yardstick: Annotated[str, typer.Option(help="More evaluations, of ddpm and ddim alone, such as 250,1000.")] = "",
    guidance: Annotated[float, typer.Option(help="Of the samplers; above 1 an evaluation costs two.")] = 1.0,
    backbone: BackboneOption = None,
    num: Annotated[int, typer.Option(help="Images of each row.")] = 500,
    split: Annotated[str, typer.Option(help="Which real images: a split that no model saw.")] = "test",
    seed: SeedOption = 0,
    home: HomeOption = None,
    fresh: FreshOption = False,
    out: Annotated[Path, typer.Option(help="Folder for the page.")] = Path("headfirst-curve"),
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show what fewer evaluations cost: Fréchet distances with intervals, and the same noises at every number.

    What was drawn is kept in OUT/work: the same command goes on where it was stopped; remove the folder when done.
    """
    asked, more = _numbers("--evaluations", evaluations), _numbers("--yardstick", yardstick) if yardstick else ()
    out_folder(out)
    from headfirst.generate import load_generator
    from headfirst.report import generate_json, quality_lines, speed_lines, write_generate
    from headfirst.study import SAMPLERS, sampling_curve

    teacher = load_generator(model)
    if len({folder.name for folder in student or ()}) < len(student or ()):
        raise InputError("two students are in folders of one name, by which they are told apart; rename one")
    students = {folder.name: load_generator(folder) for folder in student or ()}
    images, features, where = open_any_images(data, home), open_backbone(backbone, data), resolve_device(device)
    if fresh:
        shutil.rmtree(out / "work", ignore_errors=True)
    with progress_display(quiet=quiet) as progress:
        report = sampling_curve(teacher, images, features, students=students, samplers=sampler or SAMPLERS,
                                evaluations=asked, yardstick=more, guidance=guidance, num=num, split=split,
                                seed=seed, directory=out / "work", device=where, progress=progress)  # fmt: skip
    page = write_generate(report, out)
    if as_json:
        say(generate_json(report))
        return
    say("Fréchet distance to real images by evaluations of the network")
    for who, way, count, value, interval, *_, cost in quality_lines(report.quality):
        say(f"  {who:<16} {way:<28} {count:>5}  {value} [{interval}]  {cost} ms an image")
    if report.speed_ups:
        say(f"Evaluations with which images are as near as ddpm's with {report.speed_ups[0].over:,}, and times fewer")
    for who, count, times in speed_lines(report.speed_ups):
        say(f"  {who:<16} {count:>10}  {times}")
    say(f"page: {page}")


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} must be whole numbers with commas, such as 1,4,16, got {text!r}") from None

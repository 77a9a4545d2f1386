"""`headfirst generate vary` and `guidance`: images made of images, and how much to guide a diffusion model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headfirst.cli.console import progress_display, say
from headfirst.cli.generating import ModelArgument, new_folder
from headfirst.cli.options import (
    BackboneOption,
    DataArgument,
    DeviceOption,
    HomeOption,
    JsonOption,
    QuietOption,
    SeedOption,
    open_backbone,
    open_images,
    resolve_device,
)
from headfirst.cli.translating import OutOption, SplitOption, say_copy
from headfirst.errors import InputError

if TYPE_CHECKING:
    from headfirst.study import GuidancePath


def vary(
    model: ModelArgument,
    data: DataArgument,
    strength: Annotated[
        list[float] | None,
        typer.Option(help="Above 0, which changes nothing, to 1, which keeps nothing; may be given again. "
                     "Default: 0.5."),
    ] = None,
    split: SplitOption = "test",
    name: Annotated[str, typer.Option(help="The shifts are called shift-NAME-STRENGTH.")] = "varied",
    seed: SeedOption = 0,
    home: HomeOption = None,
    out: OutOption = Path("headfirst-varied"),
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Hide each image of a split in noise, partly, and let a diffusion model see it anew, as its class."""
    new_folder(out)
    from headfirst.generate import load_generator
    from headfirst.study import write_varied

    generator = load_generator(model)
    images = open_images(data, home)
    where = resolve_device(device)
    with progress_display(quiet=quiet) as progress:
        about = write_varied(generator, images, out, split=split, name=name, strengths=strength or [0.5], seed=seed,
                             device=where, progress=progress)  # fmt: skip
    say_copy(about, out, as_json=as_json)


def guidance(
    model: ModelArgument,
    data: Annotated[str, typer.Option(help="The images it learned from: a folder, a manifest, or 'digits'.")],
    backbone: BackboneOption = None,
    weights: Annotated[str, typer.Option(help="What to try; 1, no guidance, is always tried.")] = "1,1.5,2,3,5",
    num: Annotated[int, typer.Option(help="How many images to make with each.")] = 1000,
    split: Annotated[str, typer.Option(help="Which real images: a split that is not to be reported on.")] = "val",
    seed: SeedOption = 0,
    home: HomeOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what guidance gains in images of the right class, what it costs in variety, and recommend a weight."""
    wanted = _weights(weights)
    from headfirst.generate import load_generator
    from headfirst.study import guidance_path

    generator = load_generator(model)
    images = open_images(data, home)
    features = open_backbone(backbone, data)
    where = resolve_device(device)
    with progress_display(quiet=quiet) as progress:
        found = guidance_path(generator, images, features, weights=wanted, num=num, split=split, seed=seed,
                              device=where, progress=progress)  # fmt: skip
    if as_json:
        say(json.dumps(asdict(found), indent=1))
        return
    _say_table(found)
    say(f"next: headfirst generate sample {model} --guidance {found.recommended:g}")


def _weights(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--weights must be numbers with commas between them, such as 1,2,3, got {text!r}") from None


def _say_table(found: GuidancePath) -> None:
    say(
        f"{found.num_generated:,} made images a weight against {found.num_real:,} real ones ({found.split}), "
        f"{found.backbone}"
    )
    say(f"{'guidance':>8}  {'recognised':<22}  {'coverage':<22}  Fréchet distance")
    for row in found.rows:
        shares = [f"{100 * s.value:.1f} % [{100 * (s.low or 0):.1f}, {100 * (s.high or 1):.1f}]"
                  for s in (row.recognised, row.coverage)]  # fmt: skip
        f = row.frechet
        far = f"{f.value:.4g}" + (f" [{f.low:.4g}, {f.high:.4g}]" if f.low is not None and f.high is not None else "")
        say(f"{row.weight:>8g}  {shares[0]:<22}  {shares[1]:<22}  {far}")
    say(found.sentence)

"""`headfirst generate train-pairs`, `translate` and `restyle`: images made of images, as a shift to evaluate on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headfirst.cli.console import duration, note, progress_display, say
from headfirst.cli.generating import new_folder, training_of
from headfirst.cli.options import (
    DataArgument,
    DeviceOption,
    ForceOption,
    FreshOption,
    HomeOption,
    JsonOption,
    QuietOption,
    SeedOption,
    SizeOption,
    open_any_images,
    open_images,
    resolve_device,
)
from headfirst.errors import InputError

if TYPE_CHECKING:
    from headfirst.data import ImageSplit

SplitOption = Annotated[str, typer.Option(help="Which images of DATA.")]
OutOption = Annotated[
    Path, typer.Option(help="A new or empty folder: DATA as it is, and beside it the shift, for headfirst evaluate.")
]


def train_pairs(
    source: Annotated[str, typer.Option("--from", help="Images to be translated: a folder or a manifest.")],
    target: Annotated[str, typer.Option("--to", help="What each is to become: a folder with files of the same names.")],
    epochs: Annotated[int | None, typer.Option(help="Passes over the pairs. Default: 30.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pairs a step. Default: 16.")] = None,
    size: SizeOption = None,
    l1: Annotated[float | None, typer.Option(help="Weight of the distance to the target. Default: 100.")] = None,
    force: ForceOption = False,
    seed: SeedOption = 0,
    home: HomeOption = None,
    out: Annotated[Path, typer.Option(help="Folder for the translator.")] = Path("headfirst-translator"),
    device: DeviceOption = "auto",
    fresh: FreshOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Learn from pairs what an image becomes. Rerunning the same command resumes a stopped training.

    Pairs have the same path under their folders but for the ending. If --from has splits, train/ and unlabelled/ are
    learned from, and val/ is looked at.
    """
    training = training_of(out)
    from headfirst.data import every_image
    from headfirst.generate import PairedTranslation
    from headfirst.study import train_translation

    given = {"epochs": epochs, "batch_size": batch_size, "size": size, "l1": l1}
    recipe = PairedTranslation(**{name: value for name, value in given.items() if value is not None})
    images, targets = open_any_images(source, home), every_image(target)
    where = resolve_device(device)
    if fresh:
        shutil.rmtree(training, ignore_errors=True)
    with progress_display(quiet=quiet) as progress:
        made = train_translation(images, targets, recipe, out, seed=seed, device=where, force=force,
                                 told=lambda sentence: note(sentence, quiet=quiet), progress=progress)  # fmt: skip
    record = made.record
    if as_json:
        say(json.dumps({**record, "recipe": made.recipe, "translator": made.fingerprint}, indent=1))
        return
    say(f"{record['pairs']} pairs, {len(record['losses'])} epochs in {duration(record['seconds'])}")
    for event in record["events"]:
        say(event)
    val = record["val_l1"]
    unseen = "no pairs were held out" if val is None else f"{100 * val:.2g} % on those of val"
    say(f"distance to the target: {100 * record['l1']:.2g} % of black to white on pairs learned from, {unseen}")
    say(f"translator: {out}")
    say(f"source, translation, target: {out / 'pairs.png'}")
    say(f"next: headfirst generate translate {out} DATA --out COPY")


def translate(
    model: Annotated[Path, typer.Argument(help="A folder that generate train-pairs wrote.")],
    data: DataArgument,
    split: SplitOption = "test",
    name: Annotated[str, typer.Option(help="The shift is called shift-NAME.")] = "translated",
    home: HomeOption = None,
    out: OutOption = Path("headfirst-translated"),
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Translate a split of labelled images: DATA again, with the translations as one more shift."""
    new_folder(out)
    from headfirst.generate import load_translator
    from headfirst.study import write_translated

    translator = load_translator(model)
    images = open_images(data, home)
    where = resolve_device(device)
    with progress_display(quiet=quiet) as progress:
        about = write_translated(translator, images, out, split=split, name=name, device=where, progress=progress)
    say_copy(about, out, as_json=as_json)


def restyle(
    model: Annotated[Path, typer.Argument(help="A folder that generate train --model vae wrote.")],
    data: DataArgument,
    style: Annotated[str, typer.Option(help="Images of the other style: a folder, a manifest, or 'digits'.")],
    style_split: Annotated[
        str | None, typer.Option(help="Which of them. Default: unlabelled where it is there, else train.")
    ] = None,
    strength: Annotated[
        list[float] | None, typer.Option(help="From 0 (the reconstruction) to 1; may be given again. Default: 1.")
    ] = None,
    split: SplitOption = "test",
    name: Annotated[str, typer.Option(help="The shifts are called shift-NAME-STRENGTH.")] = "restyled",
    home: HomeOption = None,
    out: OutOption = Path("headfirst-restyled"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Move a split of labelled images towards another style, in a VAE's latents, without pairs.

    A VAE blurs what it reconstructs, so the reconstruction alone is always written too, as the shift of strength 0.
    """
    new_folder(out)
    from headfirst.generate import load_generator
    from headfirst.study import write_restyled

    generator = load_generator(model)
    images = open_images(data, home)
    other = _style(style, style_split)
    resolve_device("cpu")
    with progress_display(quiet=quiet) as progress:
        about = write_restyled(generator, images, other, out, split=split, name=name, strengths=strength or [1.0],
                               progress=progress)  # fmt: skip
    say_copy(about, out, as_json=as_json)


def _style(style: str, split: str | None) -> ImageSplit:
    images = open_any_images(style, None)
    if split is None:
        split = next((name for name in ("unlabelled", "train") if name in images), None)
    if split is None:
        raise InputError(f"--style {style} has {', '.join(images.splits)}; name one of them with --style-split")
    return images[split]


def say_copy(about: dict[str, Any], out: Path, *, as_json: bool) -> None:
    if as_json:
        say(json.dumps(about, indent=1))
        return
    for name, moved in about["moved"].items():
        count = sum(file["path"].startswith(f"{name}/") for file in about["files"])
        far = ", ".join(f"{distance:.3g} {where}" for where, distance in moved.items())
        say(f"{name}: {count} images of {about['split']}; mean distance in grey levels: {far}")
    say(f"data set: {out}")
    say(f"grid: {about['grid']}")
    say(f"next: headfirst evaluate {out} MODEL")

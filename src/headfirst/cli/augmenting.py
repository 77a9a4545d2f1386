"""`headfirst augment`: do generated images help? They are added only if they surely do."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headfirst.cli.console import progress_display, say
from headfirst.cli.options import (
    BackboneOption,
    DataArgument,
    DeviceOption,
    FreshOption,
    HomeOption,
    JsonOption,
    QuietOption,
    SeedOption,
    ShotsOption,
    open_backbone,
    open_images,
    out_folder,
    resolve_device,
    resolve_shots,
)
from headfirst.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from headfirst.data import ImageSet
    from headfirst.study import Augmented, GeneratorRecipe

GENERATORS = ("vae", "gan", "diffusion")
LEAST_STEPS = 1000
"""Of each training of a generator, where nobody says how many epochs: few images make short epochs."""


def augment(
    data: DataArgument,
    generator: Annotated[str, typer.Option(help="What makes the images: vae, gan or diffusion.")] = "vae",
    epochs: Annotated[
        int | None, typer.Option(help="Of each training of the generator. Default: at least 1,000 steps.")
    ] = None,
    ratios: Annotated[
        str, typer.Option(help="Synthetic images for each real one; none is always tried.")
    ] = "0.5,1,2,4",
    folds: Annotated[int, typer.Option(help="Of the cross-validation; the generator is trained anew in each.")] = 3,
    seeds: Annotated[int, typer.Option(help="How often the cross-validation is done.")] = 3,
    shots: ShotsOption = None,
    backbone: BackboneOption = None,
    seed: SeedOption = 0,
    out: Annotated[
        Path, typer.Option(help="Folder for the page, the provenance, the generator and the images that are added.")
    ] = Path("headfirst-augment"),
    device: DeviceOption = "auto",
    home: HomeOption = None,
    fresh: FreshOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say whether generated images help a classifier with few labels, and write those that do.

    The ratio is chosen on the training images alone; none are added unless the gain is sure. test and the shifts are
    measured afterwards. Rerunning the same command resumes a stopped one.
    """
    from headfirst.report import augment_json, write_augmentation
    from headfirst.study import Augmentation, augment_images, save_added

    out_folder(out)
    if out.exists() and any(out.iterdir()) and not (out / "augment.json").is_file():
        raise InputError(f"--out {out} holds files that are no augmentation; give a new or an empty folder")
    recipe = Augmentation(ratios=_ratios(ratios), folds=folds, seeds=seeds, seed=seed)
    _known(generator)
    images = open_images(data, home)
    few = resolve_shots(shots, data)
    maker = _maker(generator, epochs, _learned_from(images, few, folds))
    where = resolve_device(device)
    model = open_backbone(backbone, data)
    work = out.with_name(f".{out.name}.training")  # a stopped run goes on from here
    if fresh:
        shutil.rmtree(work, ignore_errors=True)
    with progress_display(quiet=quiet) as progress:
        done = augment_images(
            images, model, maker, recipe, shots=few, directory=work, device=where,
            progress=progress,
        )  # fmt: skip
    save_added(done, out / "synthetic")
    done.generator.save(out / "generator")
    page = write_augmentation(done.report, done.provenance, out)
    shutil.rmtree(work, ignore_errors=True)
    if as_json:
        say(augment_json(done.report))
        return
    _told(done, out, page)


def _told(done: Augmented, out: Path, page: Path) -> None:
    for sentence in done.report.sentences():
        say(sentence)
    if len(done.added):
        say(f"images: {out / 'synthetic'} ({len(done.added)}; copy its folders into train/)")
    say(f"page: {page}")


def _known(name: str) -> None:
    if name not in GENERATORS:
        raise InputError(f"--generator {name!r} is none of {', '.join(GENERATORS)}{did_you_mean(name, GENERATORS)}")


def _learned_from(images: ImageSet, shots: int | None, folds: int) -> int:
    """Images that the generator of a fold learns from, about."""
    counts = images["train"].class_counts().values()
    return sum(count if shots is None else min(count, shots) for count in counts) * (folds - 1) // folds


def _maker(name: str, epochs: int | None, num: int) -> GeneratorRecipe:
    from headfirst.generate import GAN, VAE
    from headfirst.generate.diffusion import Diffusion

    recipe = {"vae": VAE, "gan": GAN, "diffusion": Diffusion}[name]()
    least = -(-LEAST_STEPS // max(1, num // recipe.batch_size))
    return replace(recipe, epochs=max(recipe.epochs, least) if epochs is None else epochs)


def _ratios(text: str) -> tuple[float, ...]:
    """Numbers with commas between them; 0 is always there."""
    try:
        found = {float(part) for part in text.split(",")}
    except ValueError:
        raise InputError(f"--ratios takes numbers with commas between them, such as 0.5,1,2,4, got {text!r}") from None
    return tuple(sorted(found - {0.0}))

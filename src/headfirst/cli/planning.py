"""`headfirst plan`: what further labels are worth, and which images to label first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headfirst.cli.console import progress_display, say
from headfirst.cli.options import (
    BackboneOption,
    DataArgument,
    DeviceOption,
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

if TYPE_CHECKING:
    from headfirst.data import ImageSet

LISTED = 20


def plan(
    data: DataArgument,
    backbone: BackboneOption = None,
    budget: Annotated[int, typer.Option(help="How many images of unlabelled/ to list.")] = 20,
    more: Annotated[int, typer.Option(help="How many further labels to value.")] = 20,
    shots: ShotsOption = None,
    seeds: Annotated[int, typer.Option(help="Random orders of the labels behind a learning curve.")] = 10,
    seed: SeedOption = 0,
    out: Annotated[Path, typer.Option(help="Folder for plan.html, plan.csv and plan.json.")] = Path("headfirst-plan"),
    device: DeviceOption = "auto",
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what further labels are worth, class by class, and which unlabelled images to label first.

    Learning curves of a linear probe on val; typical and diverse images of unlabelled/. Neither test nor the shifts are
    asked.
    """
    from headfirst.report import plan_json, write_plan
    from headfirst.study import LabelBudget, plan_labels

    out_folder(out)
    recipe = LabelBudget(budget=budget, more=more, shots=resolve_shots(shots, data), seeds=seeds, seed=seed)
    images = _open_labelled_or_not(data, home)
    where = resolve_device(device)
    model = open_backbone(backbone, data)
    with progress_display(quiet=quiet) as progress:
        found = plan_labels(images, model, recipe, device=where, progress=progress)
    page = write_plan(found, out)
    if as_json:
        say(plan_json(found))
        return
    for line in (*found.sentences, *found.notes):
        say(line)
    if found.picks:
        say("label first:")
        for pick in found.picks[:LISTED]:
            say(f"{pick.rank:>4}  {pick.id}")
        if len(found.picks) > LISTED:
            say(f"      and {len(found.picks) - LISTED} more, in {out / 'plan.csv'}")
    say(f"plan: {page}")


def _open_labelled_or_not(data: str, home: str | None) -> ImageSet:
    """The image set; images without any label are all `unlabelled`."""
    from headfirst.data import NoLabelsError

    try:
        return open_images(data, home)
    except NoLabelsError as error:
        return error.images

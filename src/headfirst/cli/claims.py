"""`headfirst claims`: the textbook's sentences, each put to a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headfirst.cli.console import progress_display, say
from headfirst.cli.options import (
    DIGITS,
    GLYPH_CLIP,
    BackboneOption,
    JsonOption,
    QuietOption,
    open_backbone,
    open_images,
    out_folder,
    resolve_device,
    text_tower_of,
)
from headfirst.errors import InputError


def claims(
    number: Annotated[int | None, typer.Argument(help="Which claim to run; none lists them.")] = None,
    data: Annotated[str, typer.Option(help="Your own images instead of the embedded digits.")] = DIGITS,
    backbone: BackboneOption = None,
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 5,
    quick: Annotated[
        bool, typer.Option("--quick", help="A two-minute version with fewer seeds, marked as one.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the figure and the table.")] = Path("headfirst-claims"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the claims, or run one and print its figures, verdict and picture."""
    from headfirst.claims import CLAIMS, FROM_NOTHING, WITH_TEXT, WITHOUT_IMAGES, run_claim, write_claim

    if number is None:
        for claim_number, claim in CLAIMS.items():
            say(f"{claim_number:>2}  {claim.title}")
        return
    alone = number in WITHOUT_IMAGES
    if alone and (data != DIGITS or backbone is not None):
        raise InputError(f"claim {number} takes neither images nor a backbone; leave --data and --backbone out")
    out_folder(out)
    resolve_device("cpu")
    if number == 8 and backbone is None and data == DIGITS:
        backbone = GLYPH_CLIP
    encoder = text_tower_of(backbone) if number in WITH_TEXT else None
    drawn = number in FROM_NOTHING and backbone is None
    model = None if drawn or alone else encoder or open_backbone(backbone, data)
    images = None if alone else open_images(data, None)
    with progress_display(quiet=quiet) as progress:
        result = run_claim(number, images, model, seeds=seeds, quick=quick, work=out / "work",
                           progress=progress)  # fmt: skip
    path = write_claim(result, out)
    say(result.as_json() if as_json else f"{result.as_text()}\nfigure: {path}")

"""`headfirst index` and `headfirst search`: images found by words or by an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from headfirst.cli.console import note, progress_display, say
from headfirst.cli.options import (
    BackboneOption,
    DataArgument,
    DeviceOption,
    JsonOption,
    QuietOption,
    open_backbone,
    out_folder,
    resolve_device,
)
from headfirst.errors import InputError

IndexArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `headfirst index` wrote.")]


def index(
    data: DataArgument,
    backbone: BackboneOption = None,
    out: Annotated[Path, typer.Option(help="Folder of the index; an earlier one there is brought up to date.")] = Path(
        "headfirst-index"
    ),
    approximate: Annotated[
        bool | None,
        typer.Option("--approximate/--exact", help="With a graph that skips most images. Default: from a million on."),
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Index images for `headfirst search`: every image under a folder, whatever its folders mean.

    Rerunning the same command resumes a stopped one; after images were added or removed, only new ones are computed.
    Search by words needs an image-text backbone.
    """
    from headfirst.artefact.image_index import index_folder
    from headfirst.study import index_images

    index_folder(out)
    where = resolve_device(device)
    model = open_backbone(backbone, data)
    with progress_display(quiet=quiet) as progress:
        made = index_images(data, model, out, approximate=approximate, device=where, progress=progress)
    record = made.record
    if as_json:
        about = {"index": str(out), "images": len(made), "features": record.feature_dim, "root": record.root}
        recall = None if record.recall is None else record.recall.model_dump()
        say(json.dumps({**about, "recall": recall, "skipped": record.unreadable}, indent=1))
    else:
        say(f"index: {out}, {len(made)} images, {record.feature_dim} features of {record.backbone['name']}")
        if (recall := record.recall) is not None:
            share = f"{100 * recall.value:.1f} % [{100 * recall.low:.1f}, {100 * recall.high:.1f}]"
            say(f"approximate: finds {share} of the {recall.k} nearest, measured on {recall.num_queries} images")
    if record.unreadable:
        note(f"{len(record.unreadable)} images were skipped:")
        for skipped in record.unreadable:
            note(f"  {skipped['id']}: {skipped['reason']}")


def search(
    directory: IndexArgument,
    text: Annotated[str | None, typer.Argument(help='What to look for, in words, such as "a red bicycle".')] = None,
    image: Annotated[Path | None, typer.Option(help="An image file to find similar ones to.")] = None,
    k: Annotated[int | None, typer.Option("-k", help="How many images. Default: 12.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for search.html and search.json.")] = Path("headfirst-search"),
    images: Annotated[Path | None, typer.Option(help="Where the indexed folder lies now, if it was moved.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Where the index's backbone is now, if it was moved.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare every image, approximate index or not.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find images by words or by an image: a contact sheet, and one line an image with its cosine."""
    if (text is None) == (image is None):
        raise InputError('give one of the two: words, as in `headfirst search DIR "a red bicycle"`, or --image FILE')
    from headfirst.artefact import load_index
    from headfirst.report import how_found, search_json, search_lines, write_search
    from headfirst.study import search_image, search_text

    out_folder(out)
    resolve_device("cpu")
    opened = load_index(directory, root=images)
    if text is not None:
        found = search_text(opened, text, k=k, exact=exact, backbone=backbone)
    else:
        assert image is not None
        found = search_image(opened, image, k=k, exact=exact, backbone=backbone)
    page = write_search(found, out)
    if as_json:
        say(search_json(found))
        return
    for line in search_lines(found):
        say(line)
    say(f"page: {page}")
    more = "" if found.exact else " --exact compares all."
    note(f"half of all images stay below {found.median:.4f}. {how_found(found)}{more}", quiet=quiet)

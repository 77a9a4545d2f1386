"""Options that several verbs share, and how their words become objects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headfirst.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from headfirst.data import ImageSet
    from headfirst.nn import DualEncoder, PretrainedBackbone

DIGITS = "digits"
GLYPH = "builtin/glyph"
GLYPH_CLIP = "builtin/glyph-clip"

DataArgument = Annotated[str, typer.Argument(help="A folder of images, a manifest (.csv, .parquet), or 'digits'.")]
BackboneOption = Annotated[
    str | None,
    typer.Option(help="A hub id (id@revision pins it), a local folder in the transformers layout, or builtin/glyph."),
]
ShotsOption = Annotated[int | None, typer.Option(help="Training images a class (digits: 20). Default: all.")]
SeedOption = Annotated[int, typer.Option(help="First seed; the same seed gives the same result.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
HomeOption = Annotated[str | None, typer.Option(help="A manifest's home domain, where several have training rows.")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Discard what a stopped or different run left there.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
TemplatesOption = Annotated[
    str, typer.Option(help="Sentences that a class name is put into: plain, seven, eighty, or a file of them.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Go on with too few images.")]
SizeOption = Annotated[
    int | None,
    typer.Option(
        help="Side in pixels. Default: the images' own (of pairs the targets') if square and at most 64, else 32."
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def open_images(data: str, home: str | None) -> ImageSet:
    """The image set the user named. Its splits are cut with seed 0: --seed is for training, and every verb must see
    the same test images."""
    from headfirst.data import ImageSet

    return ImageSet.open(data, home=home)


def open_any_images(data: str, home: str | None) -> ImageSet:
    """The image set; one without any label is a pool."""
    from headfirst.data import NoLabelsError

    try:
        return open_images(data, home)
    except NoLabelsError as error:
        return error.images


def open_backbone(backbone: str | None, data: str) -> PretrainedBackbone:
    """The backbone the user named; for the embedded digits the embedded one; for photographs never a guess."""
    if backbone is None and data != DIGITS:
        raise InputError(
            "photographs need a pretrained backbone; name one, for example --backbone facebook/dinov2-small, "
            "--backbone openai/clip-vit-base-patch32 or --backbone google/siglip-base-patch16-224 (downloaded from the "
            "hub once), or a local folder in the transformers layout"
        )
    from headfirst.nn import load_backbone

    name, revision = _pinned(backbone or GLYPH)
    return load_backbone(name, revision=revision)


def open_encoder(backbone: str | None) -> DualEncoder:
    """The image-text backbone the user named, both towers."""
    if backbone is None:
        raise InputError(
            "words need an image-text backbone; name one, for example --backbone openai/clip-vit-base-patch32 or "
            "--backbone google/siglip-base-patch16-224 (downloaded from the hub once), a local folder, or, for digits, "
            f"{GLYPH_CLIP}"
        )
    from headfirst.nn import load_dual_encoder

    name, revision = _pinned(backbone)
    return load_dual_encoder(name, revision=revision)


def text_tower_of(backbone: str | None) -> DualEncoder | None:
    """Both towers, where the backbone that the user named has two."""
    from headfirst.nn import has_text_tower

    if backbone is None:
        return None
    name, revision = _pinned(backbone)
    return open_encoder(backbone) if has_text_tower(name, revision=revision) else None


def _pinned(backbone: str) -> tuple[str, str | None]:
    """(name, revision) of `id@revision`; a folder that is there has no revision."""
    if Path(backbone).exists():
        return backbone, None
    name, _, revision = backbone.partition("@")
    return name, revision or None


def resolve_templates(templates: str) -> tuple[str, ...]:
    """The set of that name, or the lines of the file."""
    from headfirst.adapt import TEMPLATE_SETS, read_lines

    if templates in TEMPLATE_SETS:
        return TEMPLATE_SETS[templates]
    if not Path(templates).is_file():
        raise InputError(
            f"--templates {templates}: there is no such set or file{did_you_mean(templates, TEMPLATE_SETS)}; give "
            f"{', '.join(TEMPLATE_SETS)}, or a file with one sentence a line"
        )
    return read_lines(Path(templates), "templates")


def resolve_shots(shots: int | None, data: str) -> int | None:
    """The embedded digits are a few-label demonstration unless told otherwise."""
    return 20 if shots is None and data == DIGITS else shots


def resolve_device(device: str) -> str:
    """`auto` is the accelerator torch sees, else the CPU; also takes as many threads as there are free cores."""
    import torch

    from headfirst.features import free_threads

    torch.set_num_threads(free_threads())
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {device!r} cannot be used here ({str(error).splitlines()[0]}); try --device cpu"
        ) from error
    return device


def num_threads() -> int:
    """Threads torch computes on."""
    import torch

    return torch.get_num_threads()


def out_folder(out: Path) -> Path:
    """`out`, if results can go there: said before any work is done, and without making it."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder")
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"--out {out} cannot be written: {there} is {'no folder' if there.is_file() else 'read-only'}")
    return out

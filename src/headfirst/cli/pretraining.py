"""`headfirst pretrain`: a backbone from images alone, or a dual encoder from images and their captions."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headfirst.cli.console import duration, note, progress_display, say
from headfirst.cli.options import (
    DIGITS,
    DeviceOption,
    FreshOption,
    JsonOption,
    QuietOption,
    SeedOption,
    open_any_images,
    open_backbone,
    open_encoder,
    out_folder,
    resolve_device,
)
from headfirst.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from headfirst.data import ImageSet, View
    from headfirst.nn import DualEncoder
    from headfirst.pretrain import CLIP, Pretext, Pretraining
    from headfirst.study.origin import Origin
    from headfirst.types import Quarantined

SHOWN = 5


METHODS = ("simclr", "vicreg", "dino", "rotation", "jigsaw", "masked", "distil", "clip")


def pretrain(
    data: Annotated[
        str,
        typer.Argument(
            help="A folder of images, labelled or not, a manifest, or 'digits'. For clip: a CSV or Parquet table "
            "(path, caption), images with .txt beside them, or tar shards."
        ),
    ],
    method: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(METHODS)}. Default: clip where there are captions, else simclr."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Choose network, resolution and epochs so that training ends in this time.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Weights to go on from: a hub id, a local folder, builtin/glyph. Or small-resnet, small-vit "
            "(drawn at random, sized for a CPU). Default, without captions: a small one."
        ),
    ] = None,
    from_nothing: Annotated[
        bool, typer.Option("--from-nothing", help="The backbone's architecture alone, its weights drawn at random.")
    ] = False,
    size: Annotated[int | None, typer.Option(help="Side of the images in pixels, of a small network.")] = None,
    teacher: Annotated[str | None, typer.Option(help="The backbone to distil: a hub id or a local folder.")] = None,
    views: Annotated[str, typer.Option(help="How views differ: auto, photographs, handwriting.")] = "auto",
    text_tower: Annotated[
        str | None, typer.Option(help="clip: a sentence encoder to pair the backbone with, a hub id or a local folder.")
    ] = None,
    dim: Annotated[int, typer.Option(help="clip: dimensions of the shared space, with --text-tower.")] = 256,
    loss: Annotated[str, typer.Option(help="clip: softmax or sigmoid, with --text-tower.")] = "softmax",
    lock: Annotated[str, typer.Option(help="clip: which tower stays as it is: none, image or text.")] = "none",
    epochs: Annotated[int | None, typer.Option(help="Passes over the images (100; clip: 32).")] = None,
    batch_size: Annotated[int, typer.Option(help="Images, or pairs, a step.")] = 256,
    micro_batch: Annotated[
        int | None, typer.Option(help="Encode this many at a time: less memory, the same gradients.")
    ] = None,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    no_mirror: Annotated[
        bool, typer.Option("--no-mirror", help="Never flip images: captions that say left, or letters.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Do the last steps again and compare every bit.")] = False,
    no_look: Annotated[bool, typer.Option("--no-look", help="Train without looking at the images first.")] = False,
    seed: SeedOption = 0,
    home: Annotated[str | None, typer.Option(help="The domain to train on, where a table has several.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the backbone, which every other verb takes.")] = Path(
        "headfirst-pretrained"
    ),
    device: DeviceOption = "auto",
    fresh: FreshOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a backbone on images without labels, or two towers on images and their captions (CLIP, SigLIP).

    Rerunning the same command resumes a stopped training. Labels, and a `val` split, are only asked afterwards whether
    it helped; they choose nothing.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("headfirst pretrain is one process; for several, torchrun a script that calls train_backbone")
    training = out.with_name(f".{out.name}.training")  # a stopped training goes on from here
    its_own = not fresh and (training / "saving").is_file()  # stopped while it was writing
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not its_own)):
        raise InputError(f"--out {out} holds files already; give a new or an empty folder")
    out_folder(out)
    if method is not None and method not in METHODS:
        raise InputError(f"--method {method!r} is none of {', '.join(METHODS)}{did_you_mean(method, METHODS)}")
    if method == "clip" or (method is None and _has_captions(data)):
        if lock not in ("none", "image", "text"):
            raise InputError(f"--lock takes none, image or text, got {lock!r}")
        _refuse(minutes=minutes, from_nothing=from_nothing, size=size, teacher=teacher, verify=verify,
                no_look=no_look, views=None if views == "auto" else views)  # fmt: skip
        from headfirst.pretrain import CLIP

        clip = CLIP(epochs=32 if epochs is None else epochs, batch_size=batch_size, micro_batch=micro_batch, lr=lr,
                    mirror=not no_mirror, locked_image=lock == "image", locked_text=lock == "text")  # fmt: skip
        encoder = _towers(backbone, text_tower, dim, loss, seed)
        _pretrain_pairs(data, encoder, clip, home, seed, out, resolve_device(device), fresh, as_json, quiet)
        return
    for name, given in (
        ("text-tower", text_tower),
        ("lock", lock != "none"),
        ("dim", dim != 256),
        ("loss", loss != "softmax"),
    ):
        if given:
            raise InputError(f"--{name} is for --method clip; leave it out")
    if minutes is not None and epochs is not None:
        raise InputError("--minutes chooses the epochs; give it or --epochs")
    from headfirst.pretrain import Pretraining

    images = open_any_images(data, home)
    writing = views == "handwriting" or (views == "auto" and data == DIGITS)
    pretext = _pretext(method or "simclr", teacher, writing)
    mirror = images.mirror and not no_mirror
    recipe = Pretraining(pretext=pretext, epochs=100 if epochs is None else epochs, batch_size=batch_size,
                         micro_batch=micro_batch, lr=lr, mirror=mirror,
                         views=_views(views, writing, pretext, mirror))  # fmt: skip
    where = resolve_device(device)
    origin = _origin(backbone, from_nothing, size, pretext.method, images, seed)
    if fresh:
        shutil.rmtree(training, ignore_errors=True)
    _pretrain_images(images, origin, recipe, out, minutes, not no_look, verify, seed, where, as_json, quiet)


def _has_captions(data: str) -> bool:
    """Whether the data are pairs; a folder of both kinds is taken for pairs."""
    from headfirst.data import holds_captions

    return data != DIGITS and holds_captions(Path(data))


def _refuse(**given: object) -> None:
    for name, value in given.items():
        if value not in (None, False):
            raise InputError(f"--{name.replace('_', '-')} is not for --method clip; leave it out")


def _pretext(method: str, teacher: str | None, writing: bool) -> Pretext:
    from headfirst.pretrain import DINO, Distillation, Jigsaw, Masked, Rotation, SimCLR, VICReg

    if (method == "distil") != (teacher is not None):
        raise InputError("--method distil needs a --teacher, and only it takes one")
    if teacher is not None:
        return Distillation(teacher=open_backbone(teacher, "images"))
    makers = {
        "simclr": SimCLR,
        "vicreg": VICReg,
        "dino": DINO.handwriting if writing else DINO,
        "rotation": Rotation,
        "jigsaw": Jigsaw,
        "masked": Masked,
    }
    return makers[method]()


def _views(name: str, writing: bool, pretext: Pretext, mirror: bool) -> View | None:
    """None is the pretext's own choice; what contrasts writing needs what one hand writes like another."""
    from headfirst.data import Handwriting, Views

    if name not in ("auto", "photographs", "handwriting"):
        raise InputError(f"--views takes auto, photographs or handwriting, got {name!r}")
    if name == "photographs":
        return Views.photographs(mirror=mirror)
    return Handwriting() if name == "handwriting" or (writing and pretext.compares) else None


def _origin(
    backbone: str | None, from_nothing: bool, size: int | None, method: str, images: ImageSet, seed: int
) -> Origin:
    from headfirst.data import unlabelled_pool
    from headfirst.study.origin import WIDTHS, architecture_of, small_network, weights_there

    if backbone is None or backbone in WIDTHS:
        kind = backbone or ("small-vit" if method == "masked" else "small-resnet")
        return small_network(kind, unlabelled_pool(images), size=size, seed=seed)
    if size is not None:
        raise InputError(f"--size is for a small network; {backbone} says its own")
    if from_nothing:
        return architecture_of(backbone, seed=seed)
    return weights_there(lambda: open_backbone(backbone, "images"), backbone)


def _pretrain_images(
    images: ImageSet,
    origin: Origin,
    recipe: Pretraining,
    out: Path,
    minutes: float | None,
    look: bool,
    verify: bool,
    seed: int,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    from headfirst.report import pretrain_json, write_pretrain
    from headfirst.study import pretrain_images

    with progress_display(quiet=quiet) as progress:
        done = pretrain_images(images, origin, recipe, out, minutes=minutes, look=look, verify=verify, seed=seed,
                               device=device, told=lambda sentence: note(sentence, quiet=quiet),
                               written=lambda report: write_pretrain(report, out), progress=progress)  # fmt: skip
    if as_json:
        say(pretrain_json(done.report))
        return
    last = done.report.readings[-1]
    asked = "".join(f", {name} {100 * float(last[key] or 0):.1f} %"
                    for name, key in (("held-out kNN", "knn"), ("probe", "probe")) if key in last)  # fmt: skip
    say(f"{done.training.num_images} images, {done.report.method}, {duration(done.report.seconds)} of training{asked}")
    for event in done.training.events:
        say(event)
    for sentence in done.report.label_efficiency.verdicts() if done.report.label_efficiency else ():
        say(sentence)
    if done.verified is not None:
        say(done.verified)
    say(f"backbone: {out}")
    say(f"page: {out / 'pretrain.html'}")
    _listed(done.quarantined, "were set aside")


def _pretrain_pairs(
    data: str,
    encoder: DualEncoder,
    recipe: CLIP,
    home: str | None,
    seed: int,
    out: Path,
    device: str,
    fresh: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from headfirst.data import PairSet
    from headfirst.pretrain import train_pairs

    pairs = PairSet.open(data, home=home)
    training = out.with_name(f".{out.name}.training")  # a stopped training goes on from here
    val = pairs.splits.get("val")
    if fresh:
        shutil.rmtree(training, ignore_errors=True)
    with progress_display(quiet=quiet) as progress:
        done = train_pairs(encoder, pairs["train"], recipe, val=val, seed=seed, directory=training, device=device,
                           progress=progress)  # fmt: skip
    done.encoder.save(out)
    shutil.rmtree(training, ignore_errors=True)
    aside = (*pairs.quarantined, *done.quarantined)
    last = done.readings[-1]
    if as_json:
        about = {
            "backbone": str(out),
            "pairs": len(pairs["train"]),
            "trained_parameters": done.trained_parameters,
            "readings": [asdict(reading) for reading in done.readings],
            "set_aside": [asdict(each) for each in aside],
            "cut": [asdict(each) for each in done.cut],
        }
        say(json.dumps(about, indent=1))
        return
    trained = f"{done.trained_parameters:,} parameters trained"
    say(f"{len(pairs['train'])} pairs, {trained}, temperature {last.temperature:.3g}")
    if last.texts_to_images is not None and last.images_to_texts is not None:
        for how, found in (("texts to images", last.texts_to_images), ("images to texts", last.images_to_texts)):
            recalls = ", ".join(f"{100 * value:.1f} % at {k}" for k, value in found.items())
            say(f"held-out retrieval, {how}: recall {recalls} of {last.n} pairs")
    say(f"backbone: {out}")
    _listed(aside, "were set aside")
    _listed(done.cut, "have captions longer than the context, whose ends were not read")


def _towers(backbone: str | None, text_tower: str | None, dim: int, loss: str, seed: int) -> DualEncoder:
    if loss not in ("softmax", "sigmoid"):
        raise InputError(f"--loss takes softmax or sigmoid, got {loss!r}")
    if text_tower is None:
        return open_encoder(backbone)
    from headfirst.nn import load_text_tower, pair

    return pair(
        open_backbone(backbone, "pairs"),
        load_text_tower(text_tower),
        dim=dim,
        kind="sigmoid" if loss == "sigmoid" else "softmax",
        seed=seed,
    )


def _listed(found: Sequence[Quarantined], what: str) -> None:
    if found:
        note(f"{len(found)} {what}:")
        for each in found[:SHOWN]:
            note(f"  {each.id}: {each.reason}")
        if len(found) > SHOWN:
            note(f"  and {len(found) - SHOWN} more")

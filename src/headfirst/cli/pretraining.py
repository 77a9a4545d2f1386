"""`headfirst pretrain`: image–caption pairs train or adapt a dual encoder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headfirst.cli.console import note, progress_display, say
from headfirst.cli.options import (
    BackboneOption,
    DeviceOption,
    FreshOption,
    JsonOption,
    QuietOption,
    SeedOption,
    open_backbone,
    open_encoder,
    resolve_device,
)
from headfirst.errors import InputError

if TYPE_CHECKING:
    from headfirst.nn import DualEncoder
    from headfirst.types import Quarantined

SHOWN = 5


def pretrain(
    data: Annotated[
        str,
        typer.Argument(help="A CSV or Parquet table (path, caption), images with .txt beside them, or tar shards."),
    ],
    backbone: BackboneOption = None,
    text_tower: Annotated[
        str | None, typer.Option(help="A sentence encoder to pair the backbone with: a hub id or a local folder.")
    ] = None,
    dim: Annotated[int, typer.Option(help="Dimensions of the shared space, with --text-tower.")] = 256,
    loss: Annotated[str, typer.Option(help="softmax or sigmoid, with --text-tower.")] = "softmax",
    lock: Annotated[str, typer.Option(help="Which tower stays as it is: none, image or text.")] = "none",
    epochs: Annotated[int, typer.Option(help="Passes over the pairs.")] = 32,
    batch_size: Annotated[int, typer.Option(help="Pairs told apart at once.")] = 256,
    micro_batch: Annotated[
        int | None, typer.Option(help="Encode this many at a time: less memory, the same gradients.")
    ] = None,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    no_mirror: Annotated[
        bool, typer.Option("--no-mirror", help="Never flip images: captions that say left, or letters.")
    ] = False,
    seed: SeedOption = 0,
    home: Annotated[str | None, typer.Option(help="The domain to train on, where the table has several.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the dual encoder, a backbone for every other verb.")] = Path(
        "headfirst-pretrained"
    ),
    device: DeviceOption = "auto",
    fresh: FreshOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train two towers on images and their captions (CLIP, SigLIP), from a checkpoint or from any two towers.

    Rerunning the same command resumes a stopped training. A `val` split is watched and chooses nothing.
    """
    from headfirst.data import PairSet
    from headfirst.pretrain import CLIP, train_pairs

    if lock not in ("none", "image", "text"):
        raise InputError(f"--lock takes none, image or text, got {lock!r}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out} holds files already; give a new or an empty folder")
    recipe = CLIP(epochs=epochs, batch_size=batch_size, micro_batch=micro_batch, lr=lr, mirror=not no_mirror,
                  locked_image=lock == "image", locked_text=lock == "text")  # fmt: skip
    where = resolve_device(device)
    pairs = PairSet.open(data, home=home)
    encoder = _towers(backbone, text_tower, dim, loss, seed)
    training = out.with_name(f".{out.name}.training")  # a stopped training goes on from here
    if fresh:
        shutil.rmtree(training, ignore_errors=True)
    val = pairs.splits.get("val")
    with progress_display(quiet=quiet) as progress:
        done = train_pairs(encoder, pairs["train"], recipe, val=val, seed=seed, directory=training, device=where,
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

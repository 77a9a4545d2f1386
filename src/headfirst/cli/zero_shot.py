"""`headfirst zero-shot`: class names typed at the prompt become a classifier."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headfirst.cli.console import note, progress_display, say
from headfirst.cli.options import (
    BackboneOption,
    DeviceOption,
    JsonOption,
    QuietOption,
    TemplatesOption,
    open_encoder,
    resolve_device,
    resolve_templates,
)
from headfirst.cli.predict import prediction_table
from headfirst.errors import DataError, InputError

if TYPE_CHECKING:
    from headfirst.adapt import ZeroShotModel

NONE = "none of these"


def zero_shot(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    labels: Annotated[
        str | None, typer.Option(help='What to tell apart, separated by commas: "cat,dog,a drawing of a horse".')
    ] = None,
    labels_file: Annotated[Path | None, typer.Option(help="A text file with one label a line, instead.")] = None,
    backbone: BackboneOption = None,
    templates: TemplatesOption = "plain",
    descriptions: Annotated[
        Path | None, typer.Option(help='Further sentences of labels, as JSON: {"cat": ["an animal that purrs"]}.')
    ] = None,
    none_below: Annotated[float | None, typer.Option(help=f"Say '{NONE}' where no label has this probability.")] = None,
    save: Annotated[
        Path | None, typer.Option(help="Folder to keep the classifier in, for predict and evaluate.")
    ] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV on stdout.")] = False,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Classify images by labels in words, without a single training image.

    Needs an image-text backbone (CLIP, SigLIP and relatives).
    """
    if as_json and as_csv:
        raise InputError("--json and --csv exclude each other")
    from headfirst.adapt import ZeroShot, on_backbone
    from headfirst.data import prepare, read_paths
    from headfirst.features import embed

    names = _labels(labels, labels_file)
    recipe = ZeroShot(names, resolve_templates(templates), _descriptions(descriptions))
    where = resolve_device(device)
    encoder = open_encoder(backbone)
    with progress_display(quiet=quiet) as progress:
        model = recipe.fit(encoder, progress=progress)
        found = prepare(read_paths(images), encoder.image.preprocessing, progress=progress)
        features = embed(encoder.image, found["unlabelled"], device=where, progress=progress)
    probability, best = model.probabilities(features.values).max(dim=1)
    refused = None if none_below is None else model.none_of_these(features.values, none_below).tolist()
    rows: list[dict[str, Any]] = [
        {"image": id_, "class": names[k] if refused is None or not refused[i] else NONE, "probability": round(p, 6)}
        for i, (id_, k, p) in enumerate(zip(features.ids, best.tolist(), probability.tolist(), strict=True))
    ]
    if save is not None:
        from headfirst.artefact import save_model
        from headfirst.evaluation import versions

        save_model(on_backbone(encoder.image_alone(), model), save, versions=versions())
    if as_json:
        about = {
            "backbone": encoder.name,
            "kind": model.kind,
            "logit_scale": model.logit_scale,
            "logit_bias": model.logit_bias,
            "none_below": none_below,
            "prompts": model.prompts,
        }
        say(json.dumps({**about, "predictions": rows, "skipped": [asdict(s) for s in found.quarantined]}, indent=1))
    elif as_csv:
        say(prediction_table(rows))
    else:
        for row in rows:
            say(f"{row['probability']:.3f}  {row['class']}  {row['image']}")
    note(about_confidence(model), quiet=quiet)
    for quarantined in found.quarantined:
        note(f"skipped {quarantined.id}: {quarantined.reason}")
    if save is not None:
        note(f"model: {save}")


def about_confidence(model: ZeroShotModel) -> str:
    """Where the probabilities come from, in one sentence."""
    if model.kind == "softmax":
        how = f"a softmax over {len(model.classes)} labels, logit scale {model.logit_scale:.4g}"
    else:
        how = (
            f"a sigmoid for each label by itself, logit scale {model.logit_scale:.4g}, bias {model.logit_bias:.4g}; "
            "they need not add up to 1"
        )
    return f"confidence: {how}, as {model.encoder} was trained; not calibrated on your images"


def _labels(labels: str | None, file: Path | None) -> tuple[str, ...]:
    if (labels is None) == (file is None):
        raise InputError('say what to tell apart, either with --labels "cat,dog" or with --labels-file')
    if file is not None:
        from headfirst.adapt import read_lines

        return read_lines(file, "labels")
    assert labels is not None
    return tuple(label.strip() for label in labels.split(",")) if labels.strip() else ()


def _descriptions(path: Path | None) -> dict[str, list[str]] | None:
    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); give {{label: [sentences]}}") from error
    fits = isinstance(found, dict) and all(
        isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in found.values()
    )
    if not fits:
        raise DataError(f"{path} must hold a JSON object from labels to lists of sentences")
    return found

"""`headfirst predict`: what a saved model says of images, and where it declines to say."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headfirst.cli.console import note, progress_display, say
from headfirst.cli.options import DeviceOption, JsonOption, QuietOption, resolve_device
from headfirst.errors import InputError

if TYPE_CHECKING:
    from headfirst.adapt import TunedModel

ABSTAINED = "abstained"


def predict(
    model: Annotated[str, typer.Argument(help="A model folder, or the id (owner/name) of one on the hub.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    abstain: Annotated[
        float | None, typer.Option(help="Answer only where at most this share of the answers is wrong, such as 0.05.")
    ] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV on stdout.")] = False,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Say what is on images: the class and its probability, and whether that is calibrated."""
    if as_json and as_csv:
        raise InputError("--json and --csv exclude each other")
    from headfirst.artefact import load_model
    from headfirst.data import prepare, read_paths
    from headfirst.study.forecast import Forecaster

    where = resolve_device(device)
    loaded = load_model(model)
    threshold = None if abstain is None else loaded.abstention_threshold(abstain)
    with progress_display(quiet=quiet) as progress:
        found = prepare(read_paths(images), loaded.classifier.backbone.preprocessing, progress=progress)
        predictions = loaded.predictions(found["unlabelled"], device=where, progress=progress)
    confidence, best = loaded.probabilities(predictions).max(dim=1)
    rows = [
        {"image": id_, "class": loaded.classes_[k], "probability": round(p, 6)}
        | ({} if threshold is None else {"abstained": p < threshold})
        for id_, k, p in zip(predictions.ids, best.tolist(), confidence.tolist(), strict=True)
    ]
    temperature = None if loaded.calibration is None else loaded.calibration.temperature
    if as_json:
        about = {"calibrated": temperature is not None, "temperature": temperature}
        if threshold is not None:  # JSON has no infinity
            about |= {"max_error": abstain, "threshold": threshold if threshold < float("inf") else None}
        say(json.dumps({**about, "predictions": rows, "skipped": [asdict(s) for s in found.quarantined]}, indent=1))
    elif as_csv:
        say(prediction_table(rows))
    else:
        for r in rows:
            refused = f"{ABSTAINED} (would say {r['class']})" if r.get("abstained") else r["class"]
            say(f"{r['probability']:.3f}  {refused}  {r['image']}")
    note(_about_confidence(loaded, threshold), quiet=quiet)
    if loaded.calibration is not None and loaded.calibration.forecast:
        for f in Forecaster.from_record(loaded.calibration.forecast).forecasts(predictions, None):
            accuracy = f"{100 * f.value:.0f} % [{100 * f.low:.0f}, {100 * f.high:.0f}]"
            estimator = f.estimator.replace("_", " ")
            note(f"expected accuracy by {estimator}, if nothing is stranger than corruptions: {accuracy}", quiet=quiet)
    for quarantined in found.quarantined:
        note(f"skipped {quarantined.id}: {quarantined.reason}")


def prediction_table(rows: list[dict[str, Any]]) -> str:
    """CSV; where a threshold was asked for, `best_class` is what the model would have said."""
    import csv
    import io

    from headfirst.report import safe_cell

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    abstains = "abstained" in rows[0]
    writer.writerow(["image", "class", "probability", *(["best_class"] if abstains else [])])
    for r in rows:
        said, best = ABSTAINED if r.get("abstained") else safe_cell(r["class"]), safe_cell(r["class"])
        writer.writerow([safe_cell(r["image"]), said, r["probability"], *([best] if abstains else [])])
    return buffer.getvalue().rstrip("\n")


def _about_confidence(model: TunedModel, threshold: float | None) -> str:
    if model.calibration is None:
        return "confidence: uncalibrated"
    fitted = f"temperature {model.calibration.temperature:.3g} fitted on {model.calibration.chosen_on}"
    about = f"confidence: calibrated by {fitted}"
    if threshold == float("inf"):
        return f"{about}; no confidence keeps the error that low on its {len(model.calibration.labels)} images"
    return about if threshold is None else f"{about}; answers from {threshold:.3f} up"

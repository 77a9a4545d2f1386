"""`headfirst run`: the main job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from headfirst.cli.console import duration, note, progress_display, say
from headfirst.cli.options import (
    DIGITS,
    BackboneOption,
    DeviceOption,
    FreshOption,
    HomeOption,
    JsonOption,
    QuietOption,
    SeedOption,
    ShotsOption,
    TemplatesOption,
    num_threads,
    open_backbone,
    open_images,
    out_folder,
    resolve_device,
    resolve_shots,
    resolve_templates,
    text_tower_of,
)


def run(
    data: Annotated[str, typer.Argument(help="A folder of images, a manifest (.csv, .parquet), or 'digits'.")] = DIGITS,
    backbone: BackboneOption = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: knn, lda, naive-bayes, vae, diffusion, probe, finetune, lp-ft, wise-ft; of an "
            "image-text backbone also zero-shot, anchored-probe, flyp. Default: all but lda, naive-bayes, vae, "
            "diffusion and flyp."
        ),
    ] = None,
    templates: TemplatesOption = "plain",
    shots: ShotsOption = None,
    seeds: Annotated[int, typer.Option(help="How many training seeds.")] = 3,
    seed: SeedOption = 0,
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.json, report.md and model/.")] = Path(
        "headfirst-run"
    ),
    device: DeviceOption = "auto",
    home: HomeOption = None,
    fresh: FreshOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the plan, with an estimate of its time.")
    ] = False,
) -> None:
    """Measure zero-shot, kNN, probes, fine-tuning, LP-FT and WiSE-FT at home and on every shift; say which to ship.

    Rerunning the same command resumes a stopped run.
    """
    from headfirst.study import METHODS, Run
    from headfirst.study import plan as make_plan
    from headfirst.study import run as study

    named = None if methods is None else tuple(dict.fromkeys(m.strip() for m in methods.split(",") if m.strip()))
    recipe = Run(
        methods=METHODS if named is None else named,
        templates=resolve_templates(templates),
        shots=resolve_shots(shots, data),
        seeds=seeds,
        seed=seed,
    )
    out_folder(out)
    images = open_images(data, home)
    where = resolve_device(device)
    encoder = text_tower_of(backbone) if named is None or recipe.needs_text else None
    model = open_backbone(backbone, data) if encoder is None else encoder.image_alone()
    if named is None and encoder is not None:
        recipe = replace(recipe, methods=("zero-shot", *recipe.methods, "anchored-probe"))
    if dry_run:
        steps = make_plan(images, model, recipe)
        if as_json:
            import json

            say(json.dumps([{"what": step.what, "seconds": round(step.seconds, 1)} for step in steps], indent=1))
            return
        for step in steps:
            say(f"{duration(step.seconds):>14}  {step.what}")
        say(f"{duration(sum(step.seconds for step in steps)):>14}  in all, estimated from one batch on this machine")
        return

    from headfirst.report import write_report

    note(f"computing on {where}, {num_threads()} threads; results go to {out}", quiet=quiet)
    with progress_display(quiet=quiet) as progress:
        report = study(images, model, recipe, out=out, encoder=encoder, fresh=fresh, device=where, progress=progress)
    page = write_report(report, out)
    if as_json:
        say((out / "report.json").read_text())
        return
    assert report.recommendation is not None
    say(accuracy_table(report))
    say()
    say(report.recommendation.sentence)
    say(report.recommendation.verdict)
    say(f"report: {page}")
    say(f"model:  {out / 'model'}")
    if report.data is not None and report.data.quarantined:
        note(f"{len(report.data.quarantined)} images were set aside; the report lists them with the reasons")


def accuracy_table(report: object) -> str:
    """Accuracy of each method on each split, in per cent with its interval, as plain text."""
    from headfirst.types import Report

    assert isinstance(report, Report)
    rows = [row for row in report.rows if row.metric == "accuracy"]
    splits = list(dict.fromkeys(row.split for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    cells = {
        (row.method, row.split): f"{100 * row.value:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]" for row in rows
    }
    widths = {split: max(len(split), *(len(cells.get((m, split), "")) for m in methods)) for split in splits}
    first = max(len("accuracy, %"), *(len(m) for m in methods))
    lines = ["accuracy, %".ljust(first) + "".join("  " + split.rjust(widths[split]) for split in splits)]
    lines += [
        method.ljust(first) + "".join("  " + cells.get((method, split), "").rjust(widths[split]) for split in splits)
        for method in methods
    ]
    return "\n".join(lines)

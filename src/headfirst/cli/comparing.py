"""`headfirst compare`: finished runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headfirst.cli.console import say
from headfirst.cli.options import JsonOption, SeedOption, out_folder
from headfirst.errors import InputError

if TYPE_CHECKING:
    from headfirst.study import FinishedRun


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders that run wrote; the first is what the others are held against.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for compare.html and compare.json. Default: none.")] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Put finished runs side by side: accuracies, paired differences on the images they share, and what differs."""
    from headfirst.report import comparison_json, comparison_text, write_comparison
    from headfirst.study import compare as compare_runs

    if len({run.resolve() for run in runs}) < max(2, len(runs)):
        raise InputError(f"a comparison needs two or more different runs, got {', '.join(map(str, runs))}")
    page = out_folder(out) if out is not None else None
    found = compare_runs([_open_run(run, runs) for run in runs], seed=seed)
    if page is not None:
        page = write_comparison(found, page)
    say(comparison_json(found) if as_json else comparison_text(found))
    if page is not None and not as_json:
        say(f"\ncomparison: {page}")


def _open_run(run: Path, runs: list[Path]) -> FinishedRun:
    """The run, under its folder's name; under the whole path where two folders have the same name."""
    from headfirst.report import read_report
    from headfirst.study import FinishedRun, reported_predictions

    names = [path.resolve().name for path in runs]
    name = run.resolve().name
    return FinishedRun(
        name=name if names.count(name) == 1 else str(run),
        report=read_report(run),
        predictions=reported_predictions(run),
    )

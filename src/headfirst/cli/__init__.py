"""The command line. Exit codes: 0 done; 1 failed or stopped; 2 wrong input (nothing was half-written)."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Sequence
from types import FrameType

import typer

from headfirst.cli import (
    artefacts,
    augmenting,
    claims,
    comparing,
    distilling,
    editing,
    generating,
    ground,
    planning,
    predict,
    pretraining,
    retrieval,
    run,
    sampling_curve,
    stages,
    translating,
    verifying,
    zero_shot,
)
from headfirst.cli.console import note
from headfirst.errors import HeadfirstError, HeadfirstWarning, Interrupted

app = typer.Typer(
    name="headfirst",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A folder of images and few labels in; the classifier that holds up away from home, with the evidence, out.",
    epilog="Exit codes: 0 done; 1 failed or stopped (run the same command again to resume); 2 wrong input.",
)
VERBS = (
    run.run,
    planning.plan,
    comparing.compare,
    stages.embed,
    stages.adapt,
    pretraining.pretrain,
    augmenting.augment,
    stages.evaluate,
    predict.predict,
    zero_shot.zero_shot,
    stages.report,
    retrieval.index,
    retrieval.search,
    artefacts.export,
    artefacts.verify,
    claims.claims,
    ground.cache,
    ground.doctor,
)
for verb in VERBS:
    app.command()(verb)
for verb in (
    distilling.distil,
    editing.vary,
    editing.guidance,
    verifying.verify,
    sampling_curve.curve,
    translating.train_pairs,
    translating.translate,
    translating.restyle,
):
    generating.app.command()(verb)
app.add_typer(generating.app, name="generate")


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from headfirst import __version__

        print(__version__)
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: errors become one sentence and the documented exit code; wrong usage is typer's, with code 2."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    warnings.showwarning = _warn
    try:
        app(args=arguments)
    except HeadfirstError as error:
        note(f"error: {error}")
        sys.exit(error.exit_code)
    except (MemoryError, RuntimeError) as error:
        from headfirst.train import out_of_memory

        if not out_of_memory(error):
            raise
        note(
            "error: memory ran out; close other programs, or take a smaller backbone or smaller images. What was "
            "finished is kept: run the same command again to resume"
        )
        sys.exit(1)
    except OSError as error:
        note(f"error: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        sys.exit(1)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted("stopped; what was finished is kept: run the same command again to resume")


def _warn(message: Warning | str, category: type[Warning], *_: object) -> None:
    """Ours as one line; what libraries warn of is for developers."""
    if issubclass(category, HeadfirstWarning):
        note(f"warning: {message}")

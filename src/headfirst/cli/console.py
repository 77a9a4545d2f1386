"""What the command line prints: progress and errors on stderr, results on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from headfirst.types import Progress, silent

_PLAIN_SECONDS = 5.0


def printable(text: str) -> str:
    """`text` without what could steer a terminal."""
    from headfirst.report import printable as without_controls

    return "\n".join(without_controls(line) for line in text.split("\n"))


def say(text: str = "") -> None:
    """A result, on stdout."""
    print(printable(text))


def note(text: str, *, quiet: bool = False) -> None:
    """Something about the work, on stderr."""
    if not quiet:
        print(printable(text), file=sys.stderr, flush=True)


@contextmanager
def progress_display(*, quiet: bool = False) -> Iterator[Progress]:
    """A `Progress` for the block: bars with the time left on a terminal, a plain line every few seconds elsewhere."""
    if quiet:
        yield silent
    elif sys.stderr.isatty():
        with _bars() as show:
            yield show
    else:
        yield _PlainLines()


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks or bars.tasks[bars.task_ids.index(tasks[stage])].finished:
                for old in [task for name, task in tasks.items() if name != "methods"]:
                    bars.remove_task(old)
                kept = {name: task for name, task in tasks.items() if name == "methods"}
                tasks.clear()
                tasks.update(kept)
                if stage not in tasks:
                    tasks[stage] = bars.add_task(escape(printable(stage)), total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield show


class _PlainLines:
    """`stage: done/total, about 30 s left`, at most one line every few seconds."""

    def __init__(self) -> None:
        self.stage, self.began, self.last = "", 0.0, time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self.began = stage, now
        if now - self.last >= _PLAIN_SECONDS:
            self.last = now
            left = f", about {duration((now - self.began) / done * (total - done))} left" if 0 < done < total else ""
            note(f"{stage}: {done}/{total}{left}")


def duration(seconds: float) -> str:
    """Seconds for reading.

    >>> duration(12.3), duration(150), duration(4000)
    ('12 s', '2 min 30 s', '1 h 7 min')
    """
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {round(whole % 3600 / 60)} min"

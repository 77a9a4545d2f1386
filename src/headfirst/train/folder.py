"""Where a training keeps its state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from headfirst.train.distributed import World, together, told_by_first


@contextmanager
def training_folder(directory: Path | None, world: World) -> Iterator[Path]:
    """The folder given, or one for the time being, the same for all workers."""
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        yield directory
    else:
        with TemporaryDirectory(prefix="headfirst-") as path:
            yield Path(told_by_first(world, path) or path)
            together(world)

"""Samples → a folder that is a data set: PNG files by class, where each comes from, and a grid of them to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from headfirst.data.rows import write_atomically
from headfirst.errors import InputError
from headfirst.evaluation import versions
from headfirst.generate import Generator
from headfirst.generate.diffusion import Sampling
from headfirst.study.generator_report import COLUMNS
from headfirst.study.picture_grid import png, readable_png
from headfirst.types import Samples

IN_GRID = 240
"""Images that the grid shows at most."""


def write_samples(
    samples: Samples, generator: Generator, out: Path, *, sampling: Sampling | None = None
) -> dict[str, object]:
    """Write `<class>/<seed>-<index>.png` and samples.json into `out`, which is made, and `<out>-grid.png` beside it.

    Without classes the files lie in `out` itself; the grid never does, so that the folder holds the images and no
    picture of them.

    Args:
        sampling: how a diffusion model was asked to draw them, where not in its own way.

    Returns:
        What samples.json holds: the generator's hash and recipe, the seed, each file with its index and class.

    Raises:
        InputError: a class whose name cannot be a folder's.
    """
    require_folder_names("class", samples.classes, "take the images from `Generator.sample`")
    files = []
    for pixels, label, index in zip(samples.pixels, samples.labels.tolist(), samples.indices.tolist(), strict=True):
        name = f"{samples.seed}-{index:05d}.png"
        class_ = samples.classes[label] if samples.classes else None
        path = out / name if class_ is None else out / class_ / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, png(pixels.permute(1, 2, 0).numpy()))
        files.append({"path": path.relative_to(out).as_posix(), "index": index, "class": class_})
    grid = out.with_name(f"{out.name}-grid.png")
    order = samples.labels[:IN_GRID].argsort(stable=True)
    write_atomically(grid, readable_png(samples.pixels[:IN_GRID][order], columns=COLUMNS))
    about: dict[str, object] = {
        "generator": samples.source,
        "kind": generator.kind,
        "recipe": generator.recipe,
        "trained_on": generator.trained_on,
        "seed": samples.seed,
        **({"sampling": asdict(sampling)} if sampling else {}),
        "grid": str(grid),
        "files": files,
        "versions": versions(),
    }
    write_atomically(out / "samples.json", json.dumps(about, indent=1).encode())
    return about


def require_folder_names(what: str, names: Sequence[str], instead: str) -> None:
    """Refuse names that cannot be folders'.

    Raises:
        InputError: naming the first, and what to do `instead`.
    """
    for name in names:
        if not name.strip() or name.startswith(".") or any(c in name for c in "/\\\0"):
            raise InputError(f"{what} {name!r} cannot be a folder's name; {instead}")

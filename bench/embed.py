"""`embed` against transformers' feature-extraction pipeline on a folder of JPEGs, and the bare forward.

    python bench/embed.py --backbone DIRECTORY --images FOLDER

Every round runs all contestants in turn on the same files with the same model, each from nothing but the
files: `embed` with an empty cache. The pipeline runs with one image a batch and with `--batch-size`; the
better of the two counts. It has a process of its own, as `load_backbone` changes how its process allocates
memory: what a user of the pipeline alone would see. Goals: twice the pipeline, nine tenths of the bare forward.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from record import record

from headfirst.data import ImageSplit, normalise, prepare_split
from headfirst.features import embed, torch_threads
from headfirst.nn import PretrainedBackbone, load_backbone


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--backbone", default="../shared/weights/mobilenet-v2-imagenet")
    arguments.add_argument("--images", type=Path, default=Path("../shared/data/pacs/train"))
    arguments.add_argument("--count", type=int, default=256)
    arguments.add_argument("--batch-size", type=int, default=32)
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()

    endings = {".jpg", ".jpeg", ".png"}
    paths = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in endings)[: options.count]
    backbone = load_backbone(options.backbone)
    contestants = {
        "embed": lambda: run_embed(backbone, paths, options.batch_size),
        "embed, pixels cached": warm_embed(backbone, paths, options.batch_size),
        "bare forward": bare_forward(backbone, paths, options.batch_size),
        "pipeline, batch 1": run_pipeline(options.backbone, paths, 1),
        f"pipeline, batch {options.batch_size}": run_pipeline(options.backbone, paths, options.batch_size),
    }
    for run in contestants.values():
        run()  # warm-up: file cache, memory, oneDNN's choices
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, run in contestants.items():
            seconds[name].append(timed(run))
    rates = {name: len(paths) / statistics.median(values) for name, values in seconds.items()}
    best_pipeline = max(rate for name, rate in rates.items() if name.startswith("pipeline"))
    # Ratios are of the same round, so that a neighbour's load falls on both sides.
    record(
        "embed",
        {
            "images": len(paths),
            "batch_size": options.batch_size,
            "rounds": options.rounds,
            "images_per_second": {name: round(rate, 1) for name, rate in rates.items()},
            "seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
            "embed_over_pipeline": round(rates["embed"] / best_pipeline, 2),
            "embed_over_bare_forward": round(ratio(seconds, "bare forward", "embed"), 3),
            "cached_embed_over_bare_forward": round(ratio(seconds, "bare forward", "embed, pixels cached"), 3),
            "goals": {"embed_over_pipeline": 2.0, "embed_over_bare_forward": 0.9},
        },
    )


def ratio(seconds: dict[str, list[float]], slow: str, fast: str) -> float:
    """The median over rounds of one contestant's seconds over another's."""
    return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def split_of(paths: list[Path]) -> ImageSplit:
    ids = tuple(str(path) for path in paths)
    labels = np.full(len(paths), -1, dtype=np.int64)
    return ImageSplit(name="unlabelled", ids=ids, sources=tuple(paths), labels=labels, classes=())


def run_embed(backbone: PretrainedBackbone, paths: list[Path], batch_size: int) -> None:
    with tempfile.TemporaryDirectory() as cache:
        embed(backbone, split_of(paths), cache=Path(cache), batch_size=batch_size)


def warm_embed(backbone: PretrainedBackbone, paths: list[Path], batch_size: int) -> Callable[[], None]:
    """`embed` of a prepared split: the pixels are there, the features are not."""
    folder = tempfile.TemporaryDirectory()
    split, _ = prepare_split(split_of(paths), backbone.preprocessing, cache=Path(folder.name))

    def run() -> None:
        assert folder  # kept alive as long as its pixels are mapped
        with tempfile.TemporaryDirectory() as cache:
            embed(backbone, split, cache=Path(cache), batch_size=batch_size)

    return run


def bare_forward(backbone: PretrainedBackbone, paths: list[Path], batch_size: int) -> Callable[[], None]:
    """The forward passes alone, on one batch that is there already, on every core."""
    with tempfile.TemporaryDirectory() as cache:
        split, _ = prepare_split(split_of(paths[:batch_size]), backbone.preprocessing, cache=Path(cache))
        images = normalise(split.batch(), backbone.preprocessing)

    def run() -> None:
        with torch.inference_mode(), torch_threads(usable_cores()):
            for start in range(0, len(paths), batch_size):
                backbone(images[: len(paths) - start])

    return run


def run_pipeline(directory: str, paths: list[Path], batch_size: int) -> Callable[[], None]:
    """The pipeline in a fresh process that waits between rounds."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(
        target=serve_pipeline, args=(there, directory, list(map(str, paths)), batch_size), daemon=True
    ).start()
    here.recv()

    def run() -> None:
        here.send("go")
        here.recv()

    return run


def serve_pipeline(connection: Connection, directory: str, files: list[str], batch_size: int) -> None:
    """Extract features from all files each time it is told to."""
    from transformers import pipeline
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    extract = pipeline("image-feature-extraction", model=directory, device="cpu", batch_size=batch_size)
    torch.set_num_threads(usable_cores())
    connection.send("ready")
    with contextlib.suppress(EOFError):  # the parent has all it wants
        while connection.recv():
            for _ in extract(files, pool=True, return_tensors=True):
                pass
            connection.send("done")


def usable_cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()

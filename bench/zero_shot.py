"""Zero-shot over many images and labels against transformers' zero-shot pipeline, on the same model and files.

    python bench/zero_shot.py [--backbone builtin/glyph-clip] [--images 1000] [--labels 100] [--rounds 3]

Both start from PNG files and end in probabilities; ours with an empty cache. Both use one template, and as many threads
as there are cores. The pipeline runs with one image a batch, as it is used by default, and it encodes every label again
for every image. Ratios are of the same round; agreement is the largest difference of two probabilities. Goals: five
times the pipeline, agreement to 1e-4.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from record import record

from headfirst.adapt import ZeroShot
from headfirst.data import ImageSet, prepare, read_paths
from headfirst.features import embed
from headfirst.nn import load_dual_encoder

TEMPLATE = "a photo of a {}."
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "orange", "purple", "pink", "grey")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--backbone", default="builtin/glyph-clip")
    arguments.add_argument("--images", type=int, default=1000)
    arguments.add_argument("--labels", type=int, default=100)
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()

    labels = tuple(f"{colour} {digit}" for digit in DIGITS for colour in COLOURS)[: options.labels]
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), options.images)
        ours = np.array(zero_shot(options.backbone, paths, labels))
        theirs = np.array(pipeline(options.backbone, paths, labels))
        seconds: dict[str, list[float]] = {"headfirst": [], "pipeline": []}
        for _ in range(options.rounds):
            for name, run in (("headfirst", zero_shot), ("pipeline", pipeline)):
                began = time.perf_counter()
                run(options.backbone, paths, labels)
                seconds[name].append(time.perf_counter() - began)
    pairs = zip(seconds["pipeline"], seconds["headfirst"], strict=True)
    record(
        "zero_shot",
        {
            "backbone": options.backbone,
            "images": options.images,
            "labels": len(labels),
            "rounds": options.rounds,
            "threads": torch.get_num_threads(),
            "seconds": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
            "headfirst_over_pipeline": round(statistics.median(a / b for a, b in pairs), 1),
            "largest_difference_of_probabilities": float(np.abs(ours - theirs).max()),
            "goals": {"headfirst_over_pipeline": 5.0, "largest_difference_of_probabilities": 1e-4},
        },
    )


def write_images(folder: Path, count: int) -> list[Path]:
    """Embedded digits as PNG files."""
    sources = ImageSet.digits()["test"].sources
    paths = [folder / f"{i:05d}.png" for i in range(count)]
    for path, pixels in zip(paths, (sources[i % len(sources)] for i in range(count)), strict=True):
        Image.fromarray(np.asarray(pixels)).resize((64, 64)).save(path)
    return paths


def zero_shot(backbone: str, paths: list[Path], labels: tuple[str, ...]) -> list[list[float]]:
    """Probabilities (N, K) by `ZeroShot`, from the loading of the model on."""
    encoder = load_dual_encoder(backbone)
    with tempfile.TemporaryDirectory() as cache:
        model = ZeroShot(labels, (TEMPLATE,)).fit(encoder)
        images = prepare(read_paths(paths), encoder.image.preprocessing, cache=Path(cache))["unlabelled"]
        features = embed(encoder.image, images, cache=Path(cache))
        order = {Path(id_).name: i for i, id_ in enumerate(features.ids)}
        return model.probabilities(features.values)[[order[path.name] for path in paths]].tolist()


def pipeline(backbone: str, paths: list[Path], labels: tuple[str, ...]) -> list[list[float]]:
    """The same by transformers."""
    import transformers

    name = backbone.removeprefix("builtin/")
    directory = str(resources.files("headfirst.nn") / name) if backbone.startswith("builtin/") else backbone
    run = transformers.pipeline("zero-shot-image-classification", model=directory, device="cpu", dtype=torch.float32)
    place = {label: i for i, label in enumerate(labels)}
    rows = []
    for path in paths:
        row = [0.0] * len(labels)
        for each in run(str(path), candidate_labels=list(labels), hypothesis_template=TEMPLATE):
            row[place[each["label"]]] = each["score"]
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()

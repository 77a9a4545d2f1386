"""ONNX Runtime and OpenVINO against PyTorch eager: one image and a batch, on one thread and on two.

    python bench/export.py [--backbone builtin/glyph] [--rounds 9]

One model (the backbone and a random head for ten classes), exported in float32 as `headfirst export` does it, so
that every contestant takes the same uint8 pixels and gives the same logits to 1e-4. Every round runs all contestants
in turn in one process, after a pause in which the thread pools of the one before fall asleep; each contestant is
called until `--seconds` have passed. Ratios are of the same round, medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from record import record

from headfirst.adapt import TunedModel
from headfirst.artefact import FORMATS, export_model, save_model
from headfirst.artefact.graph import PixelClassifier
from headfirst.artefact.runtimes import RUNNERS
from headfirst.nn import ImageClassifier, load_backbone, random_head

NUM_CLASSES, PAUSE = 10, 0.1
Call = Callable[[], object]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--backbone", default="builtin/glyph")
    arguments.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    arguments.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--seconds", type=float, default=0.5)
    options = arguments.parse_args()

    backbone = load_backbone(options.backbone)
    classifier = ImageClassifier(
        backbone, random_head(backbone.feature_dim, NUM_CLASSES, seed=0), tuple("abcdefghij")
    ).eval()
    model = TunedModel(classifier=classifier, method="probe", recipe={}, seed=0, chosen_on="fixed")
    results, mismatch = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        directory = save_model(model, Path(scratch) / "model")
        graphs = {}
        for to in FORMATS:
            exported = export_model(directory, to)
            graphs[to], mismatch[to] = exported.graph, float(f"{exported.mismatch:.1e}")
        for threads in options.threads:
            for batch in options.batches:
                calls = contestants(classifier, graphs, batch=batch, threads=threads)
                results.append({"threads": threads, "batch": batch, **compare(calls, batch, options)})
    record(
        f"export-{Path(options.backbone).name}",
        {
            "backbone": options.backbone,
            "size": list(backbone.preprocessing.size),
            "parameters": sum(parameter.numel() for parameter in classifier.parameters()),
            "rounds": options.rounds,
            "largest_difference": mismatch,
            "results": results,
            "runtimes": {name: version(name) for name in ("onnxruntime", "openvino")},
        },
    )


def contestants(classifier: ImageClassifier, graphs: dict[str, Path], *, batch: int, threads: int) -> dict[str, Call]:
    """Each takes the same random pixels; PyTorch's number of threads is set by the call itself."""
    height, width = classifier.backbone.preprocessing.size
    pixels = np.random.default_rng(0).integers(0, 256, (batch, 3, height, width), dtype=np.uint8)
    eager, tensor = PixelClassifier(classifier).eval(), torch.from_numpy(pixels)

    def pytorch() -> object:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return eager(tensor)

    calls: dict[str, Call] = {"pytorch": pytorch}
    for to, graph in graphs.items():
        run = RUNNERS[to](graph, threads=threads)
        calls[to] = lambda run=run: run(pixels)
    return calls


def compare(calls: dict[str, Call], batch: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    for call in calls.values():
        per_call(call, options.seconds)  # warm-up: memory, kernels chosen
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.rounds):
        for name, call in calls.items():
            time.sleep(PAUSE)
            seconds[name].append(per_call(call, options.seconds))
    return {
        "milliseconds_an_image": {
            name: round(1000 * statistics.median(values) / batch, 4) for name, values in seconds.items()
        },
        "faster_than_pytorch": {
            name: round(statistics.median(a / b for a, b in zip(seconds["pytorch"], values, strict=True)), 2)
            for name, values in seconds.items()
            if name != "pytorch"
        },
    }


def per_call(call: Call, at_least: float) -> float:
    """Mean seconds of one call, over as many as fit in `at_least` seconds."""
    start, count = time.perf_counter(), 0
    while True:
        call()
        count += 1
        passed = time.perf_counter() - start
        if passed >= at_least:
            return passed / count


if __name__ == "__main__":
    main()

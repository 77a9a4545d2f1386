"""SimCLR, images a second from files to updated weights: `train_backbone` against lightly in a plain loop.

    python bench/simclr.py [--peer-python PATH] [--sizes 32 96] [--rounds 5]

Both train the same network (`small-resnet` and the projection, from the same weights) on the same PNG files, two views
an image, in batches of the same size, with AdamW, on one thread. Ours decodes the files once, before the first round,
which is timed apart; the rest is `train_backbone` as it is, of a run of 100 epochs. Its readings and checkpoints come
every third epoch: the median leaves them out, `with_readings` has them in. lightly's side (`simclr_peer.py`) reads the
files in every epoch, with its transforms set to the ranges of `Views.photographs`, and takes its NTXentLoss. The limit
is the network alone, forward and backward on ready tensors.

lightly needs torchvision, which we do without: give the Python of an environment that has both, and the same torch.
Without it, only our side and the limit run. Each side has a process of its own, rounds take turns, seconds are the
processor's, ratios are of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from record import record
from simclr_peer import Turns, bare
from torch import nn

from headfirst.data import ImageSplit, prepare_split
from headfirst.nn import PretrainedBackbone, untrained_backbone
from headfirst.pretrain import Pretraining, SimCLR, train_backbone

IMAGES, BATCH = {32: 512, 96: 128}, {32: 128, 96: 64}
EPOCHS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer-python", help="of an environment with lightly, torchvision and this torch")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 96], choices=list(IMAGES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", nargs=3, metavar=("KIND", "IMAGES", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.serve:
        kind, folder, size = options.serve
        (ours if kind == "ours" else limit)(Path(folder), int(size))
        return
    with tempfile.TemporaryDirectory() as scratch:
        sizes = {f"{size} px": race(Path(scratch) / str(size), size, options) for size in options.sizes}
    record("simclr", {"rounds": options.rounds, "images": IMAGES, "batch_size": BATCH, "sizes": sizes})


def race(folder: Path, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Interleaved rounds of all sides on images of this size."""
    write_images(folder / "images", size)
    save_network(folder / "network.pt2", size)
    own = [sys.executable, __file__, "--serve"]
    commands = {
        "headfirst": [*own, "ours", str(folder / "images"), str(size)],
        "network alone": [*own, "limit", str(folder / "images"), str(size)],
    }
    if options.peer_python:
        peer = [options.peer_python, str(Path(__file__).with_name("simclr_peer.py"))]
        given = [str(folder / "images"), str(folder / "network.pt2"), str(size), str(BATCH[size])]
        commands["lightly"] = [*peer, "lightly", *given]
        commands["network alone, lightly's environment"] = [*peer, "bare", *given]
    sides = {name: start(command, peer="peer" in command[1]) for name, command in commands.items()}
    for side in sides.values():
        ask(side)  # warm-up
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, side in sides.items():
            answers[name].append(ask(side))
    for side in sides.values():
        side.communicate()
    return summary(answers)


def summary(answers: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    seconds = {name: [answer["seconds"] for answer in each] for name, each in answers.items()}
    count = answers["headfirst"][0]["images"]
    last = {name: each[-1] for name, each in answers.items()}
    found: dict[str, Any] = {
        "images_per_second": {name: round(count / statistics.median(each), 1) for name, each in seconds.items()},
        "with_readings": round(count / statistics.mean(seconds["headfirst"]), 1),
        "seconds": {name: [round(value, 3) for value in each] for name, each in seconds.items()},
        "headfirst_of_network_alone": ratio(seconds["network alone"], seconds["headfirst"]),
        "decoding_once_images_per_second": last["headfirst"]["decoded_per_second"],
        "peak_memory_mb": {name: round(answer["peak"] / 1024) for name, answer in last.items()},
        "memory_before_mb": {name: round(answer["before"] / 1024) for name, answer in last.items()},
    }
    if "lightly" in seconds:
        alone = "network alone, lightly's environment"
        found["headfirst_over_lightly"] = ratio(seconds["lightly"], seconds["headfirst"])
        found["lightly_of_network_alone"] = ratio(seconds[alone], seconds["lightly"])
        found["peer"] = {key: last["lightly"][key] for key in ("versions", "compiled_operators")}
    return found


def ratio(of: list[float], to: list[float]) -> float:
    """The median over the rounds."""
    return round(statistics.median(a / b for a, b in zip(of, to, strict=True)), 3)


def start(command: list[str], *, peer: bool) -> subprocess.Popen[str]:
    """A side; the peer's environment is its own, without our path."""
    environment = {key: value for key, value in os.environ.items() if not (peer and key == "PYTHONPATH")}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def ask(side: subprocess.Popen[str]) -> dict[str, Any]:
    """One round."""
    assert side.stdin is not None
    assert side.stdout is not None
    side.stdin.write("go\n")
    side.stdin.flush()
    return json.loads(side.stdout.readline())


def write_images(folder: Path, size: int) -> None:
    """Smooth colours and a little noise, as PNG."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for i in range(IMAGES[size]):
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((size, size))
        noisy = np.asarray(coarse, dtype=np.float64) + random.normal(0, 4, (size, size, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i:05d}.png")


def backbone(size: int) -> PretrainedBackbone:
    return untrained_backbone("small-resnet", seed=0, size=size)


def network(size: int) -> nn.Module:
    """What both sides train: the backbone and the projection."""
    learner = SimCLR().learner(backbone(size), seed=0, num_steps=1).train()
    learner.backbone.requires_grad_(True)
    return nn.Sequential(learner.backbone, learner.projector)


def save_network(path: Path, size: int) -> None:
    example = torch.zeros(2 * BATCH[size], 3, size, size)
    torch.export.save(torch.export.export(network(size), (example,)), path)


def ours(folder: Path, size: int) -> None:
    start = backbone(size)
    paths = sorted(folder.iterdir())
    split = ImageSplit(
        name="unlabelled",
        ids=tuple(path.name for path in paths),
        sources=tuple(paths),
        labels=np.full(len(paths), -1, dtype=np.int64),
        classes=(),
    )
    began = time.process_time()
    pool, _ = prepare_split(split, start.preprocessing, cache=folder.parent / "cache")
    decoded = round(len(pool) / (time.process_time() - began))
    recipe = Pretraining(pretext=SimCLR(), epochs=EPOCHS, batch_size=BATCH[size])
    a_round = len(pool) // BATCH[size]
    turns = Turns(images=a_round * BATCH[size], decoded_per_second=decoded)

    def told(stage: str, step: int, total: int) -> None:
        if stage.startswith("pre-training") and step % a_round == 0:
            turns.done()
            turns.wait()

    turns.wait()
    train_backbone(start, pool, recipe, progress=told)


def limit(folder: Path, size: int) -> None:
    bare(network(size), str(folder), size, BATCH[size])


if __name__ == "__main__":
    main()

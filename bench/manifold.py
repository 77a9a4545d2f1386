"""Precision, recall, density and coverage against prdc: time and memory.

    python bench/manifold.py --peer-python PATH [--images 10000 20000] [--features 64 512] [--rounds 3]

As many generated images as real ones, five neighbours. prdc gives all four from three whole distance matrices;
`density_coverage` and `precision_recall` are called one after the other, and take blocks of rows. Each contestant has a
process of its own and one thread, rounds take turns, seconds are the processor's, ratios are medians over rounds,
memory is the most resident memory that a round adds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from generator_peers import serve_pair
from record import record
from turns import race, speedup, summary

from headfirst.metrics import density_coverage, precision_recall

PEERS = Path(__file__).with_name("generator_peers.py")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--peer-python", help="of an environment with prdc")
    arguments.add_argument("--images", type=int, nargs="+", default=[10_000, 20_000])
    arguments.add_argument("--features", type=int, nargs="+", default=[64, 512])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.serve:
        name, images, features = options.serve
        serve_pair(OURS[name], int(images), int(features))
        return
    for images in options.images:
        for features in options.features:
            about = {"images": images, "features": features, "neighbours": 5, "threads": 1, "rounds": options.rounds}
            found = compare([str(images), str(features)], options)
            record(f"manifold-{images}-{features}", about | found)


def compare(size: list[str], options: argparse.Namespace) -> dict[str, object]:
    commands = {name: [sys.executable, __file__, "--serve", name, *size] for name in OURS}
    if options.peer_python:
        commands["prdc"] = [options.peer_python, str(PEERS), "prdc", *size]
    answers = race(commands, options.rounds)
    speedups = {ours: speedup(answers, ours, "prdc") for ours in OURS} if options.peer_python else {}
    return summary(answers) | {"speedup": speedups}


def two(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    found = density_coverage(torch.from_numpy(a), torch.from_numpy(b), 5)
    return {"density": found.density, "coverage": found.coverage}


def all_four(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    found = precision_recall(torch.from_numpy(a), torch.from_numpy(b), 5)
    return two(a, b) | {"precision": found.precision, "recall": found.recall}


OURS = {"density_coverage": two, "all four": all_four}


if __name__ == "__main__":
    main()

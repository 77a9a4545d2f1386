"""The kernel distance at 2,048 features against scikit-learn's kernel and against torch-fidelity's subsets.

    python bench/kernel.py [--peer-python PATH] [--images 5000] [--features 2048] [--rounds 3]

scikit-learn's way makes three whole kernel matrices by `polynomial_kernel` and averages them: the same number as ours,
without an interval. torch-fidelity averages over 100 subsets of 1,000, its default: another estimate of the same
number. Each contestant has a process of its own and one thread, rounds take turns, seconds are the processor's, ratios
are medians over rounds, memory is the most resident memory that a round adds.
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

from headfirst.metrics import kernel_distance

PEERS = Path(__file__).with_name("generator_peers.py")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--peer-python", help="of an environment with torch-fidelity")
    arguments.add_argument("--images", type=int, default=5000)
    arguments.add_argument("--features", type=int, default=2048)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.serve:
        serve_pair(ours, options.images, options.features)
        return
    size = [str(options.images), str(options.features)]
    own = [sys.executable, __file__, "--serve", "--images", size[0], "--features", size[1]]
    commands = {"headfirst": own, "scikit-learn": [sys.executable, str(PEERS), "sklearn-kernel", *size]}
    if options.peer_python:
        commands["torch-fidelity"] = [options.peer_python, str(PEERS), "fidelity-kernel", *size]
    answers = race(commands, options.rounds)
    record(
        "kernel",
        {
            "images": options.images,
            "features": options.features,
            "threads": 1,
            "rounds": options.rounds,
            **summary(answers),
            "speedup": {name: speedup(answers, "headfirst", name) for name in answers if name != "headfirst"},
        },
    )


def ours(a: np.ndarray, b: np.ndarray) -> float:
    return kernel_distance(torch.from_numpy(a), torch.from_numpy(b)).value


if __name__ == "__main__":
    main()

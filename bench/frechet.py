"""The Fréchet distance at 2,048 features against scipy.linalg.sqrtm and against torch-fidelity.

    python bench/frechet.py [--peer-python PATH] [--images 500 5000 10000] [--features 2048] [--rounds 3]

scipy's way takes two covariances by numpy.cov, the root of their product by scipy.linalg.sqrtm, and the real part of
its trace; torch-fidelity's is its own. `frechet_distance` gives the same value, and the corrected one and the interval
besides; `frechet_distance_gaussian` is given means and covariances by numpy, which are in its time, and gives the value
alone. torch-fidelity runs where `--peer-python` has it. Each contestant has a process of its own and one thread, rounds
take turns, seconds are the processor's, ratios are medians over rounds. Goal: four times faster.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import scipy.linalg  # noqa: F401  loads its BLAS, which `blas` lists
import torch
from generator_peers import serve_pair
from record import record
from threadpoolctl import threadpool_info
from turns import race, speedup, summary

from headfirst.metrics import frechet_distance, frechet_distance_gaussian

PEERS = Path(__file__).with_name("generator_peers.py")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--peer-python", help="of an environment with torch-fidelity")
    arguments.add_argument("--images", type=int, nargs="+", default=[500, 5000, 10_000])
    arguments.add_argument("--features", type=int, default=2048)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.serve:
        name, images, features = options.serve
        serve_pair(OURS[name], int(images), int(features))
        return
    blas = sorted({f"{pool['internal_api']} {pool.get('architecture', '')}".strip() for pool in threadpool_info()})
    for images in options.images:
        about = {"images": images, "features": options.features, "threads": 1, "rounds": options.rounds, "blas": blas}
        record(f"frechet-{images}", about | compare(images, options) | {"goals": {"speedup": 4.0}})


def compare(images: int, options: argparse.Namespace) -> dict[str, object]:
    size = [str(images), str(options.features)]
    commands = {name: [sys.executable, __file__, "--serve", name, *size] for name in OURS}
    commands["scipy.linalg.sqrtm"] = [sys.executable, str(PEERS), "scipy-root", *size]
    if options.peer_python:
        commands["torch-fidelity"] = [options.peer_python, str(PEERS), "fidelity-frechet", *size]
    answers = race(commands, options.rounds)
    value = {name: each[-1]["value"] for name, each in answers.items()}
    theirs = [name for name in answers if name not in OURS]
    return summary(answers) | {
        "speedup": {ours: {name: speedup(answers, ours, name) for name in theirs} for ours in OURS},
        "relative_difference": {
            name: float(f"{abs(other / value['frechet_distance'] - 1):.1e}") for name, other in value.items()
        },
    }


def with_interval(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(torch.from_numpy(a), torch.from_numpy(b)).value


def value_alone(a: np.ndarray, b: np.ndarray) -> float:
    parts = [torch.from_numpy(part) for x in (a, b) for part in (x.mean(axis=0), np.cov(x, rowvar=False))]
    return frechet_distance_gaussian(*parts).value


OURS = {"frechet_distance": with_interval, "frechet_distance_gaussian": value_alone}


if __name__ == "__main__":
    main()

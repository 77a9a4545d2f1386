"""The Fréchet distance at 2,048 features against the usual recipe with scipy.linalg.sqrtm.

    python bench/frechet.py [--features 2048] [--images 5000] [--threads 1] [--rounds 3]

The usual recipe takes two covariances by numpy.cov, the root of their product by scipy.linalg.sqrtm, and the real part
of its trace. Ours gives the same value, and the corrected one and the interval besides. Features are random, with a
spread that falls as 1/√dimension. Each round runs both in turn; the clock is the process's processor time, which a
neighbour's load does not enter, and wall-clock beside it; the ratio is a median over rounds. The most resident memory
each adds is measured in a process of its own. Goal: four times faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy
import scipy.linalg
import torch
from record import record
from threadpoolctl import threadpool_info, threadpool_limits

from headfirst.metrics import frechet_distance

GOAL = 4.0


@dataclass(frozen=True)
class Timed:
    value: float
    processor: float
    wall: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--features", type=int, default=2048)
    arguments.add_argument("--images", type=int, default=5000)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--print", action="store_true", help="print the figures, save none")
    arguments.add_argument("--memory", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        if options.memory:
            print(json.dumps(added_memory(CONTESTANTS[options.memory], options.images, options.features)))
            return
        figures = compare(options.images, options.features, options.rounds)
    figures |= {
        "images": options.images,
        "features": options.features,
        "threads": options.threads,
        "rounds": options.rounds,
        "blas": sorted(
            {f"{pool['internal_api']} {pool.get('architecture', '')}".strip() for pool in threadpool_info()}
        ),
        "scipy": scipy.__version__,
        "peak_added_bytes": {name: in_own_process(name, options) for name in CONTESTANTS},
        "goals": {"speedup": GOAL},
    }
    if options.print:
        print(json.dumps(figures, indent=2))
    else:
        record("frechet", figures)


def compare(images: int, features: int, rounds: int) -> dict[str, object]:
    a, b = samples(images, features)
    runs: dict[str, list[Timed]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds):
        for name, contestant in CONTESTANTS.items():
            runs[name].append(timed(contestant, a, b))
    ours, theirs = runs["headfirst"], runs["scipy.linalg.sqrtm"]
    return {
        "processor_seconds": {name: [round(run.processor, 2) for run in found] for name, found in runs.items()},
        "wall_seconds": {name: [round(run.wall, 2) for run in found] for name, found in runs.items()},
        "speedup": round(statistics.median(t.processor / o.processor for o, t in zip(ours, theirs, strict=True)), 2),
        "relative_difference": float(f"{abs(ours[0].value / theirs[0].value - 1):.1e}"),
    }


def samples(images: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    scale = np.arange(1, features + 1) ** -0.5
    a, b = (random.normal(size=(images, features)) * scale for _ in range(2))
    return a, 1.1 * b + 0.1 * scale


def ours(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(torch.from_numpy(a), torch.from_numpy(b)).value


def usual_recipe(a: np.ndarray, b: np.ndarray) -> float:
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    shift = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    return float(shift + np.trace(cov_a) + np.trace(cov_b) - 2 * np.trace(scipy.linalg.sqrtm(cov_a @ cov_b)).real)


CONTESTANTS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "headfirst": ours,
    "scipy.linalg.sqrtm": usual_recipe,
}


def timed(contestant: Callable[[np.ndarray, np.ndarray], float], a: np.ndarray, b: np.ndarray) -> Timed:
    start, wall = time.process_time(), time.perf_counter()
    value = contestant(a, b)
    return Timed(value, time.process_time() - start, time.perf_counter() - wall)


def in_own_process(name: str, options: argparse.Namespace) -> int:
    command = [sys.executable, __file__, "--memory", name]
    command += [f"--{key}={getattr(options, key)}" for key in ("features", "images", "threads")]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def added_memory(contestant: Callable[[np.ndarray, np.ndarray], float], images: int, features: int) -> int:
    """The most resident memory beyond what the features and the libraries take, in bytes."""
    contestant(*samples(64, 32))
    a, b = samples(images, features)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    contestant(a, b)
    return resident("VmHWM") - before


def resident(field: str) -> int:
    """Bytes, as the system counts them: no thread of ours could look while LAPACK holds the interpreter."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"this system's /proc/self/status has no {field}")


if __name__ == "__main__":
    main()

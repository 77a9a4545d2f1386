"""Exact search against what one writes in torch: normalise, multiply, topk.

    python bench/retrieval.py [--num 1000000] [--rounds 3]

A million random features of 512 numbers on disk (2 GB, removed afterwards), read through a memory map; 1 and 100
queries, 12 neighbours; one thread. Each round runs both in turn; the clock is the process's processor time, the ratio a
median over rounds. The plain way needs a normalised copy in memory; ours also gives the same bits for any blocks and
threads. Goal: no slower. The share of neighbours on which both agree, and the most anonymous memory that each adds, are
recorded too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from record import record
from torch import Tensor
from torch.nn import functional as F

from headfirst.features import nearest

NUM_FEATURES, K = 512, 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--num", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        features = on_disk(Path(folder) / "features.npy", options.num)
        contests = {q: compare(features[:q].clone(), features, options.rounds) for q in (1, 100)}
    record("retrieval", {"features": [options.num, NUM_FEATURES], "k": K, "threads": 1, "queries": contests})


def compare(queries: Tensor, features: Tensor, rounds: int) -> dict[str, float]:
    ours, plain = [], []
    for _ in range(rounds):
        ours.append(run(lambda: nearest(queries, features, K).indices))
        plain.append(run(lambda: (F.normalize(queries) @ F.normalize(features).T).topk(K).indices))
    same = (ours[0].result.sort().values == plain[0].result.sort().values).double().mean().item()
    return {
        "ratio": statistics.median(b.seconds / a.seconds for a, b in zip(ours, plain, strict=True)),
        "seconds": statistics.median(one.seconds for one in ours),
        "plain_seconds": statistics.median(one.seconds for one in plain),
        "memory_mb": max(one.memory for one in ours) / 1e6,
        "plain_memory_mb": max(one.memory for one in plain) / 1e6,
        "same_neighbours": same,
    }


@dataclass(frozen=True)
class Run:
    """What a call gave, its seconds of processor time, and how many bytes of anonymous memory it added at most."""

    result: Tensor
    seconds: float
    memory: int


def run(call: Callable[[], Tensor]) -> Run:
    before, peak, over = anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.02):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.process_time()
    result = call()
    seconds = time.process_time() - start
    over.set()
    watcher.join()
    return Run(result=result, seconds=seconds, memory=max(0, peak - before))


def anonymous() -> int:
    """Bytes of this process that no file backs."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])


def on_disk(path: Path, num: int) -> Tensor:
    """(num, 512) float32 normal numbers, memory-mapped."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(num, NUM_FEATURES))
    generator = np.random.default_rng(0)
    for begin in range(0, num, 50_000):
        array[begin : begin + 50_000] = generator.standard_normal((min(50_000, num - begin), NUM_FEATURES), np.float32)
    array.flush()
    return torch.from_numpy(np.load(path, mmap_mode="c"))


if __name__ == "__main__":
    main()

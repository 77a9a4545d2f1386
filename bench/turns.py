"""Contestants in processes of their own that take turns: each round is answered by its seconds and its memory.

One thread each. Seconds are the processor's, which a neighbour's load does not enter; wall-clock stands beside them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}


def race(commands: dict[str, list[str]], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """The answers of every contestant, by round."""
    sides = {name: _start(command) for name, command in commands.items()}
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, side in sides.items():
            answers[name].append(_ask(name, side))
    for side in sides.values():
        side.communicate()
    return answers


def serve(contestant: Callable[[], Any], *, warm_up: Callable[[], Any] | None = None, **about: Any) -> None:
    """Runs `contestant` whenever a line comes on standard input and answers with a line of JSON.

    `value` is what it returned last; `added` the most resident memory in bytes beyond what there was before the round,
    as the system counts it: no thread of ours could look while LAPACK holds the interpreter.
    """
    (warm_up or contestant)()
    while sys.stdin.readline():
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        start, wall = time.process_time(), time.perf_counter()
        value = contestant()
        seconds, wall = time.process_time() - start, time.perf_counter() - wall
        peak = resident("VmHWM")
        answer = {"seconds": seconds, "wall": wall, "added": max(peak - before, 0), "peak": peak, "value": value}
        print(json.dumps(answer | about), flush=True)


def resident(field: str) -> int:
    """Of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"this system's /proc/self/status has no {field}")


def summary(answers: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    return {
        "seconds": {name: [float(f"{answer['seconds']:.4g}") for answer in each] for name, each in answers.items()},
        "wall_seconds": {name: [float(f"{answer['wall']:.4g}") for answer in each] for name, each in answers.items()},
        "added_memory_mb": {name: round(max(a["added"] for a in each) / 1e6, 1) for name, each in answers.items()},
        "value": {name: each[-1]["value"] for name, each in answers.items()},
        "peers": {name: each[-1]["versions"] for name, each in answers.items() if "versions" in each[-1]},
    }


def speedup(answers: dict[str, list[dict[str, Any]]], ours: str, theirs: str) -> float:
    """Their seconds over ours, the median over the rounds."""
    pairs = zip(answers[theirs], answers[ours], strict=True)
    return round(statistics.median(t["seconds"] / o["seconds"] for t, o in pairs), 2)


def _start(command: list[str]) -> subprocess.Popen[str]:
    """A side; where the Python is another, that environment is its own, without our path."""
    ours = command[0] == sys.executable
    environment = {key: value for key, value in os.environ.items() if ours or key != "PYTHONPATH"} | ONE_THREAD
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def _ask(name: str, side: subprocess.Popen[str]) -> dict[str, Any]:
    assert side.stdin is not None
    assert side.stdout is not None
    side.stdin.write("go\n")
    side.stdin.flush()
    line = side.stdout.readline()
    if not line:
        raise SystemExit(f"{name} ended before its answer; its error stands above")
    return json.loads(line)

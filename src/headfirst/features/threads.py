"""How many cores are actually free, and torch running on that many for a while."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_SAMPLE_SECONDS = 0.1


def free_threads() -> int:
    """Cores this process can have to itself, at least 1.

    The cores it may run on (affinity), no more than its control group's quota, less those that other work
    keeps busy. Busy is sampled over a tenth of a second in which this process sleeps: the load average would
    count its own past work as someone else's.
    """
    cores = _affinity()
    return max(1, math.floor(min(_quota(), round(len(cores) - _busy(cores)))))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """torch computes on `count` threads inside, and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def kept_threads(work: Path) -> int:
    """As many threads as the work in this folder began with: on another number sums round otherwise, and what was begun
    is no longer what the same command would begin."""
    record = work / "threads"
    if not record.is_file() or not record.read_text():  # killed between making the file and writing it
        record.write_text(str(torch.get_num_threads()))
    return int(record.read_text())


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _quota(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float:
    """Cores' worth of time the control groups grant, at least 1; infinity where there is no limit.

    A quota anywhere between the root and the process's own group holds, so the smallest counts.
    """
    quotas = [math.inf]
    for line in _read(membership).splitlines():
        _, controllers, group = line.split(":", 2)
        base = root if not controllers else root / "cpu"
        if controllers and "cpu" not in controllers.split(","):
            continue
        own = base / group.lstrip("/")
        quotas += [_group_quota(folder) for folder in (own, *own.parents) if folder.is_relative_to(base)]
    return max(1.0, min(quotas))


def _group_quota(folder: Path) -> float:
    version_2 = _read(folder / "cpu.max").split()
    if len(version_2) == 2 and version_2[0] != "max":
        return int(version_2[0]) / int(version_2[1])
    quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota and period and int(quota) > 0 else math.inf


def _busy(cores: set[int]) -> float:
    """How many of `cores` were busy, on average, while this thread slept; 0 where the system does not say."""
    before = _core_times(cores)
    if not before:
        return 0.0
    time.sleep(_SAMPLE_SECONDS)
    after = _core_times(cores)
    busy = 0.0
    for core, (idle, total) in after.items():
        elapsed = total - before[core][1] if core in before else 0
        if elapsed > 0:
            busy += 1 - (idle - before[core][0]) / elapsed
    return busy


def _core_times(cores: set[int]) -> dict[int, tuple[int, int]]:
    """core → (idle, total) ticks since boot."""
    times = {}
    for line in _read(Path("/proc/stat")).splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            ticks = [int(field) for field in fields[:8]]  # user nice system idle iowait irq softirq steal
            times[int(name[3:])] = (ticks[3] + ticks[4], sum(ticks))
    return times


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""

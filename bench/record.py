"""What a benchmark writes down: the figures, the machine and the versions, as JSON, printed and saved."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any


def record(name: str, figures: dict[str, Any]) -> None:
    """Prints the figures and writes them to bench/results/<name>.json."""
    result = {"benchmark": name, **figures, "machine": machine(), "versions": versions()}
    text = json.dumps(result, indent=2)
    print(text)
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def peak_memory() -> int:
    """Of this process so far, in kB; `ru_maxrss` would begin at that of the process which started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def machine() -> dict[str, Any]:
    """Processor, cores and the load that was there besides the benchmark's own."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {"cpu": model, "cores": os.cpu_count(), "load": os.getloadavg(), "system": platform.system()}


def versions() -> dict[str, str]:
    """Of everything that decides the figures."""
    packages = ("headfirst", "torch", "transformers", "Pillow", "simplejpeg", "numpy", "scikit-learn", "scipy")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

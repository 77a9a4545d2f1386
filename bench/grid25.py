"""The 25-mode grid: what `GridGAN()` covers over ten seeds, and what `GridGAN.collapsing()` loses.

    python bench/grid25.py --work FOLDER [--seeds 10] [--processes 1]      stopped, the same command goes on

A mode is covered by 10 of 2,500 points within three standard deviations. An alarm is a collapse that a training reports
of itself, without knowing the modes. Seconds are processor seconds on one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from record import record

from headfirst.features import side_by_side
from headfirst.generate import GridGAN


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--work", type=Path, required=True, help="keeps each training's figures")
    arguments.add_argument("--seeds", type=int, default=10)
    arguments.add_argument("--processes", type=int, default=1)
    options = arguments.parse_args()
    torch.set_num_threads(options.processes)  # so many trainings side by side, each on one thread
    options.work.mkdir(parents=True, exist_ok=True)
    recipes = {"default": GridGAN(), "collapsing": GridGAN.collapsing()}
    found = {name: measured(recipe, options.seeds, options.work / name) for name, recipe in recipes.items()}
    record("grid25", {"seeds": options.seeds, "processes": options.processes, **found})


def once(recipe: GridGAN, seed: int, kept: Path) -> dict[str, Any]:
    """A seed's reading, what its training reported, and processor seconds."""
    if kept.is_file() and (before := json.loads(kept.read_text()))["recipe"] == repr(recipe):
        return before["found"]
    began = time.process_time()
    result = recipe.fit(seed=seed)
    seconds = round(time.process_time() - began, 1)
    found = {"seed": seed, **asdict(result.reading), "events": result.events, "seconds": seconds}
    print(found, flush=True)
    kept.write_text(json.dumps({"recipe": repr(recipe), "found": found}))
    return found


def measured(recipe: GridGAN, seeds: int, kept: Path) -> dict[str, Any]:
    """Every seed's reading and processor seconds, and what they come to."""
    found = side_by_side(
        [partial(once, recipe, seed, Path(f"{kept}-{seed}.json")) for seed in range(seeds)], stage="games"
    )
    modes = [each["modes"] for each in found]
    return {
        "recipe": repr(recipe),
        "seeds_with_all_modes": sum(m == 25 for m in modes),
        "modes_least_median_most": [min(modes), statistics.median(modes), max(modes)],
        "median_share": statistics.median(each["share"] for each in found),
        "median_class_weight_distance": statistics.median(each["class_weight_distance"] for each in found),
        "median_spread_ratio": statistics.median(each["spread_ratio"] for each in found),
        "seeds_with_an_alarm": sum(any("collapse" in event for event in each["events"]) for each in found),
        "median_seconds": statistics.median(each["seconds"] for each in found),
        "readings": found,
    }


if __name__ == "__main__":
    main()

"""One step of a moving average of weights: `update_average` against diffusers' `EMAModel.step`.

    python bench/averages.py [--peer-python PATH] [--rounds 9]

On the shapes of a ResNet-50 (161 tensors, 25.6 million numbers) and of a small network (40 tensors, a million).
diffusers runs as it is by default, with `foreach=True`, and each with freed memory kept in the process (glibc gives
large blocks back by default, and its temporary tensors then fault in anew). `lerp_` is our loop before, tensor by
tensor. Each contestant has a process of its own and one thread, rounds take turns, seconds are the processor's, ratios
are medians over rounds. Goal: five times diffusers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from generator_peers import weights
from record import record
from torch import Tensor
from turns import race, serve, speedup, summary

from headfirst.train import update_average

PEERS = Path(__file__).with_name("generator_peers.py")
STEPS = {"40 tensors, 1 million": (0, 500), "ResNet-50": (50, 20)}
KEEP = ["env", "MALLOC_MMAP_MAX_=0", f"MALLOC_TRIM_THRESHOLD_={2**31 - 1}", f"MALLOC_TOP_PAD_={2**26}"]
DECAY = 0.999


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--peer-python", help="of an environment with diffusers")
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.serve:
        name, which, steps = options.serve
        averaged(OURS[name], int(which), int(steps))
        return
    record(
        "averages",
        {
            "threads": 1,
            "rounds": options.rounds,
            "sizes": {name: compare(*size, options) for name, size in STEPS.items()},
            "goals": {"speedup": 5.0},
        },
    )


def compare(which: int, steps: int, options: argparse.Namespace) -> dict[str, object]:
    size = [str(which), str(steps)]
    commands = {name: [sys.executable, __file__, "--serve", name, *size] for name in OURS}
    if options.peer_python:
        for foreach in ("diffusers", "diffusers-foreach"):
            commands[foreach] = [options.peer_python, str(PEERS), foreach, *size]
            commands[f"{foreach}, freed memory kept"] = [*KEEP, *commands[foreach]]
    answers = race(commands, options.rounds)
    others = [name for name in answers if name != "update_average"]
    return {
        "steps_a_round": steps,
        **summary(answers),
        "speedup": {name: speedup(answers, "update_average", name) for name in others},
    }


def averaged(step: Callable[[list[Tensor], list[torch.nn.Parameter]], None], which: int, steps: int) -> None:
    parameters = weights(which)
    averages = [parameter.detach().clone() for parameter in parameters]

    def run() -> None:
        for _ in range(steps):
            step(averages, parameters)

    serve(run)


def one_call(averages: list[Tensor], parameters: list[torch.nn.Parameter]) -> None:
    update_average(averages, parameters, DECAY)


def one_by_one(averages: list[Tensor], parameters: list[torch.nn.Parameter]) -> None:
    for average, parameter in zip(averages, parameters, strict=True):
        average.lerp_(parameter.detach(), 1 - DECAY)


OURS = {"update_average": one_call, "lerp_": one_by_one}


if __name__ == "__main__":
    main()

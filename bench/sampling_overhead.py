"""What a sampling loop costs beside its network: our samplers against diffusers' schedulers, a step each.

    python bench/sampling_overhead.py --peer-python PATH [--rounds 5]

The network costs nothing: it returns a stored tensor. 50 steps of 1 and of 64 images of 3 x 32 x 32, float32; levels or
timesteps are made anew for each sample, as they always are. Each side has a process of its own and one thread, rounds
take turns, seconds are the processor's, ratios are medians over rounds. Goal: five times less.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import torch
from record import record
from sampler_peers import timed
from torch import Tensor
from turns import race, serve

from headfirst.generate import diffusion
from headfirst.generate.diffusion import linear_alphas_bar, vp_sigmas

PEER = Path(__file__).with_name("sampler_peers.py")
STEPS = 50
ALPHAS_BAR = linear_alphas_bar(1000)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--peer-python", help="of an environment with diffusers")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.serve:
        serve(lambda: timed(ours, STEPS))
        return
    commands = {"headfirst": [sys.executable, __file__, "--serve"]}
    if options.peer_python:
        commands["diffusers"] = [options.peer_python, str(PEER), "overhead", str(STEPS)]
    answers = race(commands, options.rounds)
    values = {side: [answer["value"] for answer in of] for side, of in answers.items()}
    cases = list(values["headfirst"][0])
    found: dict[str, object] = {
        "threads": 1,
        "rounds": options.rounds,
        "steps": STEPS,
        "microseconds_a_step": {
            case: {side: [float(f"{value[case]:.3g}") for value in of] for side, of in values.items()} for case in cases
        },
        "goals": {"speedup": 5.0},
    }
    if options.peer_python:
        pairs = list(zip(values["headfirst"], values["diffusers"], strict=True))
        found["speedup"] = {case: round(statistics.median(t[case] / o[case] for o, t in pairs), 2) for case in cases}
        found["peers"] = answers["diffusers"][-1]["versions"]
    record("sampling_overhead", found)


def ours(family: str, x: Tensor, answer: Tensor, steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    getattr(diffusion, family)(lambda x, sigma: answer, x, vp_sigmas(ALPHAS_BAR, steps), generator=generator)


if __name__ == "__main__":
    main()

"""What a sampling loop costs beside its network: our samplers against diffusers' schedulers, a step each.

    python bench/sampling_overhead.py --peer-python PATH [--rounds 7]

The network costs nothing: it returns a stored tensor. 50 steps of 1 and of 64 images of 3 x 32 x 32, float32, levels or
timesteps made anew each time, as every sample does. Each side has a process of its own and one thread, rounds take
turns, seconds are the processor's, ratios are medians over rounds. Goal: five times less.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from record import record
from turns import race, serve, speedup, summary

from headfirst.generate import diffusion
from headfirst.generate.diffusion import linear_alphas_bar, vp_sigmas

PEER = Path(__file__).with_name("sampler_peers.py")
FAMILIES = ("euler", "ddim", "heun", "dpm_pp_2m", "dpm_pp_3m", "plms", "ddpm")
BATCHES = (1, 64)
STEPS = 50
REPEATS = {1: 20, 64: 2}
"""Samples a round."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--peer-python", help="of an environment with diffusers")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.serve:
        family, batch, repeats = options.serve
        ours(family, int(batch), int(repeats))
        return
    found = {
        f"{family}, {batch}": compare(family, batch, options.peer_python, options.rounds)
        for family in FAMILIES
        for batch in BATCHES
    }
    record(
        "sampling_overhead",
        {
            "threads": 1,
            "rounds": options.rounds,
            "steps": STEPS,
            "samples_a_round": REPEATS,
            "speedup": {name: each["speedup"] for name, each in found.items()},
            "runs": found,
            "goals": {"speedup": 5.0},
        },
    )


def compare(family: str, batch: int, python: str | None, rounds: int) -> dict[str, object]:
    repeats = str(REPEATS[batch])
    commands = {"headfirst": [sys.executable, __file__, "--serve", family, str(batch), repeats]}
    if python:
        commands["diffusers"] = [python, str(PEER), "overhead", family, str(batch), str(STEPS), repeats]
    answers = race(commands, rounds)
    steps = STEPS * REPEATS[batch]
    each = {name: min(answer["seconds"] for answer in of) / steps for name, of in answers.items()}
    return {
        **summary(answers),
        "microseconds_a_step": {name: float(f"{1e6 * seconds:.3g}") for name, seconds in each.items()},
        "speedup": speedup(answers, "headfirst", "diffusers") if python else None,
    }


def ours(family: str, batch: int, repeats: int) -> None:
    sampler = getattr(diffusion, family)
    x = torch.randn(batch, 3, 32, 32)
    answer = torch.randn_like(x)
    generator = torch.Generator().manual_seed(0)
    alphas_bar = linear_alphas_bar(1000)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(repeats):
                sampler(lambda x, sigma: answer, x, vp_sigmas(alphas_bar, STEPS), generator=generator)

    serve(run)


if __name__ == "__main__":
    main()

"""`kill -9` of a pre-training at random moments: the same command again must end in the bits of an undisturbed run.

    python bench/kills.py [--runs 20] [--while-writing 3] [--seed 0]

A run is `train_backbone` with SimCLR on embedded digits, in a process of its own, forked from one that has imported the
libraries and done nothing. It saves twice a second. It is killed once to three times, each at a moment uniform over the
processor time that an undisturbed run has left to do, and the same call is made again, until it ends. Further runs are
killed the moment a checkpoint that is being written is seen, and count where its unfinished folder is found afterwards.
Compared are the sha256 of the final weights and the readings on the way. A step is repeated where it was finished
before a kill and had to be done once more. Needs Linux's /proc.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from record import record

SAVE_EVERY = 0.5  # seconds
MOST_KILLS = 3
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["headfirst.pretrain", "sklearn.datasets", "transformers.models.bit.modeling_bit"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--while-writing", type=int, default=3, help="runs killed in the middle of a checkpoint")
    parser.add_argument("--digits", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        undisturbed, seconds = timed(Path(scratch) / "undisturbed", options)
        print(f"undisturbed: {undisturbed['steps']} steps, {seconds:.1f} s", file=sys.stderr)
        at_random, missed, in_writing = [], [], []  # missed: ended before they were to be killed
        while len(at_random) < options.runs:
            shares = [chance.random() for _ in range(chance.randint(1, MOST_KILLS))]
            waits = [partial(wait, share, seconds, undisturbed["steps"]) for share in shares]
            run = disturbed(Path(scratch) / f"run-{len(at_random)}-{len(missed)}", waits, undisturbed, options)
            (at_random if run["killed_after_steps"] else missed).append(run)
        for number in range(options.while_writing):
            waits = [partial(wait_for_writing, chance.random() / 2, seconds, undisturbed["steps"])]
            in_writing.append(disturbed(Path(scratch) / f"writing-{number}", waits, undisturbed, options))
    both = at_random + in_writing
    record(
        "kills",
        {
            **vars(options),
            "checkpoint_seconds": SAVE_EVERY,
            "steps": undisturbed["steps"],
            "undisturbed_processor_seconds": round(seconds, 1),
            "sha256": undisturbed["sha256"],
            "runs_with_these_bits": f"{sum(run['same_weights'] for run in both)} of {len(both)}",
            "runs_with_these_readings": f"{sum(run['same_readings'] for run in both)} of {len(both)}",
            "kills": sum(len(run["killed_after_steps"]) for run in both),
            "kills_in_writing": sum(run["unfinished_checkpoints"] for run in both),
            "repeated_steps": sum(run["repeated_steps"] for run in both),
            "killed_at_random": at_random,
            "killed_while_writing": in_writing,
        },
    )


def train(folder: Path, options: argparse.Namespace) -> None:
    """What is killed: a pre-training that notes every finished step, and how it ended."""
    import torch

    from headfirst.data import Handwriting, ImageSet, unlabelled_pool
    from headfirst.nn import untrained_backbone
    from headfirst.pretrain import Pretraining, SimCLR, train_backbone

    torch.set_num_threads(1)
    pool = unlabelled_pool(ImageSet.digits()).take(range(options.digits))
    start = untrained_backbone("small-resnet", seed=0, width=32, mean=(0.18,) * 3, std=(0.32,) * 3)
    recipe = Pretraining(
        pretext=SimCLR(), epochs=options.epochs, batch_size=options.batch_size, mirror=False, views=Handwriting()
    )
    steps = folder.with_suffix(".steps").open("a", buffering=1)
    started(folder, os.getpid()).touch()
    done = train_backbone(
        start,
        pool,
        recipe,
        directory=folder,
        checkpoint_seconds=SAVE_EVERY,
        progress=lambda stage, step, total: None if "pre-training" not in stage else note(steps, step),
    )
    weights = hashlib.sha256()
    for name, tensor in sorted(done.backbone.state_dict().items()):
        weights.update(name.encode() + tensor.contiguous().numpy().tobytes())
    readings = [asdict(reading) for reading in done.readings]
    said = {"sha256": weights.hexdigest(), "steps": done.record.steps, "readings": readings}
    folder.with_suffix(".json").write_text(json.dumps(said))


def started(folder: Path, process: int | None) -> Path:
    """Is there once this process calls the training."""
    return folder.with_suffix(f".{process}")


def note(file: Any, step: int) -> None:
    file.write(f"{step}\n")


def start(folder: Path, options: argparse.Namespace) -> BaseProcess:
    process = FORKED.Process(target=train, args=(folder, options))
    process.start()
    return process


def outcome(folder: Path, process: BaseProcess) -> dict[str, Any]:
    """What a process that ended by itself says."""
    process.join()
    if process.exitcode:
        raise SystemExit(f"the training ended with {process.exitcode} and was not killed; it must go on after a kill")
    return json.loads(folder.with_suffix(".json").read_text())


def timed(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], float]:
    """An undisturbed run, and its processor seconds."""
    process = start(folder, options)
    began = last = wait_for_start(folder, process)
    while process.is_alive():
        last = processor_seconds(process)
        time.sleep(0.02)
    return outcome(folder, process), last - began


def disturbed(
    folder: Path, waits: list[Callable[[Path, BaseProcess], None]], undisturbed: dict[str, Any],
    options: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    """A run that is killed after each of these waits, unless it has ended by then, and then left alone."""
    killed_after, unfinished = [], 0
    for waiting in waits:
        left, process = newest_unfinished(folder), start(folder, options)
        waiting(folder, process)
        process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            break
        killed_after.append(noted(folder)[-1] if noted(folder) else 0)
        unfinished += newest_unfinished(folder) > left
    end = outcome(folder, start(folder, options))
    run = {
        "killed_after_steps": killed_after,
        "unfinished_checkpoints": unfinished,
        "repeated_steps": len(noted(folder)) - end["steps"],
        "same_weights": end["sha256"] == undisturbed["sha256"],
        "same_readings": end["readings"] == undisturbed["readings"],
    }
    print(f"{folder.name}: {run}", file=sys.stderr)
    return run


def newest_unfinished(folder: Path) -> int:
    """When the last of those was begun that a kill left unfinished, in nanoseconds; 0 where there is none."""
    return max((each.stat().st_mtime_ns for each in folder.glob("attempt-*/step-*.tmp")), default=0)


def noted(folder: Path) -> list[int]:
    """The steps that were finished, in order."""
    path = folder.with_suffix(".steps")
    return [int(line) for line in path.read_text().splitlines()] if path.is_file() else []


def processor_seconds(process: BaseProcess) -> float:
    """Of its main thread, which computes."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9


def wait_for_start(folder: Path, process: BaseProcess) -> float:
    """Until the training is called; the processor seconds by then."""
    mark = started(folder, process.pid)
    while not mark.is_file() and process.is_alive():
        time.sleep(0.002)
    return processor_seconds(process) if process.is_alive() else 0.0


def wait(share: float, seconds: float, steps: int, folder: Path, process: BaseProcess) -> None:
    """For this share of what is left to do."""
    left = seconds * (1 - max(noted(folder), default=0) / (steps + 2))  # what follows the last step is worth two
    began = wait_for_start(folder, process)
    while process.is_alive() and processor_seconds(process) - began < share * left:
        time.sleep(0.002)


def wait_for_writing(share: float, seconds: float, steps: int, folder: Path, process: BaseProcess) -> None:
    """For this share, and then until a checkpoint is being written."""
    wait(share, seconds, steps, folder, process)
    while process.is_alive() and not newest_unfinished(folder):
        time.sleep(0.0002)


if __name__ == "__main__":
    main()

"""`kill -9` of a pre-training at random moments: the same command again must end in the bits of an undisturbed run.

    python bench/kills.py [--runs 20] [--while-writing 3] [--seed 0]

A run is `train_backbone` with SimCLR on embedded digits, in a process of its own, which saves twice a second. It is
killed once to three times, each at a moment uniform over the time of an undisturbed one from its first file on, and the
same command is given again until it ends. Further runs are killed the moment a checkpoint that is being written is
seen, and count where its unfinished folder is found afterwards. Compared are the sha256 of the final weights and the
readings on the way. A step is repeated where it was finished before a kill and had to be done once more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

SAVE_EVERY = 0.5  # seconds
MOST_KILLS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--while-writing", type=int, default=3, help="runs killed in the middle of a checkpoint")
    parser.add_argument("--digits", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--train", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        print(json.dumps(train(options.train, options)))
        return
    from record import record

    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        undisturbed, seconds = timed(Path(scratch) / "undisturbed", options)
        print(f"undisturbed: {undisturbed['steps']} steps, {seconds:.1f} s", file=sys.stderr)
        at_random, in_writing = [], []
        for number in range(options.runs):
            moments = [chance.uniform(0, seconds) for _ in range(chance.randint(1, MOST_KILLS))]
            waits = [partial(wait, moment) for moment in moments]
            at_random.append(disturbed(Path(scratch) / f"run-{number}", waits, undisturbed, options))
        for number in range(options.while_writing):
            waits = [partial(wait_for_writing, chance.uniform(0, seconds / 2))]
            in_writing.append(disturbed(Path(scratch) / f"writing-{number}", waits, undisturbed, options))
    both = at_random + in_writing
    record(
        "kills",
        {
            **{key: value for key, value in vars(options).items() if key != "train"},
            "checkpoint_seconds": SAVE_EVERY,
            "steps": undisturbed["steps"],
            "undisturbed_seconds": round(seconds, 1),
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


def train(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The command that is killed: a pre-training that notes every finished step, and says how it ended."""
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
    return {"sha256": weights.hexdigest(), "steps": done.record.steps, "readings": readings}


def note(file: Any, step: int) -> None:
    file.write(f"{step}\n")


def start(folder: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    choices = ("digits", "epochs", "batch_size")
    given = [text for name in choices for text in (f"--{name.replace('_', '-')}", str(getattr(options, name)))]
    return subprocess.Popen([sys.executable, __file__, "--train", str(folder), *given], stdout=subprocess.PIPE)


def outcome(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What a process that ended by itself says."""
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the training ended with {process.returncode} and was not killed; it must go on after a kill")
    return json.loads(said)


def timed(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], float]:
    """An undisturbed run, and its seconds from its first file on."""
    process = start(folder, options)
    began = wait_for_folder(folder, process)
    return outcome(process), time.monotonic() - began


def disturbed(
    folder: Path, waits: list[Callable[[Path, subprocess.Popen[bytes]], None]], undisturbed: dict[str, Any],
    options: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    """A run that is killed after each of these waits, unless it has ended by then, and then left alone."""
    killed_after, unfinished = [], 0
    for waiting in waits:
        left, process = newest_unfinished(folder), start(folder, options)
        waiting(folder, process)
        process.kill()
        if process.wait() != -9:
            break
        process.communicate()
        killed_after.append(noted(folder)[-1] if noted(folder) else 0)
        unfinished += newest_unfinished(folder) > left
    end = outcome(start(folder, options))
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


def wait_for_folder(folder: Path, process: subprocess.Popen[bytes]) -> float:
    """When it is there: from here on there is something to lose."""
    while not folder.is_dir() and process.poll() is None:
        time.sleep(0.002)
    return time.monotonic()


def wait(seconds: float, folder: Path, process: subprocess.Popen[bytes]) -> None:
    began = wait_for_folder(folder, process)
    while time.monotonic() - began < seconds and process.poll() is None:
        time.sleep(0.002)


def wait_for_writing(seconds: float, folder: Path, process: subprocess.Popen[bytes]) -> None:
    """At least so long, then until a checkpoint is being written."""
    wait(seconds, folder, process)
    while process.poll() is None and not any(folder.glob("attempt-*/step-*.tmp")):
        time.sleep(0.0002)


if __name__ == "__main__":
    main()

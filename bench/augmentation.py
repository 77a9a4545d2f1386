"""Do generated images help on the digits? No, VAE and GAN images with few labels a class: gain at home and away.

    python bench/augmentation.py --work FOLDER          on one core; stopped, the same command goes on

For each number of labels and each generator: the gate of `headfirst augment` as a user meets it, three folds and three
seeds, on `builtin/glyph`. The gain at every ratio is measured on test (MNIST) and on the shift (UCI), whatever the gate
says. `STEPS` gives every training of a generator the same number of steps, whatever the number of images.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from record import record

from headfirst.data import ImageSet
from headfirst.generate import GAN, VAE
from headfirst.nn import load_backbone
from headfirst.study import Augmentation, augment_images
from headfirst.study.augmentation_report import AugmentationReport

LABELS = (5, 10, 20, 50)
STEPS = {"vae": 600, "gan": 600}
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="keeps what is done; the same command resumes")
    parser.add_argument("--labels", type=int, nargs="*", default=LABELS)
    parser.add_argument("--generators", nargs="*", default=list(STEPS))
    parser.add_argument("--steps", type=int, default=None, help="of each training, instead of those in STEPS")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images, backbone = ImageSet.digits(), load_backbone("builtin/glyph")
    found: list[dict[str, Any]] = []
    for labels in options.labels:
        for name in options.generators:
            steps = options.steps or STEPS[name]
            work = options.work / f"{name}-{labels}-{steps}"
            kept = work / "result.json"
            if not kept.is_file():
                began = time.process_time()
                recipe = maker(name, labels, steps)
                done = augment_images(
                    images, backbone, recipe, Augmentation(), shots=labels, directory=work, progress=say
                )
                line = {"labels": labels, "generator": name, "steps": steps, **summary(done.report),
                        "cpu_seconds": round(time.process_time() - began, 1)}  # fmt: skip
                kept.write_text(json.dumps(line))
                print(f"\n{name}, {labels} labels a class: {done.report.sentences()[0]}", flush=True)
            found.append(json.loads(kept.read_text()))
    if set(options.labels) == set(LABELS) and set(options.generators) == set(STEPS):
        record("augmentation", {"folds": 3, "seeds": 3, "batch": BATCH, "results": found})


def maker(name: str, labels: int, steps: int) -> VAE | GAN:
    """So many epochs that the folds, two thirds of the images, are learned from in so many steps."""
    images = labels * 10 * 2 // 3
    if name == "vae":
        return VAE(epochs=round(steps / -(-images // BATCH)), batch_size=BATCH)
    return GAN(epochs=round(steps / max(1, images // BATCH)), batch_size=BATCH)  # leaves the rest of an epoch out


def summary(report: AugmentationReport) -> dict[str, Any]:
    return {
        "chosen": report.chosen,
        "sentences": report.sentences(),
        "rows": [asdict(row) for row in report.rows],
        "verdicts": report.cross_validated,
        "coverage": [asdict(c) for c in report.coverage],
        "memorisation": None if report.memorisation is None else asdict(report.memorisation),
    }


def say(stage: str, done: int, total: int) -> None:
    print(f"\r{stage}: {done}/{total}".ljust(60), end="", flush=True)


if __name__ == "__main__":
    main()

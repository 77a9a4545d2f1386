"""LP-FT against a plain PyTorch fine-tuning loop at the same epochs, and the frozen-prefix path against both.

    python bench/lpft.py --backbone DIRECTORY --data FOLDER

The plain loop is what a user would write: the images as one tensor, AdamW, crops and flips, batch norm in eval mode.
LP-FT includes embedding the images and solving the probe. Every round runs all contestants in turn. Goals: LP-FT within
1.1 of the plain loop; the frozen prefix three times faster than it.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from record import record
from torch.nn import functional as F

import headfirst as hf
from headfirst.data import ImageSplit, augment, few_shot, normalise
from headfirst.features import torch_threads
from headfirst.nn import ImageClassifier, PretrainedBackbone, random_head


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--backbone", default="../shared/weights/mobilenet-v2-imagenet")
    arguments.add_argument("--data", default="../shared/data/pacs")
    arguments.add_argument("--shots", type=int, default=10)
    arguments.add_argument("--epochs", type=int, default=8)
    arguments.add_argument("--frozen", type=int, default=17, help="stages of the frozen prefix")
    arguments.add_argument("--rounds", type=int, default=2)
    options = arguments.parse_args()
    backbone = hf.load_backbone(options.backbone)
    images = hf.prepare(hf.ImageSet.open(options.data), backbone.preprocessing)
    train = few_shot(images["train"], options.shots, seed=0)
    contestants = {
        "plain loop": lambda: plain_loop(backbone, train, options.epochs),
        "lp-ft": lambda: head_first(backbone, train, options.epochs, 0),
        "lp-ft, frozen prefix": lambda: head_first(backbone, train, options.epochs, options.frozen),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    with torch_threads(os.cpu_count() or 1):
        for _ in range(options.rounds):
            for name, run in contestants.items():
                seconds[name].append(timed(run))
    over_plain = {
        name: statistics.median(mine / plain for mine, plain in zip(seconds[name], seconds["plain loop"], strict=True))
        for name in contestants
    }
    record(
        "lpft",
        {
            "images": len(train),
            "epochs": options.epochs,
            "frozen_stages": f"{options.frozen} of {len(backbone.stages)}",
            "rounds": options.rounds,
            "seconds": {name: [round(s, 2) for s in values] for name, values in seconds.items()},
            "lpft_over_plain": round(over_plain["lp-ft"], 3),
            "plain_over_frozen_prefix": round(1 / over_plain["lp-ft, frozen prefix"], 2),
            "goals": {"lpft_over_plain": 1.1, "plain_over_frozen_prefix": 3.0},
        },
    )


def head_first(backbone: PretrainedBackbone, train: ImageSplit, epochs: int, frozen: int) -> None:
    """The library's recipe, from an empty feature store."""
    with tempfile.TemporaryDirectory() as cache:
        probe = hf.LinearProbe().fit(hf.embed(backbone, train, cache=Path(cache)))
    recipe = hf.LPFT(epochs=epochs, lr=3e-4, frozen_stages=frozen)
    recipe.fit(backbone, train, seed=0, head=probe)


def plain_loop(backbone: PretrainedBackbone, train: ImageSplit, epochs: int) -> None:
    """Fine-tuning as a user would write it."""
    torch.manual_seed(0)
    model = ImageClassifier(
        copy.deepcopy(backbone), random_head(backbone.feature_dim, len(train.classes), seed=0), train.classes
    ).eval()
    images, labels = train.batch(), torch.as_tensor(train.labels)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-4)
    for epoch in range(epochs):
        for rows in torch.randperm(len(images)).split(16):
            batch = augment(images[rows], seed=0, epoch=epoch, samples=rows.numpy(), mirror=True)
            loss = F.cross_entropy(model(normalise(batch, backbone.preprocessing)), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def timed(run: Callable[[], None]) -> float:
    """Wall-clock seconds of one call."""
    began = time.monotonic()
    run()
    return time.monotonic() - began


if __name__ == "__main__":
    main()

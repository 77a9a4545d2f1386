"""Named drawings: two towers trained on one drawing style, then asked about held-out drawings in that style and another.

    python bench/emoji.py --pairs FOLDER --image-tower DIRECTORY --text-tower DIRECTORY [--epochs 20]

`FOLDER/pairs.csv` has the columns path, caption, label, split, domain. Trained on `train` of the first domain; every number
is of `test`, whose drawings are in neither style's training part, in the style trained on (home) and in the other (away):
retrieval by name, the category by its words without any label, and a probe on the category with the training images' labels.
The image tower as it came is probed beside it. Intervals are exact binomial or a bootstrap over images.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import torch
from record import record
from torch import Tensor
from torch.nn import functional as F

from headfirst.adapt import LinearProbe, ZeroShot
from headfirst.data import PairSet
from headfirst.features import embed
from headfirst.metrics import bootstrap_interval, retrieval_ranks
from headfirst.nn import load_backbone, load_text_tower, pair
from headfirst.pretrain import CLIP

TEMPLATES = ("{}", "an emoji of {}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--pairs", type=Path, required=True)
    arguments.add_argument("--image-tower", type=Path, required=True)
    arguments.add_argument("--text-tower", type=Path, required=True)
    arguments.add_argument("--home", default="noto")
    arguments.add_argument("--size", type=int, default=96, help="pixels that the drawings are resized to")
    arguments.add_argument("--dim", type=int, default=256)
    arguments.add_argument("--epochs", type=int, default=20)
    arguments.add_argument("--batch-size", type=int, default=128)
    arguments.add_argument("--lr", type=float, default=3e-4)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--work", type=Path, help="keeps checkpoints; the same command resumes")
    options = arguments.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        backbone = load_backbone(resized(options.image_tower, Path(scratch) / "tower", options.size))
        encoder = pair(backbone, load_text_tower(options.text_tower), dim=options.dim, seed=options.seed)
        pairs = PairSet.open(options.pairs, home=options.home).prepare(backbone.preprocessing)
        began = time.perf_counter()
        recipe = CLIP(epochs=options.epochs, batch_size=options.batch_size, lr=options.lr, locked_text=True)
        tuned = recipe.fit(encoder, pairs["train"], seed=options.seed, directory=options.work, progress=say)
        seconds = time.perf_counter() - began
    away = next(name for name in pairs.splits if name.startswith("shift-"))
    results = {}
    for name, split in (("home", "test"), ("away", away)):
        asked = pairs[split]
        with torch.inference_mode():
            texts = F.normalize(tuned.text.embed(asked.captions), dim=1)
        seen = embed(tuned.image, asked.images)
        images = F.normalize(seen.values, dim=1)
        ranks = {
            "text to image": retrieval_ranks(texts, images),
            "image to text": retrieval_ranks(images, texts),
        }
        found = {f"{how}, recall at {k}": interval(of < k) for how, of in ranks.items() for k in (1, 5, 10)}
        names = ZeroShot(seen.classes, TEMPLATES).fit(tuned)
        found["category, zero-shot"] = interval(names.predict(seen.values) == seen.labels)
        for what, tower in (("trained", tuned.image), ("as it came", backbone)):
            probe = LinearProbe().fit(embed(tower, pairs["train"].images))
            found[f"category, probe on the tower {what}"] = interval(
                probe.predict(embed(tower, asked.images).values) == seen.labels
            )
        results[name] = {"images": len(asked), **found}
    record(
        "emoji",
        {
            **{k: str(v) for k, v in vars(options).items() if k not in ("pairs", "image_tower", "text_tower", "work")},
            "training_pairs": len(pairs["train"]),
            "minutes": round(seconds / 60, 1),
            "logit_scale": round(tuned.logit_scale.item(), 2),
            "results": results,
        },
    )


def interval(right: Tensor) -> list[float]:
    """Share and its interval, per cent."""
    found = bootstrap_interval(right[None], seed=0, bounds=(0.0, 1.0))
    return [round(100 * x, 1) for x in (found.value, found.low, found.high)]


def resized(tower: Path, directory: Path, size: int) -> Path:
    """A copy of the tower's folder that reads whole images at `size` pixels."""
    shutil.copytree(tower, directory)
    path = directory / "preprocessor_config.json"
    about = json.loads(path.read_text())
    about |= {"size": {"height": size, "width": size}, "do_center_crop": False, "crop_size": None}
    path.write_text(json.dumps(about))
    return directory


def say(stage: str, done: int, total: int) -> None:
    if done % 10 == 0 or done == total:
        print(f"{stage}: {done}/{total}", flush=True)


if __name__ == "__main__":
    main()

"""Training on pairs: `CLIP` against the plain loop that one would write after open_clip's, on the same files and model.

    python bench/contrastive.py [--pairs 1024] [--batch-size 128] [--epochs 2] [--rounds 3]

Both start from PNG files and a dual encoder, and train both towers with AdamW on as many batches, on one thread.
The plain loop opens, crops, resizes and normalises each image with Pillow in every epoch, keeps the whole matrix of
logits in the graph and takes two cross-entropies; it knows no groups. Ours decodes once into an empty cache. Ratios are
of the same round.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from record import record
from torch.nn import functional as F

from headfirst.data import ImageSplit, Pairs
from headfirst.data.coloured import coloured_digits
from headfirst.nn import DualEncoder, load_dual_encoder
from headfirst.pretrain import CLIP


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--backbone", default="builtin/glyph-clip")
    arguments.add_argument("--pairs", type=int, default=1024)
    arguments.add_argument("--batch-size", type=int, default=128)
    arguments.add_argument("--epochs", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    torch.set_num_threads(1)

    encoder = load_dual_encoder(options.backbone)
    with tempfile.TemporaryDirectory() as folder:
        paths, captions = write_pairs(Path(folder), options.pairs)
        seconds: dict[str, list[float]] = {"headfirst": [], "plain loop": []}
        for _ in range(options.rounds):
            for name, run in (("headfirst", ours), ("plain loop", plain)):
                began = time.perf_counter()
                run(encoder, paths, captions, options)
                seconds[name].append(time.perf_counter() - began)
    both = zip(seconds["plain loop"], seconds["headfirst"], strict=True)
    seen = options.pairs * options.epochs
    record(
        "contrastive",
        {
            **vars(options),
            "pairs_per_second": {name: round(seen / statistics.median(each), 1) for name, each in seconds.items()},
            "seconds": {name: [round(value, 2) for value in each] for name, each in seconds.items()},
            "headfirst_over_plain_loop": round(statistics.median(a / b for a, b in both), 2),
        },
    )


def write_pairs(folder: Path, count: int) -> tuple[list[Path], list[str]]:
    """Coloured digits as PNG files of 64 pixels, and their captions."""
    drawn = coloured_digits(seed=0)
    sources, captions = drawn.images["train"].sources[:count], list(drawn.captions("train")[:count])
    paths = [folder / f"{i:05d}.png" for i in range(len(sources))]
    for path, pixels in zip(paths, sources, strict=True):
        Image.fromarray(np.asarray(pixels)).resize((64, 64)).save(path)
    return paths, captions


def ours(encoder: DualEncoder, paths: list[Path], captions: list[str], options: argparse.Namespace) -> None:
    images = ImageSplit(
        name="train",
        ids=tuple(path.name for path in paths),
        sources=tuple(paths),
        labels=np.full(len(paths), -1, dtype=np.int64),
        classes=(),
    )
    with tempfile.TemporaryDirectory() as cache:
        pairs, _ = Pairs(images=images, captions=tuple(captions)).prepare(
            encoder.image.preprocessing, cache=Path(cache)
        )
        CLIP(epochs=options.epochs, batch_size=options.batch_size, lr=1e-4, mirror=False).fit(encoder, pairs)


def plain(encoder: DualEncoder, paths: list[Path], captions: list[str], options: argparse.Namespace) -> None:
    model = copy.deepcopy(encoder).train()
    about = encoder.image.preprocessing
    height, width = about.size
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (about.mean, about.std))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-6)
    random = np.random.default_rng(0)

    def view(path: Path) -> torch.Tensor:
        with Image.open(path) as image:
            image = image.convert("RGB")
            side = round(min(image.size) * random.uniform(0.9, 1.0))
            left, top = (int(random.integers(0, size - side + 1)) for size in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        return (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 - mean) / std

    for _ in range(options.epochs):
        order = random.permutation(len(paths))
        for start in range(0, len(order) - options.batch_size + 1, options.batch_size):
            rows = order[start : start + options.batch_size]
            x = F.normalize(model.image(torch.stack([view(paths[i]) for i in rows])), dim=1)
            y = F.normalize(model.text(model.text.tokenise([captions[i] for i in rows]).inputs), dim=1)
            logits = model.logit_scale * x @ y.T
            target = torch.arange(len(rows))
            loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


if __name__ == "__main__":
    main()

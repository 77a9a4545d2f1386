"""Training a VAE: `VAE.fit` against pythae's trainer, images a second.

    python bench/vae.py --peer-python PATH [--images 2500] [--epochs 4] [--rounds 5]

The same layers (0.84 million numbers), 28 × 28 grey images, 16 latent dimensions, batches of 32, the Bernoulli
likelihood and Adam's rule on both sides. Ours draws the noise by image and epoch, writes a checkpoint, and reads the
bound on 512 images after each epoch; pythae keeps a copy of its best weights and saves the last ones. Each contestant
has a process of its own and one thread, rounds take turns, seconds are the processor's, ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from generator_peers import grey_images
from record import record
from turns import race, serve, speedup, summary

from headfirst.data import ImageSplit
from headfirst.generate import VAE, BernoulliDecoder

PEERS = Path(__file__).with_name("generator_peers.py")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--peer-python", help="of an environment with pythae")
    arguments.add_argument("--images", type=int, default=2500)
    arguments.add_argument("--epochs", type=int, default=4)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.serve:
        ours(options.images, options.epochs)
        return
    size = [str(options.images), str(options.epochs)]
    commands = {"headfirst": [sys.executable, __file__, "--serve", "--images", size[0], "--epochs", size[1]]}
    if options.peer_python:
        commands["pythae"] = [options.peer_python, str(PEERS), "pythae", *size]
    answers = race(commands, options.rounds)
    seen = options.images * options.epochs
    record(
        "vae",
        {
            "images": options.images,
            "epochs": options.epochs,
            "threads": 1,
            "rounds": options.rounds,
            **summary(answers),
            "images_a_second": {
                name: round(seen / statistics.median(answer["seconds"] for answer in each))
                for name, each in answers.items()
            },
            "speedup": {name: speedup(answers, "headfirst", name) for name in answers if name != "headfirst"},
        },
    )


def ours(images: int, epochs: int) -> None:
    grey = grey_images(images)
    split = ImageSplit(
        name="train",
        ids=tuple(map(str, range(images))),
        sources=tuple(np.repeat(grey[..., None], 3, axis=3)),
        labels=np.full(images, -1),
        classes=(),
    )
    recipe = VAE(epochs=epochs, decoder=BernoulliDecoder(), conditional=False)

    def fit() -> float:
        return recipe.fit(split).record["losses"][-1]

    serve(fit)


if __name__ == "__main__":
    main()

"""`Views.photographs` against the per-image Pillow pipeline that one would write for the same recipe.

    python bench/views.py [--batch-size 256] [--rounds 5]

Both make the views of the same uint8 images, batch after batch, on one thread: a random resized crop, mirror, colour
jitter and grey with their probabilities, a rare blur, as a float32 batch. Each has a process of its own, which says
how much memory it had at its peak, and how much before its first view. Seconds are the processor's, ratios of the same
round. Goal: 8 times the views a second.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from record import peak_memory, record

from headfirst.data import Views
from headfirst.randomness import Draw

COUNTS = {32: 2048, 96: 512}
RECIPE = Views.photographs()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--batch-size", type=int, default=256)
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    record(
        "views",
        {
            **vars(options),
            "images": COUNTS,
            "sizes": {f"{size} px": race(size, options) for size in COUNTS},
            "goals": {"views_over_pillow": 8.0},
        },
    )


def race(size: int, options: argparse.Namespace) -> dict[str, object]:
    """Interleaved rounds of both on images of this size."""
    contestants = {maker.__name__: start(maker, size, options.batch_size) for maker in (views, pillow)}
    for connection in contestants.values():
        ask(connection)  # warm-up
    answers: dict[str, list[tuple[float, int, int]]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, connection in contestants.items():
            answers[name].append(ask(connection))
    for connection in contestants.values():
        connection.close()
    seconds = {name: [answer[0] for answer in each] for name, each in answers.items()}
    pairs = zip(seconds["pillow"], seconds["views"], strict=True)
    return {
        "views_per_second": {name: round(COUNTS[size] / statistics.median(each)) for name, each in seconds.items()},
        "seconds": {name: [round(value, 4) for value in each] for name, each in seconds.items()},
        "views_over_pillow": round(statistics.median(a / b for a, b in pairs), 2),
        "peak_memory_mb": {name: round(each[-1][1] / 1024) for name, each in answers.items()},
        "memory_before_mb": {name: round(each[-1][2] / 1024) for name, each in answers.items()},
    }


def ask(connection: Connection) -> tuple[float, int, int]:
    """Processor seconds of one pass, the peak memory so far and that before the first pass in kB."""
    connection.send("go")
    return connection.recv()


def start(maker: Callable[[np.ndarray, np.ndarray, int], torch.Tensor], size: int, batch_size: int) -> Connection:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=serve, args=(there, maker, size, batch_size), daemon=True).start()
    return here


def serve(
    connection: Connection, maker: Callable[[np.ndarray, np.ndarray, int], torch.Tensor], size: int, batch_size: int
) -> None:
    """Make one view of every image each time it is told to."""
    torch.set_num_threads(1)
    coarse = np.random.default_rng(0).integers(0, 256, (COUNTS[size], 8, 8, 3), dtype=np.uint8)
    images = np.stack([np.asarray(Image.fromarray(each).resize((size, size))) for each in coarse])
    before = peak_memory()
    epoch = 0
    with contextlib.suppress(EOFError):  # the parent has all it wants
        while connection.recv():
            began = time.process_time()
            for first in range(0, len(images), batch_size):
                numbers = np.arange(first, min(first + batch_size, len(images)))
                maker(images[numbers], numbers, epoch)
            took = time.process_time() - began
            epoch += 1
            connection.send((took, peak_memory(), before))


def views(images: np.ndarray, numbers: np.ndarray, epoch: int) -> torch.Tensor:
    return RECIPE(torch.from_numpy(images).permute(0, 3, 1, 2), Draw(0, epoch, numbers), 0)


def pillow(images: np.ndarray, numbers: np.ndarray, epoch: int) -> torch.Tensor:
    random = np.random.default_rng((epoch, int(numbers[0])))
    return torch.stack([pillow_view(image, random) for image in images])


def pillow_view(pixels: np.ndarray, random: np.random.Generator) -> torch.Tensor:
    image = Image.fromarray(pixels)
    width, height = image.size
    area = random.uniform(*RECIPE.area) * width * height
    aspect = np.exp(random.uniform(*np.log(RECIPE.aspect)))
    across, down = min(width, round((area * aspect) ** 0.5)), min(height, round((area / aspect) ** 0.5))
    left, top = random.integers(0, width - across + 1), random.integers(0, height - down + 1)
    box = (int(left), int(top), int(left) + across, int(top) + down)
    image = image.resize((width, height), Image.Resampling.BILINEAR, box)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if random.random() < RECIPE.colour_probability:
        steps = (
            (ImageEnhance.Brightness, RECIPE.brightness),
            (ImageEnhance.Contrast, RECIPE.contrast),
            (ImageEnhance.Color, RECIPE.saturation),
        )
        for step, strength in steps:
            image = step(image).enhance(random.uniform(1 - strength, 1 + strength))
        hue, saturation, value = image.convert("HSV").split()
        shift = round(random.uniform(-RECIPE.hue, RECIPE.hue) * 255)
        hue = Image.fromarray(np.asarray(hue) + np.array(shift).astype(np.uint8))
        image = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    if random.random() < RECIPE.grey_probability:
        image = image.convert("L").convert("RGB")
    if random.random() < RECIPE.blur_probability:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(*RECIPE.blur) * min(image.size)))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32)


if __name__ == "__main__":
    main()

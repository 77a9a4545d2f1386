"""Anonymous memory of `embed` over 500, 5,000 and 50,000 images: flat, and the cache holds the size used.

    python bench/memory.py

Each count runs in a process of its own, with a tiny random backbone, on small synthetic JPEGs. Anonymous
memory (`Anonymous` in /proc/self/smaps_rollup) leaves out mapped files, which the system takes back when it
needs to.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SIDE = 32


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--counts", type=int, nargs="+", default=[500, 5_000, 50_000])
    arguments.add_argument("--measure", nargs=2, metavar=("FOLDER", "CHECKPOINT"), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.measure:
        print(json.dumps(measure(*map(Path, options.measure))))
        return
    from record import record

    with tempfile.TemporaryDirectory() as scratch:
        write_checkpoint(Path(scratch) / "tiny")
        rows = []
        for count in options.counts:
            write_images(Path(scratch) / str(count), count)
            command = [sys.executable, __file__, "--measure", f"{scratch}/{count}", f"{scratch}/tiny"]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    first, last = rows[0], rows[-1]
    grown = last["peak_anonymous"] - first["peak_anonymous"]
    record(
        "memory",
        {
            "rows": rows,
            "peak_largest_over_smallest": round(last["peak_anonymous"] / first["peak_anonymous"], 3),
            "anonymous_bytes_an_image": round(grown / (last["images"] - first["images"])),
            "pixel_bytes_an_image_in_the_cache": round(last["cache_pixels"] / last["images"], 1),
            "pixel_bytes_an_image_used": SIDE * SIDE * 3,
        },
    )


def measure(folder: Path, checkpoint: Path) -> dict[str, float]:
    """Runs `embed` on the folder with an empty cache and watches this process's anonymous memory."""
    import numpy as np
    import torch

    from headfirst.data import ImageSplit
    from headfirst.features import cache_info, embed
    from headfirst.nn import load_backbone

    torch.set_num_threads(1)
    backbone = load_backbone(checkpoint)
    before = anonymous()
    paths = tuple(sorted(folder.iterdir()))
    ids, labels = tuple(path.name for path in paths), np.full(len(paths), -1, dtype=np.int64)
    split = ImageSplit(name="unlabelled", ids=ids, sources=paths, labels=labels, classes=())
    listed = anonymous()
    samples: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            samples.append(anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        embed(backbone, split, cache=Path(cache))
        seconds = time.perf_counter() - start
        info = cache_info(Path(cache))
    stop.set()
    watcher.join()
    return {
        "images": len(paths),
        "before": before,
        "with_the_list_of_files": listed,
        "peak_anonymous": max([*samples, anonymous()]),
        "cache_pixels": info.sizes["pixels"],
        "cache_features": info.sizes["features"],
        "seconds": round(seconds, 1),
    }


def anonymous() -> int:
    """Bytes of memory that belong to no file."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise OSError("this system's /proc/self/smaps_rollup does not tell anonymous memory")


def write_images(folder: Path, count: int) -> None:
    """`count` different JPEGs of 48×40 noise."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(count):
        buffer = io.BytesIO()
        noise = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(noise).save(buffer, "JPEG", quality=60)
        (folder / f"{i:06}.jpg").write_bytes(buffer.getvalue())


def write_checkpoint(directory: Path) -> None:
    """A random ResNet that takes 32×32 images."""
    import torch
    from transformers import ResNetConfig, ResNetModel
    from transformers.utils import logging

    torch.manual_seed(0)
    logging.disable_progress_bar()
    sizes = {
        "embedding_size": 8,
        "hidden_sizes": [8, 8, 8, 16],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
    }
    ResNetModel(ResNetConfig(**sizes)).save_pretrained(directory)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": SIDE, "width": SIDE},
        "resample": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))


if __name__ == "__main__":
    main()

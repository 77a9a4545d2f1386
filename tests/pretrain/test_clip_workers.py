"""Two gloo workers that share each batch train what one process trains, to rounding in float32."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from colour_pairs import make_pairs

from headfirst.nn import load_dual_encoder
from headfirst.pretrain import CLIP, train_pairs

RECIPES = {
    "live": CLIP(epochs=2, batch_size=9, micro_batch=3, lr=1e-3),
    "locked": CLIP(epochs=2, batch_size=9, lr=1e-3, locked_image=True),
}


def train(checkpoint: str, name: str, log: Path | None = None) -> tuple:
    start = load_dual_encoder(checkpoint)
    done = train_pairs(
        start, make_pairs("train", 24, seed=0), RECIPES[name], val=make_pairs("val", 6, seed=1), directory=log
    )
    last = done.readings[-1]
    return done.record.losses, (last.temperature, last.alignment, last.modality_gap), done.encoder.state_dict()


def work(rank: int, checkpoint: str, directory: str) -> None:
    torch.set_num_threads(1)
    os.environ["HEADFIRST_CACHE"] = f"{directory}/cache"
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=2)
    found = {name: train(checkpoint, name, Path(directory) / name) for name in RECIPES}
    torch.save(found, f"{directory}/{rank}")
    dist.destroy_process_group()


def test_two_workers_train_what_one_process_trains(checkpoints, tmp_path: Path):
    checkpoint = str(checkpoints("clip"))
    multiprocessing.set_forkserver_preload(["pytest", "torch.distributed", "headfirst.nn"])
    mp.start_processes(work, (checkpoint, str(tmp_path)), nprocs=2, start_method="forkserver")
    first, second = (torch.load(tmp_path / str(rank)) for rank in range(2))
    for name in RECIPES:
        losses, readings, state = train(checkpoint, name)
        assert first[name][0] == second[name][0] == pytest.approx(losses, rel=1e-5)
        assert first[name][1] == pytest.approx(readings, rel=1e-3)
        for key, value in state.items():
            assert torch.equal(first[name][2][key], second[name][2][key]), key  # workers stay together, to the bit
            # Adam turns a gradient of rounding alone into a whole step, of which there are four.
            torch.testing.assert_close(first[name][2][key], value, rtol=0, atol=4.1e-3)
            assert (first[name][2][key] - value).abs().mean() < 1e-5, key
        lines = (tmp_path / name / "monitors.jsonl").read_text().splitlines()
        assert len(lines) == 3  # one worker writes

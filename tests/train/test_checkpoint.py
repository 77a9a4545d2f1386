"""Checkpoints: the newest that verifies wins, and a half-written one is never seen."""

from __future__ import annotations

import stat
from pathlib import Path

import torch

from headfirst.train import load_checkpoint, save_checkpoint


def save(directory: Path, step: int) -> Path:
    return save_checkpoint(directory, step, {"w": torch.full((3,), float(step))}, {"step": step})


def test_round_trip_and_pruning(tmp_path: Path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.position, found.tensors["w"].tolist()) == (3, {"step": 3}, [3.0] * 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000002", "step-000000003"]


def test_damage_falls_back_to_the_one_before(tmp_path: Path):
    save(tmp_path, 1)
    newest = save(tmp_path, 2) / "tensors.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1


def test_an_unfinished_write_is_ignored(tmp_path: Path):
    save(tmp_path, 1)
    (tmp_path / "step-000000002.tmp").mkdir()
    (tmp_path / "step-000000003").mkdir()  # renamed but empty: a manifest is missing
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1


def test_the_next_write_clears_away_an_unfinished_one(tmp_path: Path):
    (tmp_path / "step-000000002.tmp").mkdir()
    (tmp_path / "step-000000002.tmp" / "tensors.safetensors").write_bytes(b"cut short")
    save(tmp_path, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000003"]


def test_nothing_there(tmp_path: Path):
    assert load_checkpoint(tmp_path / "none") is None


def test_weights_are_readable_under_the_umask(tmp_path: Path):
    mode = (save(tmp_path, 1) / "tensors.safetensors").stat().st_mode
    other = tmp_path / "other"
    other.touch()
    assert stat.S_IMODE(mode) == stat.S_IMODE(other.stat().st_mode)

"""Jobs in processes of one thread each do what they do one after another."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from headfirst.features import side_by_side, torch_threads


def note(path: Path) -> str:
    path.write_text(f"{torch.get_num_threads()}")
    return path.name


def fail(path: Path) -> None:
    raise FileNotFoundError(path)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_job_is_done_on_one_thread_and_counted(tmp_path: Path, threads: int):
    told = []
    with torch_threads(threads):
        jobs = [partial(note, tmp_path / f"{i}") for i in range(3)]
        assert side_by_side(jobs, stage="notes", progress=lambda *all_: told.append(all_)) == ["0", "1", "2"]
        assert torch.get_num_threads() == threads
    assert [(tmp_path / f"{i}").read_text() for i in range(3)] == ["1"] * 3
    assert told == [("notes", done, 3) for done in range(4)]


@pytest.mark.parametrize("threads", [1, 2])
def test_what_fails_is_raised(tmp_path: Path, threads: int):
    with torch_threads(threads), pytest.raises(FileNotFoundError, match="gone"):
        side_by_side([partial(fail, tmp_path / "gone"), partial(note, tmp_path / "there")], stage="notes")

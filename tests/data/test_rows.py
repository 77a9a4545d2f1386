import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from headfirst.data import cache_dir, fill_rows
from headfirst.errors import InputError


def squares(start: int, stop: int) -> np.ndarray:
    return (np.arange(start * 3, stop * 3) ** 2).reshape(-1, 3)


def test_rows_are_what_compute_gave_and_are_computed_once(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []
    told: list[tuple[str, int, int]] = []

    def compute(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return squares(start, stop)

    def make() -> np.memmap:
        return fill_rows(
            tmp_path / "a.npy",
            (10, 3),
            np.int64,
            compute,
            chunk=4,
            progress=lambda *s: told.append(s),
            stage="s",
        )

    np.testing.assert_array_equal(make(), squares(0, 10))
    np.testing.assert_array_equal(make(), squares(0, 10))
    assert asked == [(0, 4), (4, 8), (8, 10)]
    assert told == [("s", 0, 10), ("s", 4, 10), ("s", 8, 10), ("s", 10, 10)]
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), squares(0, 10))


def test_an_error_midway_keeps_what_is_done(tmp_path: Path) -> None:
    asked: list[int] = []

    def failing(start: int, stop: int) -> np.ndarray:
        asked.append(start)
        if start == 8:
            raise KeyboardInterrupt
        return squares(start, stop)

    with pytest.raises(KeyboardInterrupt):
        fill_rows(tmp_path / "a.npy", (10, 3), np.int64, failing, chunk=4)
    asked.clear()

    def honest(start: int, stop: int) -> np.ndarray:
        asked.append(start)
        return squares(start, stop)

    np.testing.assert_array_equal(fill_rows(tmp_path / "a.npy", (10, 3), np.int64, honest, chunk=4), squares(0, 10))
    assert asked == [8]


def test_rows_written_but_not_recorded_are_written_again(tmp_path: Path) -> None:
    def failing(start: int, stop: int) -> np.ndarray:
        if start == 4:
            raise KeyboardInterrupt
        return squares(start, stop)

    with pytest.raises(KeyboardInterrupt):
        fill_rows(tmp_path / "a.npy", (10, 3), np.int64, failing, chunk=4)
    with (tmp_path / "a.npy.partial").open("ab") as file:
        file.write(b"torn by a kill")
    array = fill_rows(tmp_path / "a.npy", (10, 3), np.int64, squares, chunk=4)
    np.testing.assert_array_equal(array, squares(0, 10))


def test_another_layout_under_the_same_name_is_made_anew(tmp_path: Path) -> None:
    fill_rows(tmp_path / "a.npy", (10, 3), np.int64, squares, chunk=4)
    wide = fill_rows(tmp_path / "a.npy", (4, 2), np.float32, lambda i, j: np.full((j - i, 2), i, np.float32), chunk=1)
    np.testing.assert_array_equal(wide[:, 0], [0, 1, 2, 3])


def test_a_shortened_file_is_made_anew(tmp_path: Path) -> None:
    fill_rows(tmp_path / "a.npy", (10, 3), np.int64, squares, chunk=4)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-8])
    fill_rows(tmp_path / "a.npy", (10, 3), np.int64, squares, chunk=4)
    assert (tmp_path / "a.npy").read_bytes() == whole


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 1"):
        fill_rows(tmp_path / "a.npy", (0, 3), np.int64, squares, chunk=4)
    with pytest.raises(InputError, match=r"must give \(4, 3\) of float32, got \(4, 3\) of int64"):
        fill_rows(tmp_path / "a.npy", (10, 3), np.float32, squares, chunk=4)
    with pytest.raises(InputError, match="set HEADFIRST_CACHE"):
        fill_rows(tmp_path / "a.npy", (2**50, 3), np.int64, squares, chunk=4)


def test_cache_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADFIRST_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("HEADFIRST_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "headfirst"


SLOW = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    import numpy as np
    from headfirst.data.rows import fill_rows

    def compute(start, stop):
        with open(sys.argv[2], "a") as log:
            log.write(f"{start}\\n")
        time.sleep(0.05)
        return np.random.default_rng(start).integers(0, 256, (stop - start, 5000), dtype=np.uint8)

    fill_rows(Path(sys.argv[1]), (40, 5000), np.uint8, compute, chunk=2)
""")


def start_slow(path: Path, log: Path, chunks: int) -> subprocess.Popen[bytes]:
    """Another process filling `path`, once it has begun that many of the 20 chunks."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(path), str(log)], env=environment)
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) >= chunks):
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process


def fill_here(path: Path, log: list[int]) -> np.memmap:
    def compute(start: int, stop: int) -> np.ndarray:
        log.append(start)
        return np.random.default_rng(start).integers(0, 256, (stop - start, 5000), dtype=np.uint8)

    return fill_rows(path, (40, 5000), np.uint8, compute, chunk=2)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_and_resumed_gives_the_same_bytes(tmp_path: Path) -> None:
    killed = start_slow(tmp_path / "a.npy", tmp_path / "log", chunks=5)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "a.npy").exists()
    before = [int(line) for line in (tmp_path / "log").read_text().splitlines()]
    after: list[int] = []
    fill_here(tmp_path / "a.npy", after)
    assert len(before) >= 5
    assert after[0] in (before[-1], before[-1] + 2), "only the chunk in hand is computed again"
    assert after == list(range(after[0], 40, 2))
    fill_here(tmp_path / "b.npy", [])
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_a_second_process_waits_and_takes_what_the_first_made(tmp_path: Path) -> None:
    first = start_slow(tmp_path / "a.npy", tmp_path / "log", chunks=2)
    here: list[int] = []
    array = fill_here(tmp_path / "a.npy", here)
    assert first.wait() == 0
    assert here == []
    np.testing.assert_array_equal(array, fill_here(tmp_path / "b.npy", here))

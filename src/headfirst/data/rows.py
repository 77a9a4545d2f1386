"""An array on disk, computed row by row, that survives a kill: pixels here, features in the next layer.

While it is being made, `<path>.partial` holds a NumPy header and the rows so far, and `<path>.progress` says
how many of them are safely down. A rerun drops what was written after the last record and goes on. The
finished file appears under its own name in one rename.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headfirst.errors import InputError
from headfirst.types import Progress, silent

try:
    import fcntl
except ImportError:  # Windows: two processes filling the same file at once are not kept apart there
    fcntl = None


def cache_dir() -> Path:
    """Where arrays are kept when no folder is named: `$HEADFIRST_CACHE`, or `~/.cache/headfirst`."""
    named = os.environ.get("HEADFIRST_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "headfirst"


def fill_rows(
    path: Path,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    compute: Callable[[int, int], np.ndarray],
    *,
    chunk: int,
    progress: Progress = silent,
    stage: str = "rows",
) -> np.memmap:
    """The array at `path`, computed chunk by chunk unless it is already there, memory-mapped read-only.

    Interrupted at any moment (kill -9 included), the same call continues at the first chunk that was not
    recorded and gives the same bytes. Only one process fills a path at a time; another waits for it.

    Args:
        path: of the finished `.npy` file; its name must be a key of the content, since a finished file of the
            right shape and type is taken as it is.
        shape: (N, …), N at least 1.
        dtype: of the array.
        compute: `compute(start, stop)` gives rows start … stop-1, the same ones whenever it is asked.
        chunk: rows computed and made safe at a time.
        progress: called as `progress(stage, done, N)`.
        stage: what `progress` is told.

    Raises:
        InputError: the shape is empty, `compute` gave another shape or type, or the disk is too full.
    """
    dtype = np.dtype(dtype)
    if not shape or shape[0] < 1 or chunk < 1:
        raise InputError(f"rows to fill must be at least 1, chunk by chunk; got shape {shape}, chunk {chunk}")
    finished = _open_finished(path, shape, dtype)
    if finished is not None:
        return finished
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.with_name(path.name + ".lock")):
        finished = _open_finished(path, shape, dtype)  # another process may have just made it
        if finished is None:
            _fill(path, shape, dtype, compute, chunk, progress, stage)
            finished = _open_finished(path, shape, dtype)
    if finished is None:
        raise InputError(f"{path} was written and then changed by someone else; run again")
    return finished


def _open_finished(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap | None:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError):  # absent, or not what this function writes: made anew
        return None
    return array if array.shape == shape and array.dtype == dtype else None


def _fill(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype,
    compute: Callable[[int, int], np.ndarray],
    chunk: int,
    progress: Progress,
    stage: str,
) -> None:
    partial, record = path.with_name(path.name + ".partial"), path.with_name(path.name + ".progress")
    header = _npy_header(shape, dtype)
    row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    layout = {"shape": list(shape), "dtype": dtype.str}
    done = _recorded(record, layout) if partial.exists() else 0
    _require_space(path, (shape[0] - done) * row_bytes)
    # Plain writes, not stores into a map: a full disk is then an error and not a SIGBUS.
    with partial.open("r+b" if done else "wb") as file:
        if done:
            file.truncate(len(header) + done * row_bytes)
            file.seek(0, os.SEEK_END)
        else:
            file.write(header)
        while done < shape[0]:
            progress(stage, done, shape[0])
            stop = min(done + chunk, shape[0])
            rows = np.ascontiguousarray(compute(done, stop))
            if rows.shape != (stop - done, *shape[1:]) or rows.dtype != dtype:
                raise InputError(
                    f"compute({done}, {stop}) must give {(stop - done, *shape[1:])} of {dtype}, "
                    f"got {rows.shape} of {rows.dtype}"
                )
            file.write(rows.data)
            file.flush()
            os.fsync(file.fileno())
            done = stop
            write_atomically(record, json.dumps({**layout, "done": done}).encode())
        progress(stage, done, shape[0])
    partial.replace(path)
    record.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _recorded(record: Path, layout: dict[str, object]) -> int:
    try:
        state = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return 0
    return int(state.pop("done")) if state.keys() == {*layout, "done"} and state | layout == state else 0


def _npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    buffer = io.BytesIO()
    description = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(buffer, {"descr": description, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is either the old one or the whole new one, whatever happens meanwhile."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise InputError(
            f"{path.parent} needs {needed / 2**30:.1f} GiB more, but {free / 2**30:.1f} GiB are free; "
            "set HEADFIRST_CACHE to a folder on a larger disk, or run `headfirst cache clear`"
        )


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold `lock` for the block; the system lets go of it when the process dies."""
    file = lock.open("wb")
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX)
        while not _still_named(file, lock):  # whoever held it before has unlinked it
            file.close()
            file = lock.open("wb")
            fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        file.close()


def _still_named(file: io.BufferedWriter, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), lock.stat())
    except FileNotFoundError:
        return False

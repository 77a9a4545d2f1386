"""Counting and emptying the cache; features in a file; free cores."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import threading

import pytest
import torch
from safetensors.torch import save_file
from tiny_images import split_of

from headfirst.data import PairSet
from headfirst.errors import DataError
from headfirst.features import (
    cache_info,
    clear_cache,
    embed,
    free_threads,
    load_features,
    save_features,
    torch_threads,
)
from headfirst.features.threads import _busy, _quota
from headfirst.types import Features


def test_the_cache_is_counted_and_emptied_and_nothing_else_is_touched(backbone, paths, tmp_path):
    cache = tmp_path / "cache"
    embed(backbone, split_of(paths), cache=cache)
    (cache / "features" / "mine.txt").write_text("not of the cache")
    (cache / "elsewhere.npy").write_text("nor this")
    info = cache_info(cache)
    assert info.files == {"pixels": 1, "features": 1}
    # A NumPy header of 128 bytes before the numbers: 21 images of 32×32×3, 21 features of 16 floats.
    assert info.sizes == {"pixels": 128 + 21 * 32 * 32 * 3, "features": 128 + 21 * 16 * 4}
    assert info.unfinished == 0
    assert clear_cache(cache) == info
    assert cache_info(cache).size == 0
    left = sorted(path.name for path in cache.rglob("*") if path.is_file())
    assert left == ["elsewhere.npy", "mine.txt"]


def test_images_out_of_shards_are_counted_and_emptied(tmp_path):
    data = b"no image, but kept as one"
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("a.png", "a.txt"):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    PairSet.open(tmp_path / "a.tar", cache=tmp_path / "cache")
    info = cache_info(tmp_path / "cache")
    assert info.files == {"pixels": 0, "features": 0, "images": 1}
    assert info.sizes["images"] == len(data)
    assert clear_cache(tmp_path / "cache") == info
    assert not any(path.is_file() for path in (tmp_path / "cache").rglob("*"))


def test_an_absent_cache_is_empty(tmp_path):
    assert clear_cache(tmp_path / "nowhere").size == 0


def some_features() -> Features:
    return Features(
        values=torch.randn(3, 4),
        labels=torch.tensor([0, -1, 1]),
        classes=("Hütte", "a,b"),
        ids=("x/1.jpg", "x/2.jpg", "y/ü.jpg"),
        split="shift-art",
        source="abc",
    )


def test_features_come_back_from_their_file(tmp_path):
    features = some_features()
    umask = os.umask(0o022)
    try:
        save_features(features, tmp_path / "new" / "f.safetensors")
    finally:
        os.umask(umask)
    again = load_features(tmp_path / "new" / "f.safetensors")
    assert torch.equal(again.values, features.values)
    assert torch.equal(again.labels, features.labels)
    for name in ("classes", "ids", "split", "source"):
        assert getattr(again, name) == getattr(features, name)
    assert stat.S_IMODE((tmp_path / "new" / "f.safetensors").stat().st_mode) == 0o644


def test_other_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        load_features(tmp_path / "absent.safetensors")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DataError, match="is not a features file"):
        load_features(tmp_path / "text")
    save_file({"values": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match="holds no features that this version reads"):
        load_features(tmp_path / "weights.safetensors")
    features = some_features()
    bad = Features(**{**vars(features), "labels": torch.tensor([0, 1, 2])})
    save_features(bad, tmp_path / "bad.safetensors")
    with pytest.raises(DataError, match="is damaged: 3 names, 3 rows, 3 labels of 2 classes"):
        load_features(tmp_path / "bad.safetensors")


def test_a_busy_core_is_not_free():
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    stop = threading.Event()

    def burn() -> None:
        os.sched_setaffinity(0, {core})
        while not stop.is_set():
            sum(range(10_000))

    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("cores cannot be chosen on this system")
    thread = threading.Thread(target=burn)
    thread.start()
    try:
        assert _busy({core}) > 0.7
    finally:
        stop.set()
        thread.join()
    assert 1 <= free_threads() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "membership", "expected"),
    [
        ({"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b", 1.5),
        ({"a/cpu.max": "300000 100000", "a/b/cpu.max": "200000 100000"}, "0::/a/b", 2),
        (
            {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"},
            "3:cpu,cpuacct:/a\n0::/",
            1,
        ),
        ({"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, "3:cpu:/a", float("inf")),
        ({}, "0::/", float("inf")),
    ],
)
def test_the_smallest_quota_on_the_way_counts(tmp_path, files, membership, expected):
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    (tmp_path / "membership").write_text(membership)
    assert _quota(tmp_path / "groups", tmp_path / "membership") == expected


def test_the_thread_count_is_put_back():
    before = torch.get_num_threads()
    inside = []

    def fails() -> None:
        with torch_threads(before + 1):
            inside.append(torch.get_num_threads())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert inside == [before + 1]
    assert torch.get_num_threads() == before

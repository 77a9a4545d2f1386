"""Embeddings for other programs: bit for bit, whole or not at all, without pickles."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow.parquet
import pytest
import torch

from headfirst.errors import InputError
from headfirst.features import save_embeddings
from headfirst.types import Features


def example(values: torch.Tensor | None = None) -> Features:
    return Features(
        values=torch.tensor([[1.5, -0.1, 3e-39], [0.3, 7.0, -2.0]]) if values is None else values,
        labels=torch.tensor([1, -1]),
        classes=("Hund", "Käfer"),
        ids=("a/ü.jpg", "b, c.jpg"),
        split="train",
        source="abc",
    )


def test_both_files_hold_every_bit(tmp_path) -> None:
    features = example()
    out = save_embeddings(features, tmp_path / "new" / "folder")
    with np.load(out / "embeddings.npz", allow_pickle=False) as held:
        assert held["values"].dtype == np.float32
        assert held["values"].tobytes() == features.values.numpy().tobytes()
        assert held["labels"].tolist() == [1, -1]
        assert tuple(held["ids"]) == features.ids
        assert tuple(held["classes"]) == features.classes
        assert (str(held["split"]), str(held["source"])) == ("train", "abc")
    table = pyarrow.parquet.read_table(out / "embeddings.parquet")
    assert table.column_names == ["id", "label", "embedding"]
    assert table["id"].to_pylist() == list(features.ids)
    assert table["label"].to_pylist() == ["Käfer", None]
    embedded = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    assert embedded.tobytes() == features.values.numpy().tobytes()
    assert table.schema.metadata[b"source"] == b"abc"
    assert sorted(path.name for path in out.iterdir()) == ["embeddings.npz", "embeddings.parquet"]


def test_rows_that_are_not_contiguous_and_none_at_all(tmp_path) -> None:
    turned = example(torch.arange(6.0).reshape(3, 2).T)
    save_embeddings(turned, tmp_path)
    table = pyarrow.parquet.read_table(tmp_path / "embeddings.parquet")
    assert table["embedding"].to_pylist() == [[0, 2, 4], [1, 3, 5]]
    save_embeddings(turned.take([]), tmp_path)
    assert pyarrow.parquet.read_table(tmp_path / "embeddings.parquet").num_rows == 0
    with np.load(tmp_path / "embeddings.npz", allow_pickle=False) as held:
        assert held["values"].shape == (0, 3)


def test_without_pyarrow_nothing_is_written(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'headfirst\[parquet\]'"):
        save_embeddings(example(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_embeddings(example(), tmp_path)
    before = (tmp_path / "embeddings.parquet").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        save_embeddings(example(torch.zeros(2, 3)), tmp_path)
    assert (tmp_path / "embeddings.parquet").read_bytes() == before

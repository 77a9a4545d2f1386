"""Features straight from files: the store's own numbers, what cannot be read, and what a stop leaves behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_images import split_of, write_images

from headfirst.data.hashing import hash_array, hash_file
from headfirst.errors import BackboneError, DataError, InputError
from headfirst.features import cache_info, embed, stream


def by_hash(paths: list[Path]) -> dict[str, Path | np.ndarray]:
    return {hash_file(path): path for path in paths}


def test_they_are_the_stores_bit_for_bit_and_leave_no_pixels(backbone, paths, tmp_path):
    found = stream(backbone, by_hash(paths), cache=tmp_path / "a", batch_size=4)
    stored = embed(backbone, split_of(paths), cache=tmp_path / "b", batch_size=4)
    np.testing.assert_array_equal(found.values, stored.values.numpy())
    assert found.unreadable == {}
    assert cache_info(tmp_path / "a").files == {"pixels": 0, "features": 1}


def test_what_cannot_be_read_is_named_and_the_rest_counts(backbone, paths, tmp_path):
    sound = stream(backbone, by_hash([p for p in paths if p != paths[3]]), cache=tmp_path / "cache", batch_size=100)
    paths[3].write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    (tmp_path / "long.png").write_bytes(b"GIF89a")
    given = by_hash([*paths, tmp_path / "long.png"])
    found = stream(backbone, given, cache=tmp_path / "cache", batch_size=100)
    assert list(found.unreadable) == [list(given)[3], list(given)[21]]
    assert all("cannot be" in why for why in found.unreadable.values())
    np.testing.assert_array_equal(np.delete(found.values, [3, 21], axis=0), sound.values)
    assert not found.values[[3, 21]].any()
    again = stream(backbone, given, cache=tmp_path / "cache", batch_size=100)
    assert again.unreadable == found.unreadable


def test_decoded_images_are_taken_too(backbone, tmp_path):
    arrays = [np.full((9, 7, 3), 30 * i, dtype=np.uint8) for i in range(3)]
    found = stream(backbone, {hash_array(a): a for a in arrays}, cache=tmp_path)
    assert len(np.unique(found.values.round(4), axis=0)) == 3


def test_a_stopped_one_goes_on_and_gives_the_same_bytes(backbone, tmp_path, monkeypatch):
    monkeypatch.setattr("headfirst.features.streaming._CHUNK", 4)
    paths = write_images(tmp_path / "images", 18)
    paths[5].write_bytes(b"nothing")  # its reason must survive the stop
    whole = stream(backbone, by_hash(paths), cache=tmp_path / "whole", batch_size=4)
    seen = []

    def stops(stage: str, done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream(backbone, by_hash(paths), cache=tmp_path / "cut", batch_size=4, progress=stops)
    forward = type(backbone).forward
    monkeypatch.setattr(
        type(backbone), "forward", lambda self, images: seen.append(len(images)) or forward(self, images)
    )
    resumed = stream(backbone, by_hash(paths), cache=tmp_path / "cut", batch_size=4)
    assert sum(seen) == 10  # the last ten images
    np.testing.assert_array_equal(resumed.values, whole.values)
    assert dict(resumed.unreadable) == dict(whole.unreadable)


def test_the_backbone_comes_back_as_it_was(backbone, paths, tmp_path):
    backbone.train()
    before = backbone.fingerprint
    stream(backbone, by_hash(paths), cache=tmp_path / "cache")
    assert backbone.training
    assert backbone.fingerprint == before


def test_refusals(backbone, paths, tmp_path):
    with pytest.raises(InputError, match="at least 1, received 0"):
        stream(backbone, by_hash(paths), cache=tmp_path, batch_size=0)
    given = by_hash(paths)
    paths[0].write_bytes(paths[1].read_bytes())
    with pytest.raises(DataError, match="changed while it was being read"):
        stream(backbone, given, cache=tmp_path)
    with torch.no_grad():
        next(iter(backbone.parameters())).fill_(float("nan"))
    with pytest.raises(BackboneError, match="not finite"):
        stream(backbone, by_hash(paths), cache=tmp_path)

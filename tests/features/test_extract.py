"""The store: what hits, what misses, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_images import split_of, write_images

from headfirst.data import normalise, prepare_split, preprocess
from headfirst.errors import BackboneError, DataError, InputError
from headfirst.features import cache_info, embed
from headfirst.nn import load_backbone


def stored(cache) -> int:
    return cache_info(cache).files["features"]


def test_features_are_the_backbones_own_of_each_image(backbone, paths, tmp_path):
    features = embed(backbone, split_of(paths), cache=tmp_path / "cache", batch_size=4)
    for i, path in enumerate(paths):
        image = preprocess(np.array(Image.open(path)), backbone.preprocessing)
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = backbone(normalise(pixels, backbone.preprocessing))[0]
        # One image or four at a time: convolutions may round differently, nothing more.
        torch.testing.assert_close(features.values[i], expected, rtol=1e-4, atol=1e-5)
    assert features.labels.tolist() == [i % 2 for i in range(21)]
    assert features.ids == tuple(path.name for path in paths)
    assert (features.classes, features.split) == (("even", "odd"), "train")
    assert features.source == backbone.fingerprint


def test_the_second_call_computes_nothing(backbone, paths, tmp_path, monkeypatch):
    first = embed(backbone, split_of(paths), cache=tmp_path / "cache")
    monkeypatch.setattr(type(backbone), "forward", None)
    again = embed(backbone, split_of(paths), cache=tmp_path / "cache")
    assert torch.equal(again.values, first.values)


def test_names_and_labels_are_not_part_of_the_key(backbone, paths, tmp_path):
    split = split_of(paths)
    first = embed(backbone, split, cache=tmp_path / "cache")
    other = replace(
        split,
        name="val",
        ids=tuple(f"new-{i}" for i in split.ids),
        labels=1 - split.labels,
        classes=("b", "a"),
    )
    renamed = embed(backbone, other, cache=tmp_path / "cache")
    assert stored(tmp_path / "cache") == 1
    assert torch.equal(renamed.values, first.values)
    assert renamed.labels.tolist() == (1 - split.labels).tolist()
    assert (renamed.split, renamed.classes, renamed.ids[0]) == ("val", ("b", "a"), "new-0000.png")


def test_one_changed_pixel_is_a_miss_and_changes_that_image_alone(backbone, paths, tmp_path):
    first = embed(backbone, split_of(paths), cache=tmp_path / "cache")
    image = np.array(Image.open(paths[5]))
    image[10, 10, 0] ^= 128
    Image.fromarray(image).save(paths[5])
    second = embed(backbone, split_of(paths), cache=tmp_path / "cache")
    assert stored(tmp_path / "cache") == 2
    changed = (first.values != second.values).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [5]


def test_one_changed_weight_is_a_miss(backbone, paths, tmp_path):
    first = embed(backbone, split_of(paths), cache=tmp_path / "cache")
    with torch.no_grad():
        next(iter(backbone.parameters()))[0, 0, 0, 0] += 0.1
    second = embed(backbone, split_of(paths), cache=tmp_path / "cache")
    assert stored(tmp_path / "cache") == 2
    assert second.source != first.source
    assert not torch.equal(first.values, second.values)


@pytest.mark.parametrize(
    "change", [{"resample": 3}, {"image_mean": [0.5, 0.5, 0.4]}, {"size": {"height": 48, "width": 48}}]
)
def test_one_changed_transform_is_a_miss(backbone, tiny_checkpoint, paths, tmp_path, change):
    import shutil

    first = embed(backbone, split_of(paths), cache=tmp_path / "cache")
    directory = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    processor = json.loads((directory / "preprocessor_config.json").read_text())
    (directory / "preprocessor_config.json").write_text(json.dumps({**processor, **change}))
    second = embed(load_backbone(directory), split_of(paths), cache=tmp_path / "cache")
    assert stored(tmp_path / "cache") == 2
    assert not torch.equal(first.values, second.values)


def test_the_batch_size_is_part_of_the_key(backbone, paths, tmp_path):
    embed(backbone, split_of(paths), cache=tmp_path / "cache", batch_size=4)
    embed(backbone, split_of(paths), cache=tmp_path / "cache", batch_size=5)
    assert stored(tmp_path / "cache") == 2


def test_embedding_moves_nothing(backbone, paths, tmp_path):
    backbone.train()
    backbone.stages[1].eval()  # each module's own mode is put back, not one for all
    modes = {name: module.training for name, module in backbone.named_modules()}
    weights = {name: value.clone() for name, value in backbone.stages.state_dict().items()}
    threads = torch.get_num_threads()
    embed(backbone, split_of(paths), cache=tmp_path / "cache")
    assert {name: module.training for name, module in backbone.named_modules()} == modes
    assert torch.get_num_threads() == threads
    for name, value in backbone.stages.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_writing_into_features_leaves_the_store_alone(backbone, paths, tmp_path):
    features = embed(backbone, split_of(paths), cache=tmp_path / "cache")
    kept = features.values.clone()
    features.values.zero_()
    assert torch.equal(embed(backbone, split_of(paths), cache=tmp_path / "cache").values, kept)


_RUN = """
import sys, time, torch
sys.path.insert(0, {tests!r})
from tiny_images import split_of
from pathlib import Path
from headfirst.features import embed
from headfirst.nn import PretrainedBackbone, load_backbone
torch.set_num_threads(1)
forward = PretrainedBackbone.forward
def slow(self, images):
    time.sleep({pause})
    return forward(self, images)
backbone = load_backbone({checkpoint!r})
PretrainedBackbone.forward = slow
embed(backbone, split_of(sorted(Path({images!r}).iterdir())), cache=Path({cache!r}), batch_size=3)
"""


def test_killed_and_run_again_gives_the_same_bytes(tiny_checkpoint, tmp_path, monkeypatch):
    write_images(tmp_path / "images", 200)
    arguments = {
        "tests": os.path.dirname(__file__),
        "checkpoint": str(tiny_checkpoint),
        "images": str(tmp_path / "images"),
        "cache": str(tmp_path / "killed"),
    }
    child = subprocess.Popen([sys.executable, "-c", _RUN.format(pause=0.02, **arguments)])
    folder = tmp_path / "killed" / "features"
    deadline = time.monotonic() + 60
    while not any(folder.glob("*.progress")) and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert cache_info(tmp_path / "killed").unfinished == 1

    backbone = load_backbone(tiny_checkpoint)
    split = split_of(sorted((tmp_path / "images").iterdir()))
    computed = []
    forward = type(backbone).forward
    monkeypatch.setattr(
        type(backbone), "forward", lambda self, images: computed.append(len(images)) or forward(self, images)
    )
    resumed = embed(backbone, split, cache=tmp_path / "killed", batch_size=3)
    assert 0 < sum(computed) < 200  # it went on, it did not begin again
    whole = embed(backbone, split, cache=tmp_path / "whole", batch_size=3)
    assert torch.equal(resumed.values, whole.values)
    files = [next((tmp_path / name / "features").iterdir()) for name in ("killed", "whole")]
    assert files[0].name == files[1].name
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_resumed_run_keeps_the_number_of_threads(tmp_path, monkeypatch):
    from headfirst.features.extract import thread_count

    monkeypatch.setattr("headfirst.features.extract.free_threads", lambda: 3)
    assert thread_count(tmp_path / "x.threads", 0) == 3
    monkeypatch.setattr("headfirst.features.extract.free_threads", lambda: 1)
    assert thread_count(tmp_path / "x.threads", 128) == 3


def test_an_unreadable_image_is_named(backbone, paths, tmp_path):
    paths[3].write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"1 images of split 'train' cannot be read, the first is '0003.png'"):
        embed(backbone, split_of(paths), cache=tmp_path / "cache")


def test_pixels_of_another_geometry_are_refused(backbone, paths, tmp_path):
    other = replace(backbone.preprocessing, resize=(16, 16))
    prepared, _ = prepare_split(split_of(paths), other, cache=tmp_path / "cache")
    with pytest.raises(InputError, match="have another geometry"):
        embed(backbone, prepared, cache=tmp_path / "cache")


def test_features_that_are_not_finite_are_refused(backbone, paths, tmp_path):
    with torch.no_grad():
        next(iter(backbone.parameters())).fill_(float("nan"))
    with pytest.raises(BackboneError, match="not finite"):
        embed(backbone, split_of(paths), cache=tmp_path / "cache")


def test_a_batch_holds_at_least_one_image(backbone, paths, tmp_path):
    with pytest.raises(InputError, match="at least 1, received 0"):
        embed(backbone, split_of(paths), cache=tmp_path / "cache", batch_size=0)

"""`pretrain`: from a table of pairs to a backbone that the other verbs take; refusals and their exit codes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

CAPTIONS = ("a red cat", "a green dog", "a blue thing", "a photo of a dog")


@pytest.fixture
def pairs(photo_folder: Callable[..., Path]) -> Path:
    root = photo_folder({"some": 24})
    with (root / "pairs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "caption", "split"])
        for i in range(24):
            table.writerow([f"some/{i:03d}.png", CAPTIONS[i % 4] if i != 5 else "", "val" if i >= 16 else "train"])
    return root


def test_a_joint_checkpoint_is_trained_and_used(headfirst, pairs, checkpoints, tmp_path):
    out = tmp_path / "trained"
    called = headfirst(
        "pretrain", pairs, "--backbone", checkpoints("clip"), "--out", out, "--epochs", 2, "--batch-size", 8, "--json",
        "--quiet",
    )  # fmt: skip
    found = json.loads(called.stdout)
    assert found["pairs"] == 15
    assert [each["id"] for each in found["set_aside"]] == ["some/005.png"]
    assert len(found["readings"]) == 3
    assert found["readings"][-1]["n"] == 8
    again = headfirst("zero-shot", pairs / "some", "--labels", "cat,dog", "--backbone", out, "--quiet")
    assert len(again.stdout.splitlines()) == 24
    refused = headfirst("pretrain", pairs, "--backbone", checkpoints("clip"), "--out", out, code=2)
    assert "holds files already" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lock", "both"], "--lock takes none, image or text"),
        (["--batch-size", 1], "batch_size must be at least 2"),
        (["--batch-size", 64], "64"),
        (["--lr", 0], "lr must be positive"),
    ],
)
def test_refusals(headfirst, pairs, checkpoints, tmp_path, arguments, message):
    called = headfirst(
        "pretrain", pairs, "--backbone", checkpoints("clip"), "--out", tmp_path / "x", *arguments, code=2
    )
    assert message in called.stderr
    assert not (tmp_path / "x").exists()


def test_a_backbone_without_text_needs_a_text_tower(headfirst, pairs, checkpoints, tmp_path):
    called = headfirst("pretrain", pairs, "--backbone", checkpoints("resnet"), "--out", tmp_path / "x", code=2)
    assert "has no text tower" in called.stderr
    called = headfirst("pretrain", pairs, "--out", tmp_path / "x", code=2)
    assert "need an image-text backbone" in called.stderr

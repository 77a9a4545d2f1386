"""`zero-shot` and `run` with text: what they print, and what they refuse with which exit code."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

CLIP, SIGLIP = "clip", "siglip"


@pytest.fixture
def folder(photo_folder: Callable[..., Path]) -> Path:
    root = photo_folder({"some": 3})
    (root / "some" / "broken.png").write_bytes(b"not an image")
    return root


def test_a_softmax_and_a_sigmoid_model_say_which_they_are(headfirst, folder, checkpoints):
    for family, said in (
        (CLIP, "a softmax over 2 labels, logit scale"),
        (SIGLIP, "a sigmoid for each label by itself"),
    ):
        called = headfirst(
            "zero-shot", folder, "--labels", "cat, a red dog", "--backbone", checkpoints(family), "--json", "--quiet"
        )
        found = json.loads(called.stdout)
        assert len(found["predictions"]) == 3
        assert {row["class"] for row in found["predictions"]} <= {"cat", "a red dog"}
        assert found["prompts"]["a red dog"] == ["a photo of a red dog."]
        assert (found["logit_bias"] is None) == (family == CLIP)
        assert [Path(skipped["id"]).name for skipped in found["skipped"]] == ["broken.png"]
        assert (
            said
            in headfirst("zero-shot", folder, "--labels", "cat,a red dog", "--backbone", checkpoints(family)).stderr
        )


def test_none_of_these_csv_and_a_kept_classifier(headfirst, folder, checkpoints, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\n\nred dog\n")
    called = headfirst(
        "zero-shot", folder, "--labels-file", labels, "--backbone", checkpoints(CLIP), "--none-below", 1.0, "--csv",
        "--save", tmp_path / "model",
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(called.stdout)))
    assert {row["class"] for row in rows} == {"none of these"}
    again = json.loads(headfirst("predict", tmp_path / "model", folder, "--json", "--quiet").stdout)
    kept = {row["image"]: float(row["probability"]) for row in rows}
    for row in again["predictions"]:
        assert row["probability"] == pytest.approx(kept[row["image"]], abs=1e-5)


def test_descriptions_and_templates_from_files(headfirst, folder, checkpoints, tmp_path):
    (tmp_path / "more.json").write_text(json.dumps({"cat": ["a green thing"]}))
    (tmp_path / "mine.txt").write_text("the {}\n")
    called = headfirst(
        "zero-shot", folder, "--labels", "cat,dog", "--backbone", checkpoints(CLIP), "--json", "--quiet",
        "--descriptions", tmp_path / "more.json", "--templates", tmp_path / "mine.txt",
    )  # fmt: skip
    assert json.loads(called.stdout)["prompts"] == {"cat": ["the cat", "a green thing"], "dog": ["the dog"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to tell apart"),
        (["--labels", ""], "at least one class name"),
        (["--labels", "cat,,dog"], "none may be empty"),
        (["--labels", "cat,cat"], "was given twice"),
        (["--labels", "zebra,yak"], "read the same"),
        (["--labels", "cat,cat cat cat cat cat cat cat cat cat"], "would be cut off"),
        (["--labels", "cat", "--labels-file", "x"], "either with --labels"),
        (["--labels", "cat,dog", "--templates", "sevn"], "did you mean 'seven'"),
        (["--labels", "cat,dog", "--none-below", "2"], "probability in"),
        (["--labels", "cat,dog", "--descriptions", "absent.json"], "cannot be read as JSON"),
    ],
)
def test_refusals(headfirst, folder, checkpoints, arguments, message):
    called = headfirst("zero-shot", folder, "--backbone", checkpoints(CLIP), *arguments, code=2)
    assert called.stdout == ""
    assert message in called.stderr


def test_a_backbone_without_text_and_none_at_all(headfirst, folder, checkpoints):
    called = headfirst("zero-shot", folder, "--labels", "cat,dog", "--backbone", checkpoints("resnet"), code=2)
    assert "has no text tower" in called.stderr
    assert "words need an image-text backbone" in headfirst("zero-shot", folder, "--labels", "cat,dog", code=2).stderr


def test_a_run_takes_up_the_methods_with_text_by_itself(headfirst, photo_folder, checkpoints):
    data = photo_folder({f"{split}/{name}": 6 for split in ("train", "val", "test") for name in ("cat", "red_dog")})
    planned = headfirst("run", data, "--backbone", checkpoints(CLIP), "--dry-run").stdout
    assert "zero-shot" in planned
    assert "anchored-probe" in planned
    assert "zero-shot" not in headfirst("run", data, "--backbone", checkpoints("resnet"), "--dry-run").stdout
    refused = headfirst("run", data, "--backbone", checkpoints("resnet"), "--methods", "zero-shot", code=2)
    assert "need a text tower" in refused.stderr

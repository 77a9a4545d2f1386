"""`export`, `verify` and `predict` on one small model: what they print, and their exit codes."""

from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headfirst.adapt import Calibration, LinearProbe, on_backbone
from headfirst.artefact import save_model
from headfirst.cli import main
from headfirst.data import ImageSet
from headfirst.features import embed
from headfirst.nn import load_backbone

_ABSENT = [name for name in ("onnx", "onnxscript", "onnxruntime", "openvino") if find_spec(name) is None]
needs_export = pytest.mark.skipif(bool(_ABSENT), reason=f"needs the export extra, absent: {', '.join(_ABSENT)}")


@pytest.fixture(scope="module")
def models(tiny_directory: Path, images: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`plain`, and `calibrated`: at temperature 2, the validation images surer than a third of the test images are
    right, the others wrong."""
    folder = tmp_path_factory.mktemp("models")
    backbone = load_backbone(tiny_directory)
    model = on_backbone(backbone, LinearProbe().fit(embed(backbone, images["train"])))
    save_model(model, folder / "plain")
    test = (model.predictions(images["test"]).values.double() / 2).softmax(dim=1).max(dim=1).values.sort().values
    border = (test[9] + test[10]).item() / 2
    confidence = torch.cat([torch.linspace(1 - 1e-6, border, 600), torch.linspace(border, 0.4, 201)[1:]])
    logits = torch.zeros(800, 3)
    logits[:, 0] = 2 * (2 * confidence / (1 - confidence)).log()  # softmax(logits / 2) is that confident
    labels = (torch.arange(800) >= 600).long()
    calibration = Calibration(temperature=2.0, logits=logits, labels=labels, chosen_on="val")
    save_model(replace(model, calibration=calibration), folder / "calibrated")
    return folder


@pytest.fixture(scope="module")
def photos(images: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test images, and some between two classes, of which nobody can be sure."""
    folder = tmp_path_factory.mktemp("photos")
    sources = [np.asarray(source).astype(int) for source in images["test"].sources]
    between = [(a + b) // 2 for a, b in itertools.pairwise(sources[:7])]
    for i, image in enumerate([*sources[:18], *between]):
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture
def headfirst(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, str]]:
    monkeypatch.setattr("headfirst.cli.signal.signal", lambda *_: None)

    def call(*arguments: object, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        done = capsys.readouterr()
        assert (stopped.value.code or 0) == code, done.err
        return done.out, done.err

    return call


def test_predict_says_whether_it_is_calibrated(headfirst, models: Path, photos: Path):
    plain, said = headfirst("predict", models / "plain", photos, "--json")
    assert "confidence: uncalibrated" in said
    calibrated, said = headfirst("predict", models / "calibrated", photos, "--json")
    assert "confidence: calibrated by temperature 2 fitted on val\n" in said
    plain, calibrated = json.loads(plain), json.loads(calibrated)
    assert (plain["calibrated"], plain["temperature"]) == (False, None)
    assert (calibrated["calibrated"], calibrated["temperature"]) == (True, 2.0)
    pairs = list(zip(plain["predictions"], calibrated["predictions"], strict=True))
    assert all(a["class"] == b["class"] and a["probability"] >= b["probability"] for a, b in pairs)
    assert any(a["probability"] > b["probability"] + 0.01 for a, b in pairs)
    assert all("abstained" not in a for a, _ in pairs)


def test_abstained_images_keep_the_class_they_would_have_had(headfirst, models: Path, photos: Path):
    command = ("predict", models / "calibrated", photos, "--abstain", "0.02")
    answer = json.loads(headfirst(*command, "--json")[0])
    threshold, rows = answer["threshold"], answer["predictions"]
    assert answer["max_error"] == 0.02
    assert 0.4 < threshold < 1
    assert all(row["abstained"] == (row["probability"] < threshold) for row in rows)
    assert 0 < sum(row["abstained"] for row in rows) < len(rows)
    assert {row["class"] for row in rows} <= {"red", "green", "blue"}
    table = list(csv.DictReader(io.StringIO(headfirst(*command, "--csv")[0])))
    assert [row["class"] == "abstained" for row in table] == [row["abstained"] for row in rows]
    assert [row["best_class"] for row in table] == [row["class"] for row in rows]
    lines, said = headfirst(*command)
    for line, row in zip(lines.splitlines(), rows, strict=True):
        assert row["abstained"] == (f"abstained (would say {row['class']})" in line)
    assert f"answers from {threshold:.3f} up" in said


def test_where_nothing_qualifies_nothing_is_answered(headfirst, models: Path, photos: Path):
    out, said = headfirst("predict", models / "calibrated", photos, "--abstain", "0.001", "--json")
    answer = json.loads(out)
    assert answer["threshold"] is None
    assert all(row["abstained"] for row in answer["predictions"])
    assert "no confidence keeps the error that low on its 800 images" in said


def test_abstaining_needs_a_record_and_a_share(headfirst, models: Path, photos: Path):
    _, said = headfirst("predict", models / "plain", photos, "--abstain", "0.05", code=2)
    assert "without a calibration record" in said
    _, said = headfirst("predict", models / "calibrated", photos, "--abstain", "1.5", code=2)
    assert "strictly between 0 and 1" in said


def test_verify_prints_what_it_checked(headfirst, models: Path):
    out, _ = headfirst("verify", models / "calibrated")
    assert out.splitlines() == [
        "headfirst.json: unchanged; 3 classes",
        "6 files: sha256 as saved",
        "golden images: largest difference 0.0e+00 of the largest logit",
        "exports: none",
    ]
    assert json.loads(headfirst("verify", models / "plain", "--json")[0]) == {
        "files": 5,
        "mismatch": 0.0,
        "exports": {},
    }


def test_verify_says_no_with_code_1_and_no_model_with_code_2(headfirst, models: Path, photos: Path, tmp_path: Path):
    model = shutil.copytree(models / "plain", tmp_path / "model")
    about = json.loads((model / "headfirst.json").read_text())
    (model / "headfirst.json").write_text(json.dumps({**about, "classes": ["green", "red", "blue"]}))
    out, said = headfirst("verify", model, code=1)
    assert (out, said.count("\n")) == ("", 1)
    assert "headfirst.json was changed after it was saved" in said
    _, said = headfirst("verify", photos, code=2)
    assert "no Headfirst model" in said


@needs_export
def test_export_writes_beside_the_model_and_verify_replays_it(headfirst, models: Path, photos: Path, tmp_path: Path):
    model = shutil.copytree(models / "plain", tmp_path / "model")
    out, said = headfirst("export", model, "--to", "onnx", "--int8", "--calibrate", photos, "--quiet")
    assert f"graph:  {model / 'exports' / 'model-int8.onnx'}" in out
    assert "of 24 calibration images" in out
    assert said == ""
    out, _ = headfirst("verify", model)
    assert "exports/model-int8.onnx (int8): sha256 as saved; largest difference" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "onnx", "--int8"], "--int8 and --calibrate FOLDER go together"),
        (["--to", "onnx", "--calibrate", "{photos}"], "--int8 and --calibrate FOLDER go together"),
        (["--to", "openvin"], "unknown format 'openvin'; did you mean 'openvino'"),
        ([], "Missing option '--to'"),
    ],
)
def test_wrong_exports_are_one_sentence_and_code_2(headfirst, models: Path, photos: Path, arguments, message: str):
    out, said = headfirst("export", models / "plain", *(a.format(photos=photos) for a in arguments), code=2)
    assert message in said
    assert out == ""

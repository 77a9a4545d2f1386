"""The command line as a user meets it: exit codes, one sentence an error, files that the next verb reads."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colours as folders, and a file that is no image."""
    root = tmp_path_factory.mktemp("data") / "photos"
    random = np.random.default_rng(0)
    for split, count in {"train": 6, "val": 6, "test": 8, "shift-dim": 6}.items():
        for k, name in enumerate(("red", "=green", "<b>blue")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                image = random.integers(0, 120, size=(20, 20, 3))
                image[..., k] += 100
                Image.fromarray((image // (3 if split == "shift-dim" else 1)).astype(np.uint8)).save(
                    folder / f"{i}.png"
                )
    (root / "test" / "red" / "broken.jpg").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def finished(headfirst, photos: Path, tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    command = ["run", photos, "--backbone", tiny_directory, "--shots", 4, "--seeds", 2, "--out", out]
    done = headfirst(*command)
    assert "Ship " in done.stdout
    assert "1 images were set aside" in done.stderr
    again = headfirst(*command, "--quiet")
    assert again.stdout == done.stdout
    assert again.stderr.strip() == "1 images were set aside; the report lists them with the reasons"
    return out


def test_run_leaves_the_page_the_json_and_the_model(finished: Path):
    assert {"report.html", "report.json", "report.md", "model"} <= {p.name for p in finished.iterdir()}
    report = json.loads((finished / "report.json").read_text())
    assert {row["method"] for row in report["rows"]} == {"knn", "probe", "finetune", "lp-ft", "wise-ft"}
    assert [q["id"] for q in report["data"]["quarantined"]] == ["test/red/broken.jpg"]
    page = (finished / "report.html").read_text()
    assert "<b>blue" not in page
    assert "&lt;b&gt;blue" in page


def test_predict_prints_json_and_csv(headfirst, finished: Path, photos: Path):
    done = headfirst("predict", finished / "model", photos / "test", "--json")
    answer = json.loads(done.stdout)
    assert len(answer["predictions"]) == 24
    assert len(answer["skipped"]) == 1
    assert all(0 < p["probability"] <= 1 for p in answer["predictions"])
    assert answer["calibrated"]
    assert "expected accuracy by average confidence" in done.stderr
    table = list(csv.DictReader(io.StringIO(headfirst("predict", finished / "model", photos / "test", "--csv").stdout)))
    assert {row["class"] for row in table} <= {"red", "'=green", "<b>blue"}
    assert len(table) == 24


def test_evaluate_tells_any_folder_from_home(headfirst, finished: Path, photos: Path, tmp_path: Path):
    done = headfirst("evaluate", photos, finished / "model", "--splits", "test", "--against", photos / "shift-dim",
                     "--out", tmp_path / "r", "--quiet")  # fmt: skip
    assert "shift-dim: told from home by" in done.stdout
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert {d["split"] for d in report["detections"]} == {"shift-dim"}
    two = headfirst(
        "evaluate", photos, finished / "model", finished / "model", "--against", photos / "shift-dim", code=2
    )
    assert "--against asks one model" in two.stderr


def test_verbs_read_each_others_files(headfirst, photos: Path, tiny_directory: Path, tmp_path: Path):
    headfirst("embed", photos, "--backbone", tiny_directory, "--out", tmp_path / "features", "--quiet")
    on_features = ("probe", "lda", "naive-bayes")
    for method in on_features:
        headfirst(
            "adapt", tmp_path / "features", "--backbone", tiny_directory, "--method", method, "--out", tmp_path / method
        )
    headfirst("adapt", photos, "--backbone", tiny_directory, "--method", "wise-ft", "--out", tmp_path / "w", "--quiet")
    models = [tmp_path / name for name in (*on_features, "w")]
    done = headfirst("evaluate", photos, *models, "--out", tmp_path / "r", "--json", "--quiet")
    assert {row["method"] for row in json.loads(done.stdout)["rows"]} == {*on_features, "wise-ft"}
    page = (tmp_path / "r" / "report.html").read_bytes()
    (tmp_path / "r" / "report.html").unlink()
    headfirst("report", tmp_path / "r")
    assert (tmp_path / "r" / "report.html").read_bytes() == page
    assert not list(tmp_path.glob(".*"))  # no training state left behind


def test_dry_run_writes_nothing(headfirst, photos: Path, tiny_directory: Path, tmp_path: Path):
    done = headfirst("run", photos, "--backbone", tiny_directory, "--out", tmp_path / "new", "--dry-run")
    assert "in all, estimated" in done.stdout
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "{photos}"], "--backbone facebook/dinov2-small"),
        (["run", "{photos}", "--backbone", "{tiny}", "--methods", "lpft"], "did you mean 'lp-ft'"),
        (["run", "{photos}x", "--backbone", "{tiny}"], "does not exist"),
        (["run", "{photos}", "--backbone", "{photos}"], "config.json"),
        (["run", "{photos}", "--backbone", "nobody/nothing"], "nobody/nothing"),
        (["run", "{photos}", "--backbone", "{tiny}", "--shots", "50"], "50"),
        (["run", "--device", "cuda:7"], "cannot be used here"),
        (["predict", "{photos}", "{photos}"], "no Headfirst model"),
        (["verify", "{photos}x"], "photosx does not exist; give the model/ folder"),
        (["plan", "{photos}", "--backbone", "{tiny}", "--out", "{tiny}/config.json/x"], "config.json is no folder"),
        (["adapt", "{photos}", "--method", "finetun"], "did you mean 'finetune'"),
        (["claims", "99"], "no claim 99"),
        (["claims", "13", "--data", "{photos}"], "claim 13 takes neither images nor a backbone; leave --data"),
        (["claims", "14", "--backbone", "builtin/glyph"], "claim 14 takes neither images nor a backbone"),
        (["cache", "burn"], "info or clear"),
        (["report", "{photos}"], "no report"),
        (["run", "--frobnicate"], "No such option"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    headfirst, photos: Path, tiny_directory: Path, arguments: list[str], message: str
):
    filled = [a.format(photos=photos, tiny=tiny_directory) for a in arguments]
    done = headfirst(*filled, code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_another_recipe_in_the_same_folder_is_refused_until_fresh(
    headfirst, finished: Path, photos: Path, tiny_directory: Path
):
    command = ["run", photos, "--backbone", tiny_directory, "--methods", "knn", "--shots", 4, "--seeds", 1, "--out"]
    before = (finished / "report.json").read_bytes()
    assert "--fresh" in headfirst(*command, finished, code=2).stderr
    assert (finished / "report.json").read_bytes() == before


def test_listing_and_ground(headfirst):
    assert "Head first, then fine-tune" in headfirst("claims").stdout
    info = json.loads(headfirst("cache", "info", "--json").stdout)
    assert info["bytes"] >= 0
    checks = json.loads(headfirst("doctor", "--json").stdout)
    assert checks["torchvision"].startswith("absent")
    assert "features" in checks["builtin/glyph"]
    assert headfirst("--version").stdout.strip()


def test_a_process_of_its_own_gives_sentence_and_code(photos: Path):
    command = [sys.executable, "-c", "from headfirst.cli import main; main()", "run", str(photos)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: photographs need a pretrained backbone")


def test_help_needs_none_of_the_heavy_packages():
    code = (
        "import sys\n"
        "from headfirst.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'transformers', 'scipy', 'PIL', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'heavy: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Exit codes" in done.stdout

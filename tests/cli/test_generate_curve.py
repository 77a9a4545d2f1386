"""`headfirst generate curve`: the page, the rows, and what is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from headfirst.cli import app
from headfirst.generate import Generator
from headfirst.generate.diffusion import DiffusionNetwork
from headfirst.nn import UNetShape

run = CliRunner().invoke


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = DiffusionNetwork(size=8, channels=1, num_classes=0, shape=UNetShape(widths=(8,), head_dim=8))
    model = Generator(kind="diffusion", network=network.eval(), classes=(), shares=(), trained_on="0" * 64, recipe="x")
    return model.save(tmp_path_factory.mktemp("curve") / "model")


def test_rows_and_page(folder: Path, tmp_path: Path):
    found = run(app, ["generate", "curve", str(folder), "--data", "digits", "--sampler", "heun", "--evaluations", "1,3",
                      "--num", "16", "--out", str(tmp_path), "-q", "--json"])  # fmt: skip
    assert found.exit_code == 0, found.output
    rows = json.loads(found.stdout)["quality"]
    assert [(row["method"], row["evaluations"]) for row in rows] == [("heun", 1), ("heun", 3)]
    assert (tmp_path / "curve.html").is_file()


def test_yardsticks_and_what_is_kept(folder: Path, tmp_path: Path):
    asked = ["generate", "curve", str(folder), "--data", "digits", "--sampler", "ddpm", "--sampler", "heun",
             "--evaluations", "1", "--yardstick", "2", "--num", "16", "--out", str(tmp_path), "-q"]  # fmt: skip
    found = run(app, asked)
    assert found.exit_code == 0, found.output
    assert "as near as ddpm's with 2, and times fewer" in found.stdout
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}
    assert len(kept) == 3
    assert run(app, asked).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()} == kept
    assert run(app, [*asked, "--fresh"]).exit_code == 0
    assert not set(kept.values()) & {path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}


def test_two_students_of_one_name(folder: Path, tmp_path: Path):
    found = run(app, ["generate", "curve", str(folder), "--data", "digits", "--out", str(tmp_path), "--student",
                      "a/pupil", "--student", "b/pupil"])  # fmt: skip
    assert found.exit_code != 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [["--evaluations", "1,two"], ["--evaluations", "4,2"], ["--sampler", "huen"]])
def test_what_cannot_be_is_refused(folder: Path, tmp_path: Path, wrong: list[str]):
    found = run(app, ["generate", "curve", str(folder), "--data", "digits", "--out", str(tmp_path), *wrong])
    assert found.exit_code != 0
    assert not list(tmp_path.iterdir())

"""Verifying a diffusion model, and choosing how to sample it, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from headfirst.cli import app
from headfirst.errors import DataError, InputError
from headfirst.generate import Generator
from headfirst.generate.diffusion import DiffusionNetwork
from headfirst.nn import UNetShape
from headfirst.study import choose_for, load_sampler, read_levels, verify_generator

run = CliRunner().invoke


@pytest.fixture(scope="module")
def model() -> Generator:
    """Untrained but for its last layer's zeros, which leave D linear in x."""
    torch.manual_seed(0)
    network = DiffusionNetwork(
        size=8,
        channels=1,
        num_classes=2,
        shape=UNetShape(widths=(8, 8), blocks=1, head_dim=8),
        sigma_max=20.0,
        sigma_min=0.02,
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return Generator(
        kind="diffusion", network=network.eval().requires_grad_(False), classes=("a", "b"), shares=(0.5, 0.5),
        trained_on="0" * 64, recipe="a test",
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(model: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.save(tmp_path_factory.mktemp("verify") / "model")


def test_the_order_of_a_sampler_on_a_model(model: Generator) -> None:
    found = verify_generator(model, sampler=("dpm_pp_2m", load_sampler("dpm_pp_2m")[1]))
    (reading,) = found.readings
    assert reading.order is not None
    assert reading.order.slope == pytest.approx(2, abs=0.3)
    assert reading.not_finite == ()
    assert found.evaluations > 30


def test_a_users_sampler_and_levels(folder: Path, tmp_path: Path) -> None:
    """Of a sampler that stops half way the error stalls, and at three steps it fails."""
    mine = tmp_path / "mine.py"
    mine.write_text(
        "def half(denoiser, x, sigmas):\n"
        "    for s, t in zip(sigmas[:-1], sigmas[1:]):\n"
        "        x = x + (t - s) * (x - denoiser(x, s)) / s * 0.97\n"
        "    return x * float('nan') if len(sigmas) == 4 else x\n"
    )
    levels = tmp_path / "levels.json"
    levels.write_text("[20, 8, 3, 1, 0.3, 0.02, 0]")
    found = run(app, ["generate", "verify", str(folder), "--sampler", f"{mine}:half", "--levels", str(levels), "-q"])
    assert found.exit_code == 0, found.output
    assert "half" in found.output
    assert "at 3 steps" in found.output
    assert "32 to 64" in found.output
    assert "on your 6 steps" in found.output
    as_json = run(app, ["generate", "verify", str(folder), "--sampler", "heun", "--json", "-q"])
    assert json.loads(as_json.output)["readings"][0]["order"]["slope"] > 1.5


def test_the_likelihood_of_images_is_asked(folder: Path) -> None:
    arguments = ["--sampler", "euler", "--data", "digits", "--json", "-q"]
    found = run(app, ["generate", "verify", str(folder), *arguments])
    assert found.exit_code == 0, found.output
    gap = json.loads(found.output)["likelihood"]
    assert gap["num_levels"] == 19  # of 20 above the least, at which the images are
    assert gap["gap"]["value"] == pytest.approx(gap["bound"]["value"] - gap["flow"]["value"])
    assert gap["gap"]["low"] < gap["gap"]["high"]


def test_tolerance_on_the_command_line(folder: Path, tmp_path: Path, model: Generator) -> None:
    choice = choose_for(model, 0.05)
    assert choice.chosen.error.high <= 0.05
    found = run(
        app, ["generate", "sample", str(folder), "-n", "4", "--tolerance", "0.05", "--out", str(tmp_path / "out")]
    )
    assert found.exit_code == 0, found.output
    assert f"{choice.sampling.num_evaluations} evaluations" in found.stderr
    for arguments, message in (
        (["--tolerance", "0.1", "--steps", "4"], "--tolerance chooses sampler and steps"),
        (["--tolerance", "0"], "tolerance must be positive, got 0"),
    ):
        bad = run(app, ["generate", "sample", str(folder), *arguments, "--out", str(tmp_path / "bad")])
        assert isinstance(bad.exception, InputError)
        assert message in str(bad.exception)
        assert not (tmp_path / "bad" / "samples.json").exists()


def test_refusals(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("one two")
    with pytest.raises(DataError, match="must hold noise levels"):
        read_levels(tmp_path / "words.txt")
    (tmp_path / "up.txt").write_text("0.1\n0.2\n")
    bad = run(app, ["generate", "verify", str(folder), "--levels", str(tmp_path / "up.txt")])
    assert "fall from step to step" in str(bad.exception)
    for spec, message in (
        ("hein", "none of"),
        ("no.py:f", "no file no.py"),
        (f"{__file__}:nothing", "no function nothing"),
    ):
        with pytest.raises(InputError, match=message):
            load_sampler(spec)

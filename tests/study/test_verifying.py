"""Verifying a diffusion model, and choosing how to sample it, from the command line."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from headfirst.cli import app
from headfirst.errors import DataError, InputError
from headfirst.generate import Generator, load_generator, pictures
from headfirst.generate.diffusion import DiffusionNetwork, Sampling
from headfirst.nn import MLPShape, UNetShape
from headfirst.study import choose_for, load_sampler, read_levels, verify_generator, verifying
from tiny import make_split

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


MEAN, STD, MIN = 0.1, 0.2, 0.2


@pytest.fixture(scope="module")
def normal() -> Generator:
    """A silent network: D is that of pixels that are N(MEAN, STD²)."""
    network = DiffusionNetwork(size=8, channels=1, num_classes=0, shape=MLPShape(dim=8, depth=1), mean=MEAN,
                               sigma_data=STD, sigma_min=MIN, sigma_max=20.0)  # fmt: skip
    return Generator(kind="diffusion", network=network, classes=(), shares=(), trained_on="", recipe="silent")


@pytest.mark.parametrize("levels", [(5.0, 1.0, 0.0), (5.0, 1.0)])
def test_the_error_on_a_users_levels_is_that_of_the_steps_by_hand(normal: Generator, levels: tuple[float, ...]) -> None:
    found = verify_generator(normal, levels=torch.tensor(levels), sampler=load_sampler("euler"), seed=3).levels
    assert found is not None
    x = (verifying._noise(normal.network, 3)[: verifying.FEW] / 20 * 5 - MEAN).flatten(1)
    keeps = lambda sigma: STD**2 / (STD**2 + sigma**2)  # noqa: E731
    made = MEAN + keeps(1) * (keeps(5) + (1 - keeps(5)) / 5) * x
    exact = MEAN + keeps(1) * math.sqrt((STD**2 + 1) / (STD**2 + 25)) * x
    wrong, size = ((each.square().mean(1)).sqrt() for each in (made - exact, exact))
    assert found.errors["euler"].value == pytest.approx((wrong / size.clamp_min(STD)).mean().item(), rel=1e-4)
    assert found.num_steps == 2


def test_of_normal_images_the_likelihood_is_their_entropy_and_levels_cost_nothing(
    normal: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of images with noise of σ_min, which is as much as they vary without."""
    asked = []
    bound = verifying.variational_bound
    monkeypatch.setattr(verifying, "variational_bound", lambda *a, **rest: asked.append(a[2]) or bound(*a, **rest))
    pixels = 255 * (1 + np.random.default_rng(0).normal(MEAN, STD, size=(16, 8, 8, 1))) / 2
    sources = tuple(pixels.round().clip(0, 255).astype(np.uint8).repeat(3, axis=-1))
    images = pictures(replace(make_split("test", 16, seed=0), sources=sources, labels=np.full(16, -1)))
    levels = torch.tensor([20.0, 4.0, 1.0, 0.5, MIN], dtype=torch.float64)
    found = verify_generator(normal, images=images, levels=levels, sampler=load_sampler("euler")).likelihood
    assert found is not None
    entropy = 0.5 * math.log(2 * math.pi * math.e * (STD**2 + MIN**2))
    assert found.flow.value == pytest.approx(entropy, abs=0.06)  # -0.16 in place of 0.16 if it were log p
    assert found.gap.value == pytest.approx(0, abs=0.06)
    assert found.gap.value == pytest.approx(found.bound.value - found.flow.value)
    assert torch.allclose((asked[0] ** 2 + MIN**2).sqrt(), levels[:-1])


def test_a_sampling_is_chosen_for_the_guided_model(model: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Exception):
        pass

    def choose(denoiser: Any, x: Any, *_: Any, **rest: Any):
        raise Asked(denoiser, x)

    monkeypatch.setattr(verifying, "choose_sampling", choose)
    with pytest.raises(Asked) as asked:
        choose_for(model, 0.1, label=1, like=Sampling(guidance=3.0, interval=(0.5, 2.0)))
    (denoiser, x), labels = asked.value.args, torch.ones(verifying.IMAGES, dtype=torch.int64)
    with torch.no_grad():
        for sigma in (torch.tensor(1.0).double(), torch.tensor(4.0).double()):
            ours = model.network.denoiser(labels, guidance=3.0, interval=(0.5, 2.0))
            assert torch.equal(denoiser(x, sigma), ours(x, sigma))
    assert x.std().item() == pytest.approx(20, rel=0.15)


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
    with pytest.raises(InputError, match="fall from step to step"):
        verify_generator(load_generator(folder), levels=torch.tensor([2.0, 2.0, 0.0]))
    for spec, message in (
        ("hein", "none of"),
        ("no.py:f", "no file no.py"),
        (f"{__file__}:nothing", "no function nothing"),
    ):
        with pytest.raises(InputError, match=message):
            load_sampler(spec)

"""Planted generators: what is as it should be holds, and each kind of fault turns its own rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import verdicts
from planted_generators import Planted, generator, image_of, images, raw
from torch import Tensor

from headfirst.claims import claim_12_noise as claim
from headfirst.claims import images_of_noise, run_claim
from headfirst.claims.known_targets import NOISES, TARGETS
from headfirst.generate import pictures
from headfirst.nn import PretrainedBackbone

WIDTH = 10.0
FIGURE = claim._figure


def planted_points(name: str, recipe: object, seed: int, *, num: int, **_: object) -> dict[str, Tensor]:
    """What a perfect generator, which is harmed by other noise, would have made."""
    random = torch.Generator().manual_seed(seed)
    target = TARGETS[name]
    found = {of: target(num, random) for of in ("target", "fresh sample", "Gaussian", "uniform", "skewed")}
    found["skewed"] += 0.5
    found["uniform"] += 0.0 if getattr(recipe, "noise", "Gaussian") == "uniform" else 0.5
    return {**found, "noise": torch.randn(num, found["target"].shape[1], generator=random)}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Perfect generators, few images, no picture."""
    monkeypatch.setattr(claim, "NUM_POINTS", 4000)
    for name, value in {"NUM_IMAGES": 300, "NUM_PAIRS": 80, "PATHS": 3, "seen": raw}.items():
        monkeypatch.setattr(images_of_noise, name, value)
    monkeypatch.setattr(claim, "ready", lambda data, *_: data)
    monkeypatch.setattr(claim, "points", planted_points)
    monkeypatch.setattr(claim, "trained", lambda *_: generator(Planted()))
    monkeypatch.setattr(claim, "_figure", lambda *_: "")
    return monkeypatch


DATA = images(train=400, val=20, test=300)


def test_it_holds_for_perfect_generators(world: pytest.MonkeyPatch, backbone: PretrainedBackbone, tmp_path: Path):
    world.setattr(claim, "_figure", FIGURE)
    result = run_claim(12, DATA, backbone, seeds=3, work=tmp_path)
    assert result.verdict == "holds"
    assert result.figure.startswith("<?xml")
    assert len([row for row in result.rows if row.primary]) == 6 + 3 + 1 + 6
    assert verdicts(result.rows, "in 1-D, perceptron: the same with uniform noise") == {"holds"}
    assert verdicts(result.rows, "trained with uniform noise") == {"holds"}
    assert verdicts(result.rows, "half-way along the") == {"holds"}
    assert verdicts(result.rows, "distance to its own samples, half-way straight") == {"holds"}
    assert verdicts(result.rows, "distance to the fifth nearest real image") == {"fails"}  # shorter noise, usual images


def test_what_noise_is_compared_with(world: pytest.MonkeyPatch, backbone: PretrainedBackbone):
    """Of features that are pixels: noise of the pool's variance in each, which is far, and of its covariance, which is
    not."""
    ramp = np.linspace(0.1, 1.0, 8)[None, :, None]  # so that pixels differ in their variance
    dimmed = {
        name: replace(split, sources=tuple((np.asarray(source) * ramp).astype(np.uint8) for source in split.sources))
        for name, split in DATA.splits.items()
    }
    asked: list[Tensor] = []
    world.setattr(images_of_noise, "seen", lambda of, _: asked.append(of) or raw(of, None))
    scene = images_of_noise.looked_at(replace(DATA, splits=dimmed), backbone)
    pool, (_, noise, *_) = pictures(dimmed["train"]).batch(), asked
    assert torch.allclose(noise.std(dim=0), pool.std(dim=0), rtol=0.2)
    assert torch.allclose(noise.mean(dim=0), pool.mean(dim=0), atol=0.05)
    for name in (images_of_noise.LINEAR, images_of_noise.FRESH):
        assert abs(scene.distance[name]) < 0.3 * scene.distance[images_of_noise.NOISE]


def test_it_fails_where_noise_comes_out_as_it_went_in(world: pytest.MonkeyPatch, backbone: PretrainedBackbone):
    def left(*args: object, **kwargs: object) -> dict[str, Tensor]:
        found = planted_points(*args, **kwargs)  # pyright: ignore[reportArgumentType]
        return {**found, "Gaussian": torch.randn(found["noise"].shape, generator=torch.Generator().manual_seed(9))}

    world.setattr(claim, "points", left)
    spread = image_of(torch.randn(2000, 16)).std().item()
    mixed = torch.randn(16, 64, generator=torch.Generator().manual_seed(5)) / 4
    world.setattr(claim, "trained", lambda *_: generator(Planted(
        lambda z: (0.5 + spread * (z @ mixed)).clamp(0, 1).unflatten(1, (1, 8, 8)))))  # fmt: skip
    result = run_claim(12, DATA, backbone, seeds=2)
    assert verdicts(result.rows, ": distance to it, generated over noise") >= {"fails"}
    assert verdicts(result.rows, "distance to real images") == {"fails"}
    assert verdicts(result.rows, "images that change") == {"holds"}
    assert result.verdict == "fails"


def test_it_fails_where_the_network_throws_dice(world: pytest.MonkeyPatch, backbone: PretrainedBackbone):
    world.setattr(claim, "trained", lambda *_: generator(Planted(lambda z: image_of(z + 0.3 * torch.randn_like(z)))))
    result = run_claim(12, DATA, backbone, seeds=2)
    assert verdicts(result.rows, "images that change") == {"fails"}
    assert result.verdict == "fails"


def test_it_fails_where_the_image_jumps(world: pytest.MonkeyPatch, backbone: PretrainedBackbone):
    """Every image is of one of two kinds, by the sign of one number."""
    far = torch.zeros(16)
    far[0] = WIDTH
    world.setattr(claim, "trained", lambda *_: generator(Planted(lambda z: image_of(z * 0.01 + far * z[:, :1].sign()))))
    a, b = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(0))
    a[:, 0], b[:, 0] = a[:, 0].abs(), -b[:, 0].abs()
    step, halved = images_of_noise.smoothness(claim.trained(), a, b)  # pyright: ignore[reportCallIssue]
    assert step > 0.8
    assert halved > 0.95


def test_smooth_is_half_as_long_in_twice_as_many_steps():
    """A linear map and a right angle: each of M steps is 2 sin(π / 4M), and the ends are √2 apart."""
    a, b = torch.zeros(2, 1, 16)
    a[0, 0] = b[0, 1] = 1.0
    flat = generator(Planted(lambda z: torch.nn.functional.pad(z, (0, 48)).unflatten(1, (1, 8, 8))))
    step, halved = images_of_noise.smoothness(flat, a, b)
    steps = [
        torch.tensor(torch.pi / (4 * m)).double().sin() for m in (images_of_noise.STEPS, 2 * images_of_noise.STEPS)
    ]
    assert step == pytest.approx((2 * steps[0] / 2**0.5).item(), rel=1e-5)
    assert halved == pytest.approx((steps[1] / steps[0]).item(), rel=1e-5)


def test_images_that_are_asked_for_again():
    assert images_of_noise.asked_again(generator(Planted()), 0) == (0, 0)
    changed, repeated = images_of_noise.asked_again(generator(Planted(lambda z: image_of(0 * z))), 0)
    assert (changed, repeated) == (0, 70)


def test_the_middle_of_a_line_is_short_and_that_of_an_arc_is_not():
    a, b = torch.eye(2)[None, 0], torch.eye(2)[None, 1]
    assert images_of_noise.middles(a, b, images_of_noise.linear_path).tolist() == [[0.5, 0.5]]
    assert images_of_noise.middles(a, b, images_of_noise.spherical_path)[0].norm().item() == pytest.approx(1.0)


def test_the_distance_to_real_images_is_that_of_the_fifth():
    real = torch.arange(10.0)[:, None] * torch.tensor([[3.0, 4.0]])
    assert images_of_noise.to_real(torch.zeros(1, 2), real) == pytest.approx(20.0)


def test_other_noise_is_named():
    assert tuple(NOISES) == ("Gaussian", "uniform", "skewed")

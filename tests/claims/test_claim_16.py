"""Players whose points are planted: what collapses, when, and what the alarm then says is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from planted import CLASSES, features, named_images, verdicts
from torch import Tensor, nn

from headfirst.claims import claim_16_mode_collapse as claim
from headfirst.claims import run_claim
from headfirst.claims.point_diffusion import PointDiffusion
from headfirst.data import ImageSet
from headfirst.generate import GAN, RELATIVISTIC, Diffusion, Generator, GridGAN, grid_mode, grid_points

Plan = Callable[[bool, float, int], int]
"""(healthy, share of the turns, seed) → modes that the points are of."""


def points_of(modes: int, seed: int) -> Tensor:
    """1,000 real points, those of other modes moved into the first `modes` of them."""
    points = grid_points(np.arange(1000), seed=100 + seed)
    centres = torch.cartesian_prod(*[2.0 * (torch.arange(5) - 2)] * 2)
    of = grid_mode(points)
    return points + centres[of.clamp(min=0) % modes] - centres[of.clamp(min=0)]


class Classes(nn.Module):
    """Images of `count` classes, each one shade of grey, by the first number of the noise."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.config: dict[str, object] = {}
        self.noise_dim, self.count = 1, count

    def forward(self, noise: Tensor, labels: None) -> Tensor:
        label = (torch.special.ndtr(noise[:, 0]) * self.count).floor()
        return (label * 60 / 255)[:, None, None, None].expand(-1, 1, 8, 8)


class World:
    """Trainings that follow a plan, counted; and images that are features of a class."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, plan: Plan, *, sick_classes: int = 1) -> None:
        self.fitted: list[tuple[str, int]] = []

        def fit(recipe: GridGAN, *, seed: int, watch: Callable[[int, Tensor], None]) -> None:
            self.fitted.append((repr(recipe), seed))
            for share in (0.25, 0.5, 1.0):
                watch(
                    int(share * recipe.steps),
                    points_of(plan(recipe.rules != claim.PAIR[claim.COLLAPSING].rules, share, seed), seed),
                )

        def learned(recipe: PointDiffusion, draw: Callable[..., Tensor], *, seed: int) -> Callable[[Tensor], Tensor]:
            self.fitted.append((repr(recipe), seed))
            some = [draw(500, torch.Generator().manual_seed(k)) for k in range(2)]
            assert not torch.equal(*some)  # fresh ones
            return lambda noise: torch.cat(some)[: len(noise)]

        def trained(recipe: GAN | Diffusion, *_: object) -> Generator:
            healthy = recipe != claim.IMAGES[claim.COLLAPSING]
            events = [] if healthy else ["epoch 9: mode collapse: all are alike"]
            return Generator(kind="gan", network=Classes(3 if healthy else sick_classes), classes=(), shares=(),
                             trained_on="", recipe="", record={"events": events})  # fmt: skip

        def seen(images: Tensor, _: object) -> Tensor:
            labels = (images[:, 0, 0, 0] * 255 / 60).round().long()
            noise = torch.randn(len(images), 3, generator=torch.Generator().manual_seed(1))
            return torch.eye(3)[labels] + 0.05 * noise

        def embed(_: object, split: Any) -> object:
            noise = torch.randn(len(split), 3, generator=torch.Generator().manual_seed(len(split)))
            return features(torch.eye(3)[torch.as_tensor(split.labels)] + 0.05 * noise, split)

        monkeypatch.setattr(GridGAN, "fit", fit)
        monkeypatch.setattr(PointDiffusion, "fit", learned)
        for name, planted in {"trained": trained, "seen": seen, "embed": embed, "ready": lambda data, *_: data}.items():
            monkeypatch.setattr(claim, name, planted)
        splits = {name: named_images(name, count) for name, count in {"train": 90, "val": 9, "test": 300}.items()}
        self.images = ImageSet(name="planted", splits=splits, classes=CLASSES)


def honest(healthy: bool, share: float, seed: int) -> int:
    return 25 if healthy else 3 + seed % 2


def test_it_holds_where_the_one_loses_modes_and_the_alarm_tells(monkeypatch, backbone):
    world = World(monkeypatch, honest)
    result = run_claim(16, world.images, backbone, seeds=3)
    assert result.verdict == "holds"
    gap = next(row for row in result.rows if row.what == "modes of 25: healthy - collapsing")
    assert (gap.value, gap.primary) == (pytest.approx(65 / 3), True)
    assert len(world.fitted) == (2 + len(claim.cures()) + 1) * 3
    assert verdicts(result.rows, "modes of 25: diffusion") == {
        "holds",
        "undecided",
    }  # all of them; no more than healthy
    assert "diffusion 25, 25, 25" in result.fine_print[4]
    assert verdicts(result.rows, "images: classes covered: diffusion") == {"undecided"}
    assert "healthy 25, 25, 25; collapsing 3, 4, 3" in result.fine_print[1]
    assert "a collapse in 0 of 3" in result.fine_print[-1]
    assert "a collapse in 3 of 3" in result.fine_print[-1]
    assert result.fine_print[-1].count("the training itself") == 2
    assert verdicts(result.rows, "R1 + R2 - collapsing") == {"holds"}
    assert verdicts(result.rows, "reverse KL") == {"holds"}
    assert verdicts(result.rows, "images: classes covered: healthy") == {"holds"}
    assert result.figure.startswith("<?xml")


@pytest.mark.parametrize(
    ("plan", "row"),
    [
        (lambda healthy, share, seed: 25 if healthy else 20 + seed % 2, "modes of 25: collapsing"),
        (lambda healthy, share, seed: 22 + seed % 2 if healthy else 3 + seed % 2, "modes of 25: healthy"),
        (lambda healthy, share, seed: 3 + seed % 2 if healthy else 8 + seed % 2, "healthy - collapsing"),
        (lambda healthy, share, seed: 25 if healthy or share < 0.6 else 3, "reads in each collapsing training"),
        (lambda healthy, share, seed: 25 if healthy and share > 0.6 else 3, "reads in each healthy one"),
    ],
)
def test_each_part_can_fail(monkeypatch, backbone, plan: Plan, row: str):
    monkeypatch.setattr(claim, "pictured", lambda *_, **__: "")
    result = claim.run(World(monkeypatch, plan).images, backbone, range(3), quick=True)
    assert result.verdict == "fails"
    assert "fails" in {r.verdict for r in result.rows if r.primary and row in r.what}


def test_one_training_on_the_other_side_leaves_the_alarm_undecided_and_the_quick_version_has_no_images(
    monkeypatch, backbone
):
    plan: Plan = lambda healthy, share, seed: 25 if healthy or (seed == 1 and share < 0.6) else 3  # noqa: E731
    result = run_claim(16, World(monkeypatch, plan).images, backbone, quick=True)
    assert verdicts(result.rows, "reads in each collapsing") == {"undecided"}
    assert verdicts(result.rows, "reads in each healthy") == {"holds"}
    assert result.verdict == "undecided"
    assert not any("images" in row.what for row in result.rows)
    assert result.quick
    assert f"{claim.QUICK_STEPS} turns of 512 points" in result.fine_print[0]


def test_what_was_finished_is_not_done_again(monkeypatch, backbone, tmp_path):
    monkeypatch.setattr(claim, "pictured", lambda *_, **__: "")
    world = World(monkeypatch, honest)
    first = run_claim(16, world.images, backbone, quick=True, work=tmp_path)
    assert len(world.fitted) == 4
    again = run_claim(16, world.images, backbone, quick=True, work=tmp_path)
    assert (again.as_json(), len(world.fitted)) == (first.as_json(), 4)
    next(tmp_path.glob("grid-1-*")).unlink()
    assert run_claim(16, world.images, backbone, quick=True, work=tmp_path).as_json() == first.as_json()
    assert len(world.fitted) == 5
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}


def test_a_cure_has_the_same_budget_and_the_one_change_it_names():
    sick = claim.PAIR[claim.COLLAPSING]
    changed = {name: claim.differing(sick, recipe) for name, recipe in claim.cures().items()}
    penalties = [
        name for name in ("r1", "r2", "anneal", "lazy") if name in claim.differing(sick, claim.PAIR[claim.HEALTHY])
    ]
    assert changed == {"pairs compared": ["losses"], "R1 + R2": penalties}
    assert claim.cures()["pairs compared"].rules.losses == RELATIVISTIC
    assert {"r1", "r2"} <= set(penalties)
    assert claim.differing(sick, replace(sick, steps=3, rules=replace(sick.rules, lr=1.0))) == ["steps", "lr"]


def test_reverse_divergence_is_finite_and_known():
    one = torch.zeros(40, 2)
    assert claim.reverse_divergence(one) == pytest.approx(math.log(25 / (1 - math.exp(-4.5))))
    nowhere = torch.ones(40, 2)
    assert claim.reverse_divergence(nowhere) == pytest.approx(4.5)
    half = torch.cat([one, nowhere])
    expected = 0.5 * math.log(0.5 * 25 / (1 - math.exp(-4.5))) + 0.5 * math.log(0.5 / math.exp(-4.5))
    assert claim.reverse_divergence(half) == pytest.approx(expected)
    assert claim.reverse_divergence(grid_points(np.arange(2500), seed=1)) == pytest.approx(25 / 5000, abs=0.004)


def test_the_alarm_knows_no_modes():
    real = grid_points(np.arange(250), seed=7)
    coverage, alike = claim.watched(points_of(25, 0), real)
    assert (coverage, alike) == (pytest.approx(1.0, abs=0.03), pytest.approx(1.0, abs=0.7))
    few, _ = claim.watched(points_of(5, 0), real)
    share = np.isin(grid_mode(real), range(5)).mean()
    assert share <= few < share + 0.12  # a few balls of thin modes reach into others
    assert claim.watched(torch.zeros(1000, 2), real)[1] == pytest.approx(1 / claim.RARE)
    turns = torch.arange(400.0, 8001, 400)
    assert claim.early({"turns": turns, "coverage": torch.where(turns == 4000, 0.6, 0.1)}) == pytest.approx(0.6)


def test_images_are_judged_by_a_probe_and_by_their_neighbours(monkeypatch, backbone, tmp_path):
    world = World(monkeypatch, honest, sick_classes=2)
    images = claim.on_images(world.images, backbone, (0, 1), tmp_path)
    assert [[f.classes for f in each] for each in images.values()] == [[3, 3], [2, 2], [3, 3]]
    healthy, sick = images[claim.HEALTHY][0], images[claim.COLLAPSING][0]
    assert (healthy.weights, sick.weights) == (pytest.approx(0, abs=0.04), pytest.approx(1 / 3, abs=0.04))
    assert sick.coverage == pytest.approx(2 / 3 * healthy.coverage, rel=0.1)
    assert (healthy.alarms, sick.alarms) == (0, 1)


def test_a_real_training_is_traced(tmp_path):
    trace = claim.played(replace(GridGAN(), steps=40, batch_size=16, hidden=8), 1, tmp_path)
    assert trace["turns"].tolist() == list(range(2, 41, 2))
    assert trace["points"].shape == (2500, 2)
    assert trace["modes"][-1] == claim.read_grid(trace["points"]).modes


def test_a_diffusion_model_is_read_at_its_end(tmp_path):
    recipe = PointDiffusion(scale=2.8, steps=10, batch_size=32, hidden=8, waves=2)
    trace = claim.played(recipe, 1, tmp_path)
    assert trace["turns"].tolist() == [10.0]
    assert trace["points"].shape == (2500, 2)
    assert torch.equal(claim.played(recipe, 1, tmp_path)["points"], trace["points"])

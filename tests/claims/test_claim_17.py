"""Planted curves: each kind of fault turns its own rows; a tiny network and its students go through."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from planted import verdicts
from planted_generators import images, raw
from torch import Tensor

from headfirst.claims import claim_17_fast_sampling as claim
from headfirst.claims import few_steps, known_flow, run_claim
from headfirst.claims.few_steps import FULL, QUICK, Plan, at, fewest, lasting, most_steps
from headfirst.claims.known_flow import METHODS, Reading, readings
from headfirst.data import prepare
from headfirst.generate.diffusion import ConsistencyDistillation, ProgressiveDistillation, ddim
from headfirst.nn import PretrainedBackbone, UNetShape

DATA = images(train=60, val=20, test=60)
ASKED = (1, 2, 4, 8, 16, 32, 64)


def planted(evaluations: tuple[int, ...], distances: tuple[float, ...]) -> dict[str, Tensor]:
    return {
        "evaluations": torch.tensor(evaluations),
        "distances": torch.tensor(distances, dtype=torch.float64),
        "images": torch.zeros(len(evaluations), few_steps.SHOWN, 1, 16, 16),
    }


def as_claimed(way: str, seed: int) -> dict[str, Tensor]:
    """DDPM at 5 after 1,000 evaluations; the others there after 16, but DDIM after 64; students after one."""
    if way == "DDPM":
        return planted((4, 50, 1000), (90.0, 20.0, 5.0 + 0.01 * seed))
    if way in FULL.students:
        return planted((1, 2, 4), (5.2, 5.1, 5.1))
    enough = 64 if way == "DDIM" else 16
    return planted(ASKED, tuple(5.1 if n >= enough else 90.0 - n for n in ASKED))


def reading(order: float) -> Reading:
    steps = (4, 8, 16, 32, 64, 128)
    return Reading(order=order, evaluations=steps, errors=tuple(n**-order for n in steps))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(few_steps, "seen", raw)
    monkeypatch.setattr(claim, "ready", lambda data, *_: data)
    monkeypatch.setattr(claim, "trained_network", lambda *_: None)
    monkeypatch.setattr(claim, "curve", lambda way, plan, scene, backbone, seed, work: as_claimed(way, seed))
    monkeypatch.setattr(claim, "readings", lambda _: {name: reading(m.order) for name, m in METHODS.items()})
    return monkeypatch


def test_it_holds_where_sampling_is_fast(world: pytest.MonkeyPatch, backbone: PretrainedBackbone, tmp_path: Path):
    result = run_claim(17, DATA, backbone, seeds=3, work=tmp_path)
    assert result.verdict == "holds"
    assert len([row for row in result.rows if row.primary]) == len(METHODS) + 1
    speeds = {row.what.split(":")[0]: row.value for row in result.rows if "speed-up" in row.what}
    assert speeds["DPM-Solver++"] == pytest.approx(1000 / 16)
    assert speeds["DDIM"] == pytest.approx(1000 / 64)
    assert speeds["consistency"] == pytest.approx(1000)
    assert verdicts(result.rows, "DDIM: speed-up") == {"fails"}
    assert verdicts(result.rows, "DDPM itself with at most") == {"holds"}
    assert verdicts(result.rows, "is near enough") == {"holds"}
    assert verdicts(result.rows, "DDPM itself on these levels") == {"fails"}
    assert verdicts(result.rows, "all that are more evaluations") == {"holds"}
    assert "DPM-Solver++ is nearer than DDIM from 1" not in " ".join(result.fine_print)
    assert result.figure.startswith("<?xml")


@pytest.mark.parametrize(
    ("distances", "verdict"),
    [
        ([90.0] * 4 + [5.1, 9.0, 9.0], "holds"),  # 16 evaluations, though not more
        ([90.0] * 7, "fails"),
        ([90.0] * 5 + [5.6, 5.1], "fails"),  # 64 evaluations: 15.6 times
        ([90.0] * 5 + [5.3, 5.1], "holds"),  # 32
    ],
)
def test_the_speed_up_is_at_equal_quality(
    world: pytest.MonkeyPatch, backbone: PretrainedBackbone, tmp_path: Path, distances: list[float], verdict: str
):
    def curve(way: str, plan: Plan, scene: object, backbone: object, seed: int, work: Path) -> dict[str, Tensor]:
        return planted(ASKED, tuple(distances)) if way == claim.FAST else as_claimed(way, 0)

    world.setattr(claim, "curve", curve)
    world.setattr(claim, "pictured", lambda *_, **__: "")
    assert run_claim(17, DATA, backbone, seeds=2, work=tmp_path).verdict == verdict


def test_a_sampler_of_a_lower_order_is_found_out(
    world: pytest.MonkeyPatch, backbone: PretrainedBackbone, tmp_path: Path
):
    world.setattr(claim, "pictured", lambda *_, **__: "")
    for name, order in (("Heun", 1.0), ("DPM-Solver++ 3M", 2.0), ("DDIM", 1.2)):
        of = {each: reading(m.order) for each, m in METHODS.items()} | {name: reading(order)}
        world.setattr(claim, "readings", lambda _, of=of: of)
        result = run_claim(17, DATA, backbone, seeds=2, work=tmp_path)
        assert {row.what.split(":")[1].strip() for row in result.rows if row.verdict == "fails" and row.primary} == {
            name
        }


def test_orders_on_a_mixture(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(known_flow, "STEPS", (16, 32))
    monkeypatch.setattr(known_flow, "READ", 16)
    some = {name: METHODS[name] for name in ("DDIM", "DPM-Solver++ 2M", "DPM-Solver++ 3M")}
    lying = {**some, "Heun": replace(METHODS["Heun"], sampler=ddim)}
    monkeypatch.setattr(known_flow, "METHODS", lying)
    found = readings(3)
    assert found["DDIM"].order == pytest.approx(1, abs=0.1)
    assert found["DPM-Solver++ 2M"].order == pytest.approx(2, abs=0.15)
    assert found["DPM-Solver++ 3M"].order > 2.6
    assert found["Heun"].order == found["DDIM"].order
    assert found["DDIM"].evaluations == (16, 32)
    assert found["DPM-Solver++ 3M"].evaluations == (17, 33)


def test_what_an_accuracy_costs():
    found = Reading(order=2.0, evaluations=(10, 20, 40), errors=(0.04, 0.01, 0.0025))
    assert found.cost(0.01) == pytest.approx(20)
    assert found.cost(0.005) == pytest.approx(20 * math.sqrt(2))
    assert found.cost(0.1) == 10
    assert found.cost(1e-6) == 40


def test_rows_of_a_curve():
    found = planted((1, 4, 16), (9.0, 3.0, 2.0))
    assert [fewest(found, limit) for limit in (1.0, 2.0, 3.5, 9.0)] == [math.inf, 16, 4, 1]
    bent = planted((1, 4, 16), (2.0, 9.0, 2.0))
    assert (fewest(bent, 2.5), lasting(bent, 2.5), lasting(bent, 1.0)) == (1, 16, math.inf)
    assert [at(found, n) for n in (1, 5, 100)] == [9.0, 3.0, 2.0]
    assert [most_steps("heun", n) for n in (1, 2, 3, 16)] == [1, 1, 2, 8]
    assert [most_steps("dpm_pp_2m", n) for n in (1, 16)] == [1, 16]


def test_a_tiny_network_and_its_students(monkeypatch: pytest.MonkeyPatch, backbone: PretrainedBackbone, tmp_path: Path):
    monkeypatch.setattr(few_steps, "seen", raw)
    monkeypatch.setattr(few_steps, "SAMPLERS", {"DDPM": "ddpm", "Heun": "heun"})
    small = UNetShape(widths=(8,), head_dim=8)
    plan = Plan(
        recipe=replace(FULL.recipe, shape=small, size=8, epochs=1, fewest=1),
        students={
            "progressive": ProgressiveDistillation(num_steps=2, start=4, epochs=2),
            "latent consistency": ConsistencyDistillation(num_levels=3, epochs=1, guidance=(1.0, 2.0)),
        },
        evaluations=(1, 4),
        yardstick=(2, 6),
        num=40,
    )
    scene = few_steps.looked_at(prepare(DATA, backbone.preprocessing), backbone, plan)
    found = {way: few_steps.curve(way, plan, scene, backbone, 0, tmp_path) for way in plan.ways}
    counts = {way: each["evaluations"].tolist() for way, each in found.items()}
    assert counts == {"DDPM": [2, 6], "Heun": [1, 3], "progressive": [2], "latent consistency": [1, 2, 4, 8]}
    assert all(bool((each["distances"] > scene.fresh).all()) for each in found.values())
    assert not torch.equal(found["Heun"]["images"][0], found["Heun"]["images"][1])
    monkeypatch.setattr(few_steps, "trained", lambda *_: pytest.fail("trained again"))
    again = few_steps.curve("latent consistency", plan, scene, backbone, 0, tmp_path)
    assert all(torch.equal(again[name], value) for name, value in found["latent consistency"].items())


@pytest.mark.parametrize("plan", [FULL, QUICK], ids=["full", "quick"])
def test_a_plan_asks_for_what_its_rows_look_at(plan: Plan):
    assert plan.yardstick[0] <= plan.yardstick[-1] / claim.FACTOR
    assert plan.evaluations[0] <= claim.STUDENTS_AT
    assert all(recipe.num_steps <= claim.STUDENTS_AT for recipe in plan.students.values())

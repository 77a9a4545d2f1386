"""Exact where theory says so; a decay, or a movement out of the span, must turn the verdict."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from planted import features, named_images, noise, plant, verdicts
from torch import Tensor

from headfirst.adapt import LinearProbe
from headfirst.claims import claim_05_unchanged as claim
from headfirst.claims import linear_network, run_claim
from headfirst.claims.experiment import ready
from headfirst.claims.linear_network import linear_movement
from headfirst.data import ImageSet, ImageSplit, few_shot
from headfirst.features import embed
from headfirst.nn import PretrainedBackbone
from headfirst.types import Features, silent

DIM = 6


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_network, "STEPS", 30)


def spread_out(split: ImageSplit) -> Tensor:
    """Home in the first three dimensions, shifts in all six."""
    values = noise(split, DIM)
    return values if split.name not in ("train", "val", "test") else values * (torch.arange(DIM) < 3)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """Planted features before; what fine-tuning makes of them is planted by `moved_by`."""
    monkeypatch.setattr(claim, "fine_tuned", lambda head, *_, **__: head)
    return plant(monkeypatch, claim, spread_out)


def moved_by(monkeypatch: pytest.MonkeyPatch, inside: float, outside: float) -> None:
    step = torch.tensor([inside] * 3 + [outside] * 3)

    def after(_: object, split: ImageSplit) -> Features:
        return features(spread_out(split) + step * noise(split, DIM, of="step"), split)

    monkeypatch.setattr(claim, "embed_unstored", after)


@pytest.mark.parametrize(("inside", "outside", "verdict"), [(1.0, 0.01, "holds"), (1.0, 1.0, "fails")])
def test_the_verdict_follows_where_the_features_were_moved(
    inside: float, outside: float, verdict: str, planted: ImageSet, backbone: PretrainedBackbone,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    moved_by(monkeypatch, inside, outside)
    result = run_claim(5, planted, backbone, seeds=3)
    assert result.verdict == verdict
    assert result.figure.startswith("<?xml")
    ratio = next(row.value for row in result.rows if row.what == "backbone, random head: orthogonal over home movement")
    assert ratio == pytest.approx(outside / inside, rel=0.05)


def test_weight_decay_in_the_linear_network_makes_the_claim_fail(
    planted: ImageSet, backbone: PretrainedBackbone, monkeypatch: pytest.MonkeyPatch
):
    moved_by(monkeypatch, 1.0, 0.0)
    decaying = {**linear_network.OPTIMISERS, "gradient descent": (partial(torch.optim.SGD, weight_decay=1e-6), 0.5)}
    monkeypatch.setattr(linear_network, "OPTIMISERS", decaying)
    result = run_claim(5, planted, backbone, seeds=2)
    assert result.verdict == "fails"
    assert verdicts(result.rows, "orthogonal to the training inputs") == {"fails"}
    assert verdicts(result.rows, "backbone, random head: orthogonal over home") == {"holds"}


def test_linear_network_moves_the_span_and_nothing_else():
    home = features(noise(named_images("train", 30), 20), named_images("train", 30))
    shifted = noise(named_images("shift", 50), 20)
    descent = linear_movement(home, shifted, "gradient descent", seed=0)
    assert descent.orthogonal < 1e-10
    assert descent.inside > 0.1
    assert linear_movement(home, shifted, "AdamW", seed=0).orthogonal > 1e-2


def test_shares_of_a_known_movement():
    before, basis = torch.tensor([[3.0, 4.0], [0.6, 0.8]]), torch.eye(2)[:, :1]
    found = claim.shares(before, before + torch.tensor([[5.0, 2.5], [1.0, 0.5]]), basis)
    assert (found.inside, found.outside, found.ratio) == pytest.approx((1.0, 0.5, 0.5))
    assert found.there == pytest.approx(4 / 3)


def test_fine_tuning_both_ways_on_tiny_images(
    backbone: PretrainedBackbone, images: ImageSet, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(claim, "EPOCHS", 1)
    data = ready(images, backbone, silent)
    train = few_shot(data["train"], 6, seed=0)
    probe = LinearProbe().fit(embed(backbone, train))
    pretrained = backbone.fingerprint
    tuned = [claim.fine_tuned(head, backbone, train, probe, mirror=False, seed=0) for head in claim.HEADS]
    assert backbone.fingerprint == pretrained
    assert len({pretrained, *(each.fingerprint for each in tuned)}) == 1 + len(claim.HEADS)


def test_on_tiny_images(backbone: PretrainedBackbone, images: ImageSet, monkeypatch: pytest.MonkeyPatch):
    for module in ("experiment", "claim_05_unchanged"):
        monkeypatch.setattr(f"headfirst.claims.{module}.SHOTS", 6)
    monkeypatch.setattr(claim, "EPOCHS", 1)
    result = run_claim(5, images, backbone, seeds=2)
    assert verdicts(result.rows, "linear network: ") == {"holds"}
    assert sum(row.primary for row in result.rows) == 4

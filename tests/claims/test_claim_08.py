"""Planted features around planted class names: zero-shot wins where they agree, and is overtaken where they do not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from planted import noise, plant, verdicts
from torch import Tensor
from torch.nn import functional as F

from headfirst.adapt import ZeroShot, ZeroShotModel
from headfirst.claims import claim_08_zero_shot as claim
from headfirst.claims import run_claim
from headfirst.data import ImageSet, ImageSplit
from headfirst.errors import InputError
from headfirst.nn import DualEncoder, load_dual_encoder

DIM = 24


def around_the_axes(split: ImageSplit) -> Tensor:
    """Three axes for three classes, under noise that one example a class does not see through."""
    return F.one_hot(torch.as_tensor(split.labels), DIM).float() + 0.45 * noise(split, DIM)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    monkeypatch.setattr(claim, "LABELS", (1, 5, 40))
    return plant(monkeypatch, claim, around_the_axes)


def named(monkeypatch: pytest.MonkeyPatch, directions: Tensor, encoder: DualEncoder) -> DualEncoder:
    """Class names whose embeddings are `directions` (K, D)."""

    def fit(recipe: ZeroShot, _: object) -> ZeroShotModel:
        return ZeroShotModel(
            recipe=recipe, classes=tuple(recipe.class_names), prompts=recipe.prompts(), encoder="planted",
            directions=F.normalize(directions, dim=1), logit_scale=10.0, logit_bias=None,
        )  # fmt: skip

    monkeypatch.setattr(ZeroShot, "fit", fit)
    monkeypatch.setattr(DualEncoder, "image_alone", lambda _: SimpleNamespace(name="planted"))
    return encoder


def test_it_holds_where_the_names_are_right(planted, monkeypatch, checkpoints):
    encoder = named(monkeypatch, torch.eye(3, DIM), load_dual_encoder(checkpoints("clip")))
    result = run_claim(8, planted, encoder, seeds=3)
    assert result.verdict == "holds"
    assert verdicts(result.rows, "against guessing") == {"holds"}
    assert result.figure.startswith("<?xml")


def test_it_fails_where_the_names_are_swapped_and_the_probe_overtakes(planted, monkeypatch, checkpoints):
    encoder = named(monkeypatch, torch.eye(3, DIM).roll(1, dims=0), load_dual_encoder(checkpoints("clip")))
    result = run_claim(8, planted, encoder, seeds=3)
    assert result.verdict == "fails"
    assert verdicts(result.rows, "zero-shot - probe with 40") == {"fails"}
    assert "on test by the probe at 1 labels a class" in result.fine_print[1]


def test_the_first_count_ahead_beyond_the_interval_is_named():
    generator = torch.Generator().manual_seed(0)
    zero_shot = torch.rand(1, 400, generator=generator) < 0.7
    probes = {("probe", k): torch.rand(3, 400, generator=generator) < p for k, p in ((1, 0.5), (5, 0.7), (20, 0.95))}
    assert claim.overtaken_at(zero_shot, probes, "probe") == 20
    assert claim.overtaken_at(zero_shot, probes, "anchored probe") is None


def test_a_backbone_of_the_wrong_kind_is_refused(images, backbone, checkpoints):
    with pytest.raises(InputError, match="claim 8 needs a text tower"):
        run_claim(8, images, backbone)
    with pytest.raises(InputError, match="claim 2 is about an image backbone"):
        run_claim(2, images, load_dual_encoder(checkpoints("clip")))


@pytest.mark.parametrize("number", [9, 10])
def test_claims_9_and_10_are_asked_of_a_dual_encoder_too(number, images, checkpoints):
    from dataclasses import replace

    fresh = replace(images, splits={name: replace(s, pixels=None, hashes=None) for name, s in images.splits.items()})
    result = run_claim(number, fresh, load_dual_encoder(checkpoints("clip")), quick=True)
    said = "class names" if number == 9 else "head of class names"
    assert any(said in text for text in (result.statement, *(row.what for row in result.rows)))

"""Planted embeddings: classes in one cone, whose norms decide, and classes at right angles, whose norms do not."""

from __future__ import annotations

import pytest
import torch
from planted import named_images, noise, plant, verdicts
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn import functional as F

from headfirst.claims import claim_09_normalised as claim
from headfirst.claims import run_claim
from headfirst.data import ImageSet, ImageSplit
from headfirst.nn import PretrainedBackbone


def in_a_cone(split: ImageSplit) -> Tensor:
    """A direction that all classes share, and beside it a shorter one of each class."""
    classes = F.one_hot(torch.as_tensor(split.labels), 3).float()
    return torch.cat([classes, torch.full((len(split), 1), 2.0)], dim=1) + 0.1 * noise(split, 4)


def at_right_angles(split: ImageSplit) -> Tensor:
    """One axis for each class: a dot product with another class is zero, however long it is."""
    return F.one_hot(torch.as_tensor(split.labels), 3).float()


def test_it_holds_in_a_cone(backbone: PretrainedBackbone, monkeypatch: pytest.MonkeyPatch):
    result = run_claim(9, plant(monkeypatch, claim, in_a_cone), backbone, seeds=4)
    assert result.verdict == "holds"
    assert verdicts(result.rows, "where the norm is the label") == {"fails"}
    assert verdicts(result.rows, "queries' norms alone") == {"holds"}
    assert result.figure.startswith("<?xml")


def test_it_does_not_where_classes_are_at_right_angles(backbone: PretrainedBackbone, monkeypatch: pytest.MonkeyPatch):
    result = run_claim(9, plant(monkeypatch, claim, at_right_angles), backbone, seeds=4)
    assert result.verdict == "undecided"
    assert verdicts(result.rows, "raw: share of decisions") == {"undecided"}


def test_it_does_not_without_a_disturbance(backbone: PretrainedBackbone, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(claim, "factors", lambda count, spread, *, seed: torch.ones(count, 1, dtype=torch.float64))
    assert run_claim(9, plant(monkeypatch, claim, in_a_cone), backbone, seeds=4).verdict == "undecided"


def test_it_fails_where_normalising_is_left_out(backbone: PretrainedBackbone, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(claim, "unit", claim.as_they_are)
    result = run_claim(9, plant(monkeypatch, claim, in_a_cone), backbone, seeds=2)
    assert result.verdict == "fails"
    assert verdicts(result.rows, "normalised: decisions that it changes") == {"fails"}
    assert verdicts(result.rows, "cosine similarity, largest") == {"fails"}


def test_both_rules_against_independent_ones():
    bank_split, query_split = named_images("train", 60), named_images("test", 40)
    bank, queries = noise(bank_split, 5).double(), noise(query_split, 5).double()
    labels = torch.as_tensor(bank_split.labels)
    found = claim.neighbours(queries, bank, labels, claim.unit)
    reference = KNeighborsClassifier(claim.NEIGHBOURS, metric="cosine", algorithm="brute").fit(bank, labels)
    assert found.tolist() == reference.predict(queries).tolist()

    directions = F.normalize(bank, dim=1)
    means = torch.stack([directions[labels == k].mean(dim=0) for k in range(3)])
    cosines = F.cosine_similarity(queries[:, None], means[None], dim=2)
    assert torch.equal(claim.nearest_mean(queries, bank, labels, claim.unit), cosines.argmax(dim=1))


def test_factors_have_the_spread_they_are_asked_for():
    drawn = claim.factors(20_000, 0.5, seed=0)
    assert (drawn > 0).all()
    assert drawn.log().std().item() == pytest.approx(0.5, rel=0.02)
    assert torch.equal(drawn, claim.factors(20_000, 0.5, seed=0))


def test_where_the_norm_is_the_label_normalising_leaves_a_guess():
    # in a cone, so that the two means lie apart by length and not by chance
    queries, bank = (
        5 + noise(named_images(name, count), 5).double() for name, count in (("test", 1000), ("train", 100))
    )
    as_they_are, normalised = claim.told_by_norm(queries, bank, seed=0)
    assert as_they_are.all()
    assert normalised.double().mean().item() == pytest.approx(0.5, abs=0.06)


def test_on_tiny_images(backbone: PretrainedBackbone, images: ImageSet, monkeypatch: pytest.MonkeyPatch):
    for module in ("experiment", "claim_09_normalised"):
        monkeypatch.setattr(f"headfirst.claims.{module}.SHOTS", 6)
    result = run_claim(9, images, backbone, quick=True)
    assert result.quick
    assert verdicts(result.rows, "normalised: decisions that it changes") == {"holds"}

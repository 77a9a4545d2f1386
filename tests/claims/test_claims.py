"""Verdicts are computed from intervals, and a claim whose arithmetic is disturbed must not hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from headfirst.claims import CLAIMS, ClaimResult, Comparison, over_seeds, run_claim, write_claim
from headfirst.claims.claim import judged, range_found
from headfirst.data import ImageSet
from headfirst.errors import InputError
from headfirst.nn import PretrainedBackbone


def comparison(low: float, high: float, claimed: str = "above", *, primary: bool = True) -> Comparison:
    return Comparison(what="x", value=(low + high) / 2, low=low, high=high, claimed=claimed, primary=primary)


@pytest.mark.parametrize(
    ("low", "high", "claimed", "verdict"),
    [
        (0.1, 0.3, "above", "holds"),
        (-0.3, -0.1, "above", "fails"),
        (-0.1, 0.3, "above", "undecided"),
        (-0.3, -0.1, "below", "holds"),
        (0.1, 0.3, "below", "fails"),
        (0.0, 0.3, "above", "undecided"),
        (0.0, 0.0, "exactly", "holds"),
        (0.0, 1e-12, "exactly", "fails"),
    ],
)
def test_a_comparison_is_judged_by_its_whole_interval(low: float, high: float, claimed: str, verdict: str):
    assert comparison(low, high, claimed).verdict == verdict


def test_a_claim_holds_only_if_every_primary_comparison_does():
    def verdict(*rows: Comparison) -> str:
        return ClaimResult(number=1, title="t", statement="s", rows=rows, figure="").verdict

    holds, fails, undecided = comparison(1.0, 2.0), comparison(-2.0, -1.0), comparison(-1.0, 1.0)
    aside = comparison(-2.0, -1.0, primary=False)
    assert verdict(holds, aside) == "holds"
    assert verdict(holds, undecided) == "undecided"
    assert verdict(undecided, fails, holds) == "fails"
    assert verdict(aside) == "undecided"


def test_the_interval_over_seeds_is_students():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=7)
    expected = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    found = over_seeds(values)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_range_is_what_was_found_and_a_judgement_its_interval():
    found = range_found([3.0, 1.0, 2.0, 10.0])
    assert (found.value, found.low, found.high) == (2.5, 1.0, 10.0)
    row = judged("x", found, "below", 11.0, primary=False)
    assert (row.value, row.low, row.high, row.threshold, row.primary) == (2.5, 1.0, 10.0, 11.0, False)
    assert (row.verdict, judged("x", found, "above", 2.0).verdict) == ("holds", "undecided")


def test_a_bar_in_a_quantity_ends_no_cell():
    row = judged("mean |D - ½|", range_found([0.1]), "below", 0.2)
    result = ClaimResult(number=13, title="t", statement="s", rows=(row,), figure="")
    line = next(line for line in result.as_markdown().splitlines() if "D - ½" in line)
    assert line.replace(r"\|", "").count("|") == 6


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("experiment", "claim_02_what_moves"):
        monkeypatch.setattr(f"headfirst.claims.{module}.SHOTS", 6)


@pytest.mark.usefixtures("few")
def test_claim_2_on_tiny_images_and_with_a_moved_probe(
    backbone: PretrainedBackbone, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    result = run_claim(2, images, backbone, seeds=2)
    assert result.verdict == "holds"
    assert result.figure.startswith("<?xml")
    written = write_claim(result, tmp_path)
    assert written.read_text() == result.figure
    assert json.loads((tmp_path / "claim-02.json").read_text())["verdict"] == "holds"

    from headfirst.claims import claim_02_what_moves as claim

    honest = claim.on_backbone

    def moved(of: PretrainedBackbone, model: object, *, seed: int) -> object:
        tuned = honest(of, model, seed=seed)
        import copy

        classifier = copy.deepcopy(tuned.classifier)
        with torch.no_grad():
            weight = next(classifier.backbone.parameters())
            weight[(0,) * weight.ndim] += 1e-6
        object.__setattr__(tuned, "classifier", classifier)
        return tuned

    monkeypatch.setattr(claim, "on_backbone", moved)
    assert run_claim(2, images, backbone, seeds=2).verdict == "fails"


def test_refusals(backbone: PretrainedBackbone, images: ImageSet):
    with pytest.raises(InputError, match="no claim 18"):
        run_claim(18, images, backbone)
    with pytest.raises(InputError, match="at least 2, got 1"):
        run_claim(2, images, backbone, seeds=1)
    with pytest.raises(InputError, match="claim 3 is about images"):
        run_claim(3, None, backbone)
    assert set(CLAIMS) == set(range(1, 18))

"""Planted features: shifts that are perpendicular to home, that are like home, and that are neither."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import noise, plant, verdicts
from torch import Tensor

from headfirst.claims import claim_04_perpendicular as claim
from headfirst.claims import run_claim
from headfirst.data import ImageSet, ImageSplit
from headfirst.metrics import span
from headfirst.nn import PretrainedBackbone

HOME_SPLITS = ("train", "val", "test")


def blocks(split: ImageSplit, first: float, second: float, common: float = 0.0) -> Tensor:
    """Noise in two perpendicular blocks of four dimensions, and a ninth that all images share."""
    shared = torch.full((len(split), 1), common)
    return torch.cat([first * noise(split, 4, of=split.name), second * noise(split, 4), shared], dim=1)


def perpendicular(split: ImageSplit) -> Tensor:
    return blocks(split, 1.0, 0.0) if split.name in HOME_SPLITS else blocks(split, 0.0, 5.0)


def alike(split: ImageSplit) -> Tensor:
    return blocks(split, 1.0, 0.0)


def oblique(split: ImageSplit) -> Tensor:
    return blocks(split, 1.0, 0.0) if split.name in HOME_SPLITS else blocks(split, 1.0, 1.0)


def sharing_a_mean(split: ImageSplit) -> Tensor:
    return blocks(split, 1.0, 0.0, 50.0) if split.name in HOME_SPLITS else blocks(split, 0.0, 5.0, 50.0)


@pytest.mark.parametrize(
    ("values", "verdict", "more_outside"),
    [(perpendicular, "holds", {"holds"}), (oblique, "fails", {"holds"}), (alike, "fails", {"undecided", "fails"})],
)
def test_the_verdict_follows_what_was_planted(
    values, verdict: str, more_outside: set[str], backbone: PretrainedBackbone, monkeypatch: pytest.MonkeyPatch
):
    data = plant(monkeypatch, claim, values)
    result = run_claim(4, data, backbone, seeds=3)
    assert result.verdict == verdict
    assert verdicts(result.rows, "share outside") <= more_outside
    assert result.figure.startswith("<?xml")


def test_a_shared_mean_hides_what_is_perpendicular_until_it_is_taken_out(
    backbone: PretrainedBackbone, monkeypatch: pytest.MonkeyPatch
):
    data = plant(monkeypatch, claim, sharing_a_mean)
    result = run_claim(4, data, backbone, seeds=3)
    assert result.verdict == "holds"
    not_centred = [row for row in result.rows if "not centred" in row.what]
    assert max(row.value for row in not_centred) < 5.0  # one shared direction holds all but everything
    assert "100% of the squared norm of held-out home" in result.fine_print[-1]


def test_a_random_span_lies_where_theory_puts_it():
    """The squared cosines between a span of r and a random one of q of D dimensions add up to r q / D on average."""
    draws = torch.randn(2, 400, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    home, away = draws[0] * (torch.arange(60) < 12), draws[1] * (torch.arange(60) >= 40)
    found = [claim.see(home, away, seed=seed) for seed in range(20)]
    squares = [seen.chance.deg2rad().cos().square().sum().item() for seen in found]
    assert np.mean(squares) == pytest.approx(found[0].rank * span(away, claim.ENERGY).shape[1] / 60, rel=0.05)
    assert all(seen.angles.min() > 89.9 and (seen.outside > 0.999).all() for seen in found)


def twice(outside: Tensor) -> list[claim.Seen]:
    """Two seeds that see the same: no spread over seeds."""
    nothing = torch.empty(0)
    return [claim.Seen(outside=outside, angles=nothing, chance=nothing, rank=0)] * 2


def test_the_excess_over_home_has_the_interval_of_independent_means():
    random = np.random.default_rng(0)
    shares = {"test": random.uniform(0.0, 0.2, 300), "shift-a": random.uniform(0.2, 1.0, 200),
              "shift-b": random.uniform(0.0, 0.9, 250)}  # fmt: skip
    seen = {name: twice(torch.from_numpy(values)) for name, values in shares.items()}
    found = claim.excess(seen, ["shift-a", "shift-b"])
    a, b, home = (shares[name] for name in ("shift-a", "shift-b", "test"))
    assert found.value == pytest.approx((a.mean() + b.mean()) / 2 - home.mean())
    error = ((a.var() / 200 + b.var() / 250) / 4 + home.var() / 300) ** 0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_corruptions_are_paired_with_the_images_they_are_of():
    share = torch.rand(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2
    more = share + 0.01 * torch.rand(100, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = claim.excess({"test": twice(share), "blur 4": twice(more)}, ["blur 4"])
    assert 0.004 < found.low < found.high < 0.006  # unpaired, the spread of the images would drown half a hundredth


def test_on_tiny_images_without_shifts_of_their_own(
    backbone: PretrainedBackbone, images: ImageSet, monkeypatch: pytest.MonkeyPatch
):
    for module in ("experiment", "claim_04_perpendicular"):
        monkeypatch.setattr(f"headfirst.claims.{module}.SHOTS", 6)
    result = run_claim(4, images.only("train", "val", "test"), backbone, seeds=2)
    assert not any("shift" in row.what for row in result.rows)
    assert sum(row.primary for row in result.rows) == 2

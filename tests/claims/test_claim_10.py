"""Planted features whose head is uncertain; a scale wrongly fitted, or no scale at all, must turn the verdict."""

from __future__ import annotations

import pytest
import torch
from planted import noise, plant, verdicts
from torch import Tensor
from torch.nn import functional as F

from headfirst.claims import claim_10_logit_scale as claim
from headfirst.claims import run_claim
from headfirst.data import ImageSet, ImageSplit
from headfirst.metrics import expected_calibration_error, fit_temperature
from headfirst.nn import PretrainedBackbone


def overlapping(split: ImageSplit) -> Tensor:
    """Three classes of which about one image in six is mistaken."""
    classes = F.one_hot(torch.as_tensor(split.labels), 6).float()
    return 2.0 * classes + noise(split, 6)


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    # So many that the scale of validation is that of test: log-loss is flat around its best.
    return plant(monkeypatch, claim, overlapping, val=2000, test=2000)


def test_it_holds_for_a_real_head(data: ImageSet, backbone: PretrainedBackbone):
    result = run_claim(10, data, backbone, seeds=3)
    assert result.verdict == "holds"
    assert result.figure.startswith("<?xml")


@pytest.mark.parametrize(("factor", "word"), [(8.0, "half"), (1 / 8, "double")])
def test_it_fails_where_the_scale_is_fitted_wrongly(
    factor: float, word: str, data: ImageSet, backbone: PretrainedBackbone, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(claim, "fit_temperature", lambda z, labels: fit_temperature(z, labels) / factor)
    result = run_claim(10, data, backbone, seeds=3)
    assert result.verdict == "fails"
    assert verdicts(result.rows, f"log-loss on test, {word}") == {"fails"}
    assert verdicts(result.rows, f"calibration error on test, {word}") == {"fails"}
    assert verdicts(result.rows, "decisions") == {"holds"}


def test_it_fails_where_a_bias_rides_along(
    data: ImageSet, backbone: PretrainedBackbone, monkeypatch: pytest.MonkeyPatch
):
    bias = torch.tensor([0.0, 2.0, 0.0], dtype=torch.float64)
    monkeypatch.setattr(claim, "sharpened", lambda z, scale: (scale * z + bias).softmax(dim=1))
    result = run_claim(10, data, backbone, seeds=2)
    assert result.verdict == "fails"
    assert verdicts(result.rows, "decisions that the scale changes") == {"fails"}
    assert verdicts(result.rows, "s z against z / T") == {"fails"}


def test_it_fails_where_the_scale_divides(
    data: ImageSet, backbone: PretrainedBackbone, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(claim, "sharpened", lambda z, scale: (z / scale).softmax(dim=1))
    result = run_claim(10, data, backbone, seeds=2)
    assert verdicts(result.rows, "entropy") == {"fails"}
    assert result.verdict == "fails"


def test_calibration_error_is_that_of_the_metrics():
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(200, 4, generator=generator, dtype=torch.float64).softmax(dim=1)
    labels = torch.randint(4, (200,), generator=generator)
    expected = expected_calibration_error(p, labels, num_bins=claim.NUM_BINS, binning="mass")
    assert claim.calibration_gaps(p, labels).sum(dim=0).abs().sum().item() == pytest.approx(expected, abs=1e-12)


def test_the_excess_of_calibration_error_is_the_difference_of_the_two():
    generator = torch.Generator().manual_seed(0)
    z, labels = torch.randn(300, 3, generator=generator, dtype=torch.float64), torch.arange(300) % 3
    swept = torch.stack([claim.sharpened(z, factor) for factor in claim.FACTORS])
    of_scale = [
        expected_calibration_error(swept[f], labels, num_bins=claim.NUM_BINS, binning="mass")
        for f in (claim.DOUBLE, claim.FITTED)
    ]
    found = claim.calibration_excess([swept, swept], labels, claim.DOUBLE)
    assert found.value == pytest.approx(of_scale[0] - of_scale[1], abs=1e-12)
    assert found.low < found.value <= found.high


def test_entropy_and_log_loss_against_torch():
    z = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(50) % 3
    reference = torch.stack([F.cross_entropy(one, labels, reduction="none") for one in z])
    assert torch.allclose(claim.log_losses(z.softmax(dim=2), labels), reference)
    assert torch.allclose(claim.entropies(z.softmax(dim=2)), torch.distributions.Categorical(logits=z).entropy())


def test_on_tiny_images(backbone: PretrainedBackbone, images: ImageSet, monkeypatch: pytest.MonkeyPatch):
    for module in ("experiment", "claim_10_logit_scale"):
        monkeypatch.setattr(f"headfirst.claims.{module}.SHOTS", 6)
    result = run_claim(10, images, backbone, quick=True)
    assert verdicts(result.rows, "entropy") == {"holds"}
    assert verdicts(result.rows, "decisions") == {"holds"}

import numpy as np
import pytest
import torch

from headfirst.errors import InputError
from headfirst.metrics import expected_calibration_error


def simulated(n=997, k=5, seed=0, sharpness=2.0):
    random = torch.Generator().manual_seed(seed)
    p = (sharpness * torch.randn(n, k, generator=random, dtype=torch.float64)).softmax(1)
    return p, torch.randint(k, (n,), generator=random)


def brute_force(p, labels, num_bins, binning, norm):
    """Row by row, straight from the definition; equal mass by numpy's array_split."""
    rows = [(max(q), float(int(np.argmax(q)) == y)) for q, y in zip(p.tolist(), labels.tolist(), strict=True)]
    if binning == "width":
        bins = [
            [r for r in rows if b / num_bins < r[0] <= (b + 1) / num_bins or (b == 0 and r[0] == 0)]
            for b in range(num_bins)
        ]
    else:
        bins = [part.tolist() for part in np.array_split(np.array(sorted(rows)), num_bins)]
    shares = [len(b) / len(rows) for b in bins if len(b)]
    gaps = [abs(np.mean([r[1] for r in b]) - np.mean([r[0] for r in b])) for b in bins if len(b)]
    if norm == "max":
        return max(gaps)
    power = {"l1": 1, "l2": 2}[norm]
    return sum(s * g**power for s, g in zip(shares, gaps, strict=True)) ** (1 / power)


@pytest.mark.parametrize("binning", ["width", "mass"])
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_agrees_with_the_definition_row_by_row(binning, norm, num_bins):
    p, labels = simulated()
    ours = expected_calibration_error(p, labels, num_bins, binning, norm)
    assert ours == pytest.approx(brute_force(p, labels, num_bins, binning, norm), abs=1e-12)


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_confidence_at_bin_edges(binning):
    """Confidences on k/10 exactly, 1 among them: right-closed bins, every row in one."""
    top = torch.tensor([0.6, 0.7, 0.8, 0.9, 1.0], dtype=torch.float64)
    p = torch.stack([top, 1 - top], dim=1)
    labels = torch.tensor([0, 1, 0, 1, 0])
    ours = expected_calibration_error(p, labels, 10, binning)
    assert ours == pytest.approx(brute_force(p, labels, 10, binning, "l1"), abs=1e-12)
    assert ours == pytest.approx((0.4 + 0.7 + 0.2 + 0.9 + 0.0) / 5)


def test_a_bin_holds_its_upper_edge():
    """0.55 and 0.6 share (0.5, 0.6]: their gaps partly cancel."""
    p = torch.tensor([[0.55, 0.45], [0.6, 0.4]], dtype=torch.float64)
    together = abs((0 + 1) - (0.55 + 0.6)) / 2
    assert expected_calibration_error(p, torch.tensor([1, 0]), 10) == pytest.approx(together)


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_certain_and_right_is_zero_certain_and_wrong_is_one(binning):
    certain = torch.eye(2, dtype=torch.float64)[[0, 0, 0]]
    for norm in ("l1", "l2", "max"):
        right = expected_calibration_error(certain, torch.tensor([0, 0, 0]), binning=binning, norm=norm)
        wrong = expected_calibration_error(certain, torch.tensor([1, 1, 1]), binning=binning, norm=norm)
        assert (right, wrong) == (0.0, pytest.approx(1.0))


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_the_order_of_the_rows_never_matters(binning):
    p, labels = simulated(n=203)
    p = torch.tensor([[0.7, 0.3], [0.9, 0.1]], dtype=torch.float64)[labels % 2]  # many equal confidences
    labels = (labels > 2).long()
    found = set()
    for seed in range(5):
        order = torch.randperm(203, generator=torch.Generator().manual_seed(seed))
        found.add(round(expected_calibration_error(p[order], labels[order], 15, binning), 12))
    assert len(found) == 1


def test_vanishes_as_a_calibrated_model_sees_more_rows():
    """Labels drawn from the model's own probabilities: the error falls as 1/√N."""
    random = torch.Generator().manual_seed(1)
    errors = []
    for n in (1_000, 100_000):
        p = torch.randn(n, 3, generator=random, dtype=torch.float64).softmax(1)
        labels = torch.multinomial(p, 1, generator=random)[:, 0]
        errors.append(expected_calibration_error(p, labels, binning="mass"))
    assert errors[1] < 0.01
    assert 3 < errors[0] / errors[1] < 30


def test_norms_are_ordered():
    p, labels = simulated(sharpness=4.0)
    l1, l2, largest = (expected_calibration_error(p, labels, norm=norm) for norm in ("l1", "l2", "max"))
    assert l1 <= l2 <= largest


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_bins": 0}, "at least 1, got 0")],
)
def test_refuses(options, message):
    p, labels = simulated(n=10)
    with pytest.raises(InputError, match=message):
        expected_calibration_error(p, labels, **options)
    with pytest.raises(InputError, match="apply softmax to logits first"):
        expected_calibration_error(p.log(), labels)

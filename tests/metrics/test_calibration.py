import numpy as np
import pytest
import torch

from headfirst.errors import InputError
from headfirst.metrics import (
    brier_decomposition,
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    reliability_bins,
)


def simulated(n=997, k=5, seed=0, sharpness=2.0):
    random = torch.Generator().manual_seed(seed)
    p = (sharpness * torch.randn(n, k, generator=random, dtype=torch.float64)).softmax(1)
    return p, torch.randint(k, (n,), generator=random)


def brute_force(p, labels, num_bins, binning, norm):
    """Row by row, straight from the definition; equal mass by numpy's array_split."""
    rows = [(max(q), float(int(np.argmax(q)) == y)) for q, y in zip(p.tolist(), labels.tolist(), strict=True)]
    return brute_force_norm(rows, num_bins, binning, norm)


def brute_force_norm(rows, num_bins, binning, norm):
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


@pytest.mark.parametrize("binning", ["width", "mass"])
@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_classwise_is_the_mean_of_one_against_the_rest(binning, num_bins):
    p, labels = simulated()
    each = [
        brute_force_norm(
            list(zip(p[:, k].tolist(), (labels == k).double().tolist(), strict=True)), num_bins, binning, "l1"
        )
        for k in range(5)
    ]
    assert classwise_calibration_error(p, labels, num_bins, binning) == pytest.approx(np.mean(each), abs=1e-12)


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_classwise_at_exactly_zero_and_one(binning):
    """Certain and right is 0; certain and wrong is 1 for the two classes concerned, 0 for the third."""
    certain = torch.eye(3, dtype=torch.float64)[[0, 1, 0, 1]]
    assert classwise_calibration_error(certain, torch.tensor([0, 1, 0, 1]), binning=binning) == 0
    wrong = classwise_calibration_error(certain, torch.tensor([1, 0, 1, 0]), num_bins=2, binning=binning)
    assert wrong == pytest.approx(2 / 3)


def test_classwise_sees_what_the_top_label_hides():
    """The second class is always given 0.3 and never true; the first is right as often as it says."""
    p = torch.tensor([[0.7, 0.3, 0.0]], dtype=torch.float64).expand(10, 3)
    labels = torch.tensor([0] * 7 + [2] * 3)
    assert expected_calibration_error(p, labels) == pytest.approx(0, abs=1e-12)
    assert classwise_calibration_error(p, labels) == pytest.approx((0 + 0.3 + 0.3) / 3)


@pytest.mark.parametrize("binning", ["width", "mass"])
@pytest.mark.parametrize("n", [9, 997])
def test_reliability_bins_add_up_to_the_calibration_error(binning, n):
    """Nine images leave some of fifteen bins empty; equal confidences share what is right."""
    p, labels = simulated(n=n)
    p[: n // 2] = p[0]
    bins = reliability_bins(p, labels, binning=binning)
    assert bins.count.sum() == n
    assert (bins.count > 0).all()
    assert (bins.confidence.diff() >= 0).all()
    gaps = bins.count * (bins.accuracy - bins.confidence).abs() / n
    assert gaps.sum().item() == pytest.approx(expected_calibration_error(p, labels, binning=binning), abs=1e-12)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(3))
    again = reliability_bins(p[order], labels[order], binning=binning)
    torch.testing.assert_close(again.accuracy, bins.accuracy)


def test_reliability_bins_of_equal_mass_are_numpys():
    p, labels = simulated(n=203)
    confidence, predicted = (x.numpy() for x in p.max(dim=1))
    order = np.argsort(confidence)
    parts = np.array_split(order, 15)
    bins = reliability_bins(p, labels)
    assert bins.count.tolist() == [len(part) for part in parts]
    assert bins.confidence.numpy() == pytest.approx([confidence[part].mean() for part in parts])
    assert bins.accuracy.numpy() == pytest.approx([(predicted == labels.numpy())[part].mean() for part in parts])


@pytest.mark.parametrize("num_bins", [1, 2, 15, 400])
@pytest.mark.parametrize("seed", range(3))
def test_brier_parts_add_up_exactly(num_bins, seed):
    p, labels = simulated(n=211, seed=seed, sharpness=3.0)
    p[:40] = torch.eye(5, dtype=torch.float64)[labels[:40] * 2 % 5]  # exactly 0 and 1, some right
    parts = brier_decomposition(p, labels, num_bins)
    whole = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bins
    assert whole == pytest.approx(brier_score(p, labels), abs=1e-14)


def test_brier_parts_of_few_distinct_probabilities():
    """Said 0.9: 7 of 10 right; said 0.6: 6 of 10 right. One probability a bin, so nothing is left within."""
    p = torch.tensor([0.9] * 10 + [0.6] * 10, dtype=torch.float64)
    labels = torch.tensor([0] * 7 + [1] * 3 + [0] * 6 + [1] * 4)
    parts = brier_decomposition(torch.stack([p, 1 - p], dim=1), labels, 10)
    assert parts.reliability == pytest.approx(2 * (0.5 * 0.2**2 + 0.5 * 0.0**2))
    assert parts.resolution == pytest.approx(2 * 0.05**2)
    assert parts.uncertainty == pytest.approx(2 * 0.65 * 0.35)
    assert parts.within_bins == pytest.approx(0, abs=1e-15)


def test_brier_parts_within_one_bin():
    """With one bin, what is left within is the variance of p less twice its covariance with the truth."""
    p, labels = simulated(n=500)
    parts = brier_decomposition(p, labels, 1)
    y = torch.nn.functional.one_hot(labels, 5).double()
    expected = sum(np.cov(p[:, k], ddof=0) - 2 * np.cov(p[:, k], y[:, k], ddof=0)[0, 1] for k in range(5))
    assert parts.within_bins == pytest.approx(expected)
    assert parts.resolution == pytest.approx(0, abs=1e-15)
    assert parts.reliability == pytest.approx((p.mean(dim=0) - y.mean(dim=0)).square().sum().item())


@pytest.mark.parametrize("metric", [classwise_calibration_error, reliability_bins, brier_decomposition])
def test_the_others_refuse(metric):
    p, labels = simulated(n=10)
    with pytest.raises(InputError, match="at least 1, got 0"):
        metric(p, labels, 0)
    with pytest.raises(InputError, match="apply softmax to logits first"):
        metric(p.log(), labels)
    with pytest.raises(InputError, match=r"lie in 0 … 4, got 5 at row 0"):
        metric(p, labels * 0 + 5)

"""Calibration, conformal sets and refusal as rows: planted temperatures are undone, coverage is what was promised."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from headfirst.errors import InputError
from headfirst.evaluation import calibrated, reliability, risk_coverages, temperatures, trust_rows
from headfirst.types import Predictions

K = 5


def drawn(
    split: str, n: int, *, factor: float = 1.0, seed: int = 0, stream: int = 0, shift: float = 0.0
) -> Predictions:
    """Logits whose labels are drawn from their softmax, then multiplied by `factor`; `shift` adds noise to them."""
    random = np.random.default_rng((seed, stream))
    logits = torch.from_numpy(random.normal(scale=2.0, size=(n, K)))
    uniform = torch.from_numpy(random.random(n))
    labels = (logits.softmax(dim=1).cumsum(dim=1) < uniform[:, None]).sum(dim=1).clamp(max=K - 1)
    noisy = logits + shift * torch.from_numpy(random.normal(size=(n, K)))
    return Predictions(
        values=(factor * noisy).float(),
        kind="logits",
        labels=labels,
        classes=tuple("abcde"),
        ids=tuple(f"{split}/{i}" for i in range(n)),
        split=split,
        method="probe",
        seed=seed,
        chosen_on="train",
    )


def test_a_planted_temperature_is_found_for_each_seed():
    validation = [drawn("val", 4000, factor=factor, seed=seed) for seed, factor in enumerate((1.0, 3.0))]
    found = temperatures(validation)
    assert found["probe", 0] == pytest.approx(1.0, rel=0.08)
    assert found["probe", 1] == pytest.approx(3.0, rel=0.08)


def test_calibrated_rows_undo_the_overconfidence():
    test = [drawn("test", 2000, factor=4.0, stream=1)]
    rows = {row.metric: row for row in trust_rows(test, [drawn("val", 2000, factor=4.0, stream=2)])}
    honest = {row.metric: row for row in trust_rows([drawn("test", 2000, stream=1)], [drawn("val", 2000, stream=2)])}
    for metric in ("log_loss_calibrated", "brier_score_calibrated", "expected_calibration_error_calibrated"):
        assert rows[metric].value == pytest.approx(honest[metric].value, rel=1e-3)
    assert rows["expected_calibration_error_calibrated"].low < 0.01
    assert {row.chosen_on for row in rows.values()} == {"val"}
    assert all(row.low < row.high and row.low <= row.value <= row.high for row in rows.values())


def test_sets_cover_at_home_and_say_so_where_they_do_not():
    validation = [drawn("val", 3000, stream=3)]
    reported = [drawn("test", 3000, stream=4), drawn("shift-x", 3000, stream=5, shift=4.0)]
    rows = {(row.split, row.metric): row for row in trust_rows(reported, validation)}
    for kind in ("least_ambiguous", "adaptive"):
        # sd of both sides' quantile and of the mean: sqrt(2 · 0.9 · 0.1 / 3000) = 0.0077
        assert rows["test", f"coverage_{kind}"].value == pytest.approx(0.9, abs=4 * 0.0077)
        assert rows["shift-x", f"coverage_{kind}"].high < 0.85
        assert 1 < rows["test", f"set_size_{kind}"].value < K
    assert rows["shift-x", "area_under_risk_coverage"].low > rows["test", "area_under_risk_coverage"].high


def test_reliability_lies_on_the_diagonal_after_calibration_only():
    diagrams = {d.calibrated: d for d in reliability([drawn("test", 6000, factor=4.0, stream=6)],
                                                     [drawn("val", 6000, factor=4.0, stream=7)])}  # fmt: skip
    gaps = {after: [abs(a - c) for a, c in zip(d.accuracy, d.confidence, strict=True)] for after, d in diagrams.items()}
    assert max(gaps[True]) < 0.07
    assert max(gaps[False]) > 0.2
    assert sum(diagrams[True].count) == 6000
    assert all(low < a < high for low, a, high in zip(diagrams[True].low, diagrams[True].accuracy, diagrams[True].high,
                                                      strict=True))  # fmt: skip


def test_risk_at_full_coverage_is_the_error_and_falls_with_refusal():
    test = drawn("test", 3000, stream=8)
    curve = risk_coverages([test], [drawn("val", 3000, stream=9)])[0]
    error = (test.values.argmax(dim=1) != test.labels).double().mean().item()
    assert curve.coverage[-1] == 1.0
    assert curve.risk[-1] == pytest.approx(error)
    assert curve.risk[4] < 0.7 * error


def test_calibration_changes_no_prediction():
    test = drawn("test", 500, factor=2.5)
    assert torch.equal(calibrated(test, 2.5).values.argmax(dim=1), test.values.argmax(dim=1))
    expected = test.values.double().div(2.5).softmax(dim=1)
    torch.testing.assert_close(calibrated(test, 2.5).probabilities(), expected, rtol=1e-5, atol=1e-6)


def test_a_seed_without_validation_is_refused():
    with pytest.raises(InputError, match="probe has no validation predictions of seed 1"):
        trust_rows([drawn("test", 50, seed=1)], [drawn("val", 50)])


def test_the_area_is_that_of_its_definition():
    """Three images, surest right, then wrong, then right: mean of 0, 1/2, 1/3."""
    test = Predictions(
        values=torch.tensor([[9.0, 0.0], [4.0, 0.0], [0.0, 1.0]]),
        kind="logits",
        labels=torch.tensor([0, 1, 1]),
        classes=("a", "b"),
        ids=("0", "1", "2"),
        split="test",
        method="probe",
        seed=0,
        chosen_on="train",
    )
    rows = {row.metric: row for row in trust_rows([test], [drawn_two("val")])}
    assert rows["area_under_risk_coverage"].value == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    assert math.isfinite(rows["area_under_risk_coverage"].high)


def drawn_two(split: str) -> Predictions:
    values = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    return Predictions(
        values=values,
        kind="logits",
        labels=torch.tensor([0, 0, 1, 1]),
        classes=("a", "b"),
        ids=("0", "1", "2", "3"),
        split=split,
        method="probe",
        seed=0,
        chosen_on="train",
    )

"""The choice: highest utility over home and away, never worse than the probe at home, blind to what is reported."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headfirst.errors import InputError
from headfirst.study import choose
from headfirst.types import Predictions

N, K = 400, 4


def predictions(method: str, split: str, share_right: float, *, seed: int = 0, shuffle: int = 0) -> Predictions:
    """`share_right` of the images right, the others wrong, which ones drawn by `shuffle`."""
    labels = torch.arange(N) % K
    right = torch.zeros(N, dtype=torch.bool)
    right[np.random.default_rng(shuffle).permutation(N)[: round(share_right * N)]] = True
    called = torch.where(right, labels, (labels + 1) % K)
    return Predictions(
        values=5 * torch.nn.functional.one_hot(called, K).float(),
        kind="logits",
        labels=labels,
        classes=tuple("abcd"),
        ids=tuple(f"{split}/{i}" for i in range(N)),
        split=split,
        method=method,
        seed=seed,
        chosen_on="val",
    )


def table(scores: dict[str, dict[str, float]]) -> list[Predictions]:
    return [predictions(m, s, share) for m, splits in scores.items() for s, share in splits.items()]


REPORTED = table({m: {"test": 0.8, "shift-x": 0.6} for m in ("probe", "finetune", "lp-ft")})


def test_half_home_half_away():
    chosen = choose(
        table({
            "probe": {"val": 0.80, "val-corrupted": 0.80, "val-x": 0.80},
            "finetune": {"val": 0.90, "val-corrupted": 0.60, "val-x": 0.70},
            "lp-ft": {"val": 0.88, "val-corrupted": 0.82, "val-x": 0.76},
        }),
        REPORTED,
    )  # fmt: skip
    assert chosen.method == "lp-ft"
    score = {(row.method, row.split): row.value for row in chosen.scores}
    assert score["finetune", "home and away"] == pytest.approx(0.5 * 0.9 + 0.25 * (0.6 + 0.7))
    assert score["lp-ft", "home and away"] == pytest.approx(0.5 * 0.88 + 0.25 * (0.82 + 0.76))


def test_worse_than_the_probe_at_home_is_ruled_out_however_good_away():
    chosen = choose(
        table({
            "probe": {"val": 0.90, "val-corrupted": 0.40},
            "finetune": {"val": 0.70, "val-corrupted": 0.90},
        }),
        REPORTED,
    )  # fmt: skip
    assert chosen.method == "probe"
    assert "finetune was ruled out" in chosen.reason
    assert "Fine-tuning does not pay here" in chosen.sentence


def test_what_cannot_be_saved_is_measured_and_not_chosen():
    shares = {"vae": 0.9, "probe": 0.7, "lp-ft": 0.8}
    chosen = choose(table({m: {"val": share, "val-x": share} for m, share in shares.items()}), REPORTED)
    assert chosen.method == "lp-ft"
    assert {row.method for row in chosen.scores} == {"vae", "probe", "lp-ft"}
    assert "lp-ft has the highest, 80.0 %" in chosen.reason
    assert "vae was measured beside them and stands for no choice." in chosen.reason
    assert "leads in 100 % of paired resamples" in chosen.reason


def test_a_validation_image_and_its_corrupted_copy_are_one_image():
    """Resampling them apart would pretend to twice the images."""
    selection = [predictions("probe", s, 0.5, shuffle=1) for s in ("val", "val-corrupted")]
    row = next(row for row in choose(selection, REPORTED).scores if row.split == "home and away")
    assert row.high - row.low == pytest.approx(2 * 1.96 * (0.25 / N) ** 0.5, rel=0.1)


def test_reported_splits_never_choose():
    selection = table({m: {"val": v} for m, v in {"probe": 0.8, "finetune": 0.9}.items()})
    flattering = table({"probe": {"test": 1.0, "shift-x": 1.0}, "finetune": {"test": 0.1, "shift-x": 0.1}})
    chosen = choose(selection, flattering)
    assert chosen.method == "finetune"
    assert "At home (test) another choice would have been better" in chosen.verdict
    assert "probe by 90.0 points" in chosen.verdict
    agreeing = table({"probe": {"test": 0.2, "shift-x": 0.2}, "finetune": {"test": 0.9, "shift-x": 0.9}})
    assert "Away (mean over shifts) nothing contradicts the choice" in choose(selection, agreeing).verdict


def test_a_choice_needs_home_validation():
    with pytest.raises(InputError, match="needs the split 'val'"):
        choose(table({"probe": {"val-x": 0.5}}), REPORTED)


def test_the_weights_of_home_and_away_are_the_users():
    selection = table({
        "probe": {"val": 0.80, "val-corrupted": 0.80},
        "finetune": {"val": 0.84, "val-corrupted": 0.74},
    })  # fmt: skip
    assert choose(selection, REPORTED, home_weight=0.5).method == "probe"
    assert choose(selection, REPORTED, home_weight=0.7).method == "finetune"
    assert choose(selection, REPORTED, home_weight=1.0).method == "finetune"
    with pytest.raises(InputError, match=r"home_weight is a share in \[0, 1\], got 1.5"):
        choose(selection, REPORTED, home_weight=1.5)


def test_the_lead_is_counted_over_paired_resamples():
    """`lp-ft` is right wherever the probe is and on one image more: it leads in every resample that has it."""
    probe, better = predictions("probe", "val", 0.5), predictions("lp-ft", "val", 0.5 + 1 / N)
    chosen = choose([probe, better], REPORTED)
    share = 1 - (1 - 1 / N) ** N  # of resamples that hold the image
    assert chosen.method == "lp-ft"
    assert int(chosen.reason.split("leads in ")[1].split(" %")[0]) == pytest.approx(100 * share, abs=3)


def test_worse_than_zero_shot_at_home_is_ruled_out():
    selection = table({
        "zero-shot": {"val": 0.90, "val-corrupted": 0.50},
        "probe": {"val": 0.80, "val-corrupted": 0.75},
    })  # fmt: skip
    chosen = choose(selection, table({m: {"test": 0.8} for m in ("zero-shot", "probe")}))
    assert chosen.method == "zero-shot"
    assert "probe was ruled out" in chosen.reason

"""Forecasts, detection, geometry and the WiSE path: planted cases with known answers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from headfirst.adapt import FineTune, LinearProbe, WiSE, on_backbone
from headfirst.data import ImageSet
from headfirst.features import embed
from headfirst.nn import PretrainedBackbone
from headfirst.study.detection import detect, detections, sample
from headfirst.study.evidence import Evidence, load_evidence, save_evidence
from headfirst.study.forecast import Forecaster, fit_forecaster
from headfirst.study.geometry import geometry, stage_changes
from headfirst.study.wise_path import best_alpha, frontier, scored
from headfirst.types import Features, Predictions

K = 3


def predictions(split: str, accuracy: float, confidence: float, *, n: int = 200, method: str = "lp-ft") -> Predictions:
    """`accuracy` of the images right, every one called with `confidence`."""
    labels = torch.arange(n) % K
    right = torch.arange(n) < round(accuracy * n)
    called = torch.where(right, labels, (labels + 1) % K)
    rest = (1 - confidence) / (K - 1)
    p = torch.full((n, K), rest).scatter(1, called[:, None], confidence)
    return Predictions(
        values=p.log(),
        kind="logits",
        labels=labels,
        classes=("a", "b", "c"),
        ids=tuple(f"{split}/{i}" for i in range(n)),
        split=split,
        method=method,
        seed=0,
        chosen_on="val",
    )


def test_a_forecast_is_the_estimate_with_the_errors_it_made_on_corruptions():
    # calibrated at 0.8: average confidence says 0.8 everywhere, and was 0.1 and 0.3 too high on the corruptions
    validation = predictions("val", 0.8, 0.8)
    forecaster = fit_forecaster(validation, [predictions("c1", 0.7, 0.8), predictions("c2", 0.5, 0.8)], None)
    assert forecaster.temperature == pytest.approx(1.0, abs=1e-6)
    found = {f.estimator: f for f in forecaster.forecasts(predictions("shift-x", 0.6, 0.8), None)}
    assert set(found) == {"average_confidence", "average_thresholded_confidence"}
    forecast = found["average_confidence"]
    assert forecast.value == pytest.approx(0.8, abs=1e-6)
    assert (forecast.low, forecast.high) == pytest.approx((0.5, 0.7), abs=1e-6)
    assert forecast.truth == pytest.approx(0.6)


def test_agreement_counts_equal_answers_and_unlabelled_truth_is_unknown():
    validation = predictions("val", 0.8, 0.8)
    other = predictions("c1", 0.6, 0.7, method="probe")
    forecaster = fit_forecaster(validation, [predictions("c1", 0.7, 0.8)], [other])
    unlabelled = replace(predictions("unlabelled", 0.9, 0.8), labels=torch.full((200,), -1))
    found = {f.estimator: f for f in forecaster.forecasts(unlabelled, predictions("unlabelled", 0.5, 0.7))}
    assert found["agreement"].value == pytest.approx(0.6)  # right alike on 100, wrong alike on 20
    assert np.isnan(found["agreement"].truth)
    assert 0 <= found["agreement"].low <= found["agreement"].high <= 1


def test_a_forecaster_survives_its_record():
    forecaster = fit_forecaster(predictions("val", 0.8, 0.8), [predictions("c1", 0.7, 0.8)], None)
    assert Forecaster.from_record(json.loads(json.dumps(forecaster.record()))) == forecaster
    hopeless = replace(forecaster, threshold=float("inf"))
    assert Forecaster.from_record(json.loads(json.dumps(hopeless.record()))) == hopeless


@pytest.fixture
def probed(backbone: PretrainedBackbone, images: ImageSet):
    train = embed(backbone, images["train"])
    return on_backbone(backbone, LinearProbe(l2=1e-2).fit(train)), train


def test_the_score_is_chosen_on_corruptions_and_tells_noise_from_home(probed, backbone, images: ImageSet):
    model, train = probed
    home = embed(backbone, images["test"])
    noise = replace(home, values=10 * torch.randn(home.values.shape, generator=torch.Generator().manual_seed(0)))
    far = replace(home, values=home.values + 50.0)
    found = detections(model, train, embed(backbone, images["val"]), far, home, {"noise": noise, "itself": home})
    by = {(d.score, d.split): d for d in found}
    assert by["mahalanobis", "noise"].auroc == 1.0
    assert by["mahalanobis", "noise"].low < 1.0
    assert all(by[score, "itself"].auroc == pytest.approx(0.5) for score, _ in by)
    assert len({d.score for d in found if d.chosen}) == 1
    assert {d.n_home for d in found} == {30}


def test_detect_starts_from_images(probed, images: ImageSet):
    model, _ = probed
    found = detect(model, images, {"shift-dim": images["shift-dim"]})
    assert {d.score for d in found} == {"max_softmax", "energy", "neighbour_distance", "mahalanobis"}
    assert {d.score: d.auroc for d in found}["neighbour_distance"] > 0.8  # a third of the brightness


def test_planted_movement_inside_and_outside_the_span(backbone: PretrainedBackbone):
    """Home lies in the first three axes; one method stretches it there, another pushes it along the fifth."""
    values = torch.zeros(40, 8)
    values[:, :3] = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    home = Features(values=values, labels=torch.zeros(40, dtype=torch.int64), classes=("a",),
                    ids=tuple(map(str, range(40))), split="train", source="x")  # fmt: skip
    axis = torch.zeros(8)
    axis[4] = 1.0
    shifted = replace(home, values=values.norm(dim=1, keepdim=True) * axis, split="shift-x")
    pushed = values + 0.25 * values.norm(dim=1, keepdim=True) * axis
    probe = on_backbone(backbone, LinearProbe(l2=1.0).fit(_two_classes(backbone)))
    found = geometry(
        home,
        {"test": home, "shift-x": shifted},
        {"stretch": {"test": replace(home, values=1.5 * values)}, "push": {"test": replace(home, values=pushed)}},
        backbone,
        {"stretch": probe, "push": probe},
    )
    assert found.rank == 3
    splits = {s.split: s for s in found.splits}
    assert splits["test"].energy_inside == pytest.approx(1.0)
    assert splits["test"].angles == pytest.approx((0.0, 0.0, 0.0), abs=1e-6)
    assert splits["shift-x"].energy_inside == pytest.approx(0.0)
    assert splits["shift-x"].angles == pytest.approx((np.pi / 2,))
    moved = {m.method: m for m in found.movements}
    assert (moved["stretch"].inside, moved["stretch"].outside) == pytest.approx((0.5, 0.0), abs=1e-6)
    assert (moved["push"].inside, moved["push"].outside) == pytest.approx((0.0, 0.25), abs=1e-6)
    assert moved["stretch"].cka == pytest.approx(1.0)
    assert all(stage.change == 0 for stage in found.stages)


def _two_classes(backbone: PretrainedBackbone) -> Features:
    values = torch.randn(8, backbone.feature_dim, generator=torch.Generator().manual_seed(1))
    return Features(values=values, labels=torch.arange(8) % 2, classes=("a", "b"), ids=tuple("abcdefgh"),
                    split="train", source=backbone.fingerprint)  # fmt: skip


def test_stage_changes_are_relative(backbone: PretrainedBackbone, images: ImageSet):
    start = on_backbone(backbone, LinearProbe(l2=1e-2).fit(embed(backbone, images["train"])))
    tuned = FineTune(lr=1e-2, epochs=2, batch_size=8).fit(backbone, images["train"])
    whole = stage_changes(backbone, tuned.classifier.backbone)
    half = stage_changes(backbone, WiSE(alpha=0.5).fit(start, tuned).classifier.backbone)
    assert half == pytest.approx([change / 2 for change in whole], rel=1e-4)


def test_alpha_is_the_one_of_least_loss_and_each_half_may_choose_its_own():
    def selection(accuracy: float) -> list[Predictions]:
        return [predictions("val", accuracy, 0.8), predictions("val-corrupted", accuracy, 0.8)]

    candidates = {0.0: selection(0.6), 0.5: selection(0.9), 1.0: selection(0.7)}
    assert best_alpha(candidates) == 0.5
    assert best_alpha({0.0: selection(0.7), 1.0: selection(0.7)}) == 0.0  # ties to the start
    last = np.arange(190, 200)  # wrong for all three: nothing to choose but the smallest
    assert best_alpha(candidates, last) == 0.0


def test_the_temperature_is_refitted_at_every_alpha():
    sharp = [
        replace(p, values=5 * p.values) for p in (predictions("val", 0.8, 0.8), predictions("val-corrupted", 0.8, 0.8))
    ]
    mild = [predictions("val", 0.8, 0.8), predictions("val-corrupted", 0.8, 0.8)]
    assert scored(sharp).temperature == pytest.approx(5.0, rel=1e-6)
    assert scored(sharp).loss == pytest.approx(scored(mild).loss, rel=1e-6)
    reported = {
        0.0: [predictions("test", 0.9, 0.8), predictions("shift-a", 0.5, 0.8), predictions("shift-b", 0.3, 0.8)]
    }
    point = frontier({0.0: mild}, reported, 0.0)[0]
    assert (point.home, point.away, point.chosen) == (pytest.approx(0.9), pytest.approx(0.4), True)


def test_evidence_survives_its_file(tmp_path, probed, backbone, images: ImageSet):
    model, train = probed
    home = embed(backbone, images["test"])
    evidence = Evidence(
        forecasts=fit_forecaster(predictions("val", 0.8, 0.8), [predictions("c", 0.7, 0.8)], None).forecasts(
            replace(predictions("unlabelled", 0.9, 0.8), labels=torch.full((200,), -1)), None
        ),
        detections=detections(model, train, home, home, home, {"shift-dim": embed(backbone, images["shift-dim"])}),
        geometry=geometry(train, {"test": home}, {}, backbone, {}),
    )
    save_evidence(evidence, tmp_path / "evidence.json")
    again = load_evidence(tmp_path / "evidence.json")
    assert repr(again) == repr(evidence)  # NaN is no equal of itself, but reads alike


def test_a_sample_keeps_order_and_small_splits_whole(images: ImageSet):
    few = sample(images["test"], 10)
    positions = [images["test"].ids.index(id_) for id_ in few.ids]
    assert len(few) == 10
    assert positions == sorted(positions)
    assert sample(images["test"], 30) is images["test"]

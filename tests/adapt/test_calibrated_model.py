"""A temperature divides the logits, changes no class and no stored logit; a threshold comes from validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax

from headfirst.adapt import Calibration, LinearProbe, TunedModel, WiSE, on_backbone
from headfirst.data import ImageSet
from headfirst.errors import InputError
from headfirst.features import embed
from headfirst.metrics import abstention_threshold
from headfirst.nn import PretrainedBackbone


@pytest.fixture
def plain(backbone: PretrainedBackbone, images: ImageSet) -> TunedModel:
    return on_backbone(backbone, LinearProbe().fit(embed(backbone, images["train"])))


@pytest.fixture
def calibrated(plain: TunedModel, images: ImageSet) -> TunedModel:
    val = plain.predictions(images["val"])
    calibration = Calibration(temperature=2.5, logits=val.values, labels=val.labels, chosen_on="val")
    return replace(plain, calibration=calibration)


def test_the_temperature_divides_the_logits(plain: TunedModel, calibrated: TunedModel, images: ImageSet):
    logits = plain.predictions(images["test"]).values
    assert torch.equal(calibrated.predictions(images["test"]).values, logits)
    expected = softmax(logits.double().numpy() / 2.5, axis=1)
    np.testing.assert_allclose(calibrated.predict_proba(images["test"]).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(
        plain.predict_proba(images["test"]).numpy(), softmax(logits.double().numpy(), axis=1), rtol=1e-12
    )
    assert torch.equal(calibrated.predict(images["test"]), plain.predict(images["test"]))
    assert (calibrated.predict_proba(images["test"]).max() < plain.predict_proba(images["test"]).max()).item()


def test_only_its_own_logits_are_divided(calibrated: TunedModel, images: ImageSet):
    predictions = calibrated.predictions(images["test"])
    as_probabilities = replace(predictions, values=predictions.probabilities().float(), kind="probabilities")
    with pytest.raises(InputError, match="own logits, got probabilities of the classes red, green, blue"):
        calibrated.probabilities(as_probabilities)
    with pytest.raises(InputError, match="got logits of the classes a, b, c"):
        calibrated.probabilities(replace(predictions, classes=("a", "b", "c")))


def test_the_abstention_threshold_is_that_of_the_validation_images(calibrated: TunedModel):
    """60 validation images: the 40 with confidence above 0.8 are right, the rest are wrong."""
    logits = torch.zeros(60, 3)
    logits[:40, 0], logits[40:, 0] = 10.0, 1.0
    labels = torch.zeros(60, dtype=torch.int64)
    labels[40:] = 1
    model = replace(calibrated, calibration=Calibration(temperature=2.0, logits=logits, labels=labels, chosen_on="val"))
    sure = softmax([5.0, 0.0, 0.0])[0]
    threshold = model.abstention_threshold(0.1)
    assert threshold == pytest.approx(sure, rel=1e-12)
    confidence = (logits.double() / 2.0).softmax(dim=1).max(dim=1).values
    assert threshold == abstention_threshold(confidence, labels == 0, 0.1)
    assert model.abstention_threshold(0.01) == float("inf")  # 40 of 40 right does not show an error below 1 %


def test_without_a_record_there_is_no_threshold(plain: TunedModel):
    with pytest.raises(InputError, match="without a calibration record"):
        plain.abstention_threshold(0.05)


def test_other_weights_do_not_inherit_the_temperature(calibrated: TunedModel, plain: TunedModel):
    assert WiSE(alpha=0.5).fit(plain, calibrated).calibration is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "positive and finite, got 0.0"),
        ({"temperature": float("nan")}, "positive and finite, got nan"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"got logits \(4, 3\) and labels \(3,\)"),
        ({"logits": torch.zeros(0, 3), "labels": torch.zeros(0, dtype=torch.int64)}, "at least one image"),
        ({"labels": torch.tensor([0, 1, 2, -1])}, "labels from 0 to 2; leave out unlabelled"),
        ({"labels": torch.tensor([0, 1, 2, 3])}, "labels from 0 to 2"),
    ],
)
def test_records_that_cannot_be(change: dict, message: str):
    right = {"temperature": 1.5, "logits": torch.zeros(4, 3), "labels": torch.tensor([0, 1, 2, 0]), "chosen_on": "val"}
    with pytest.raises(InputError, match=message):
        Calibration(**{**right, **change})


def test_a_record_of_other_classes_is_refused(plain: TunedModel):
    other = Calibration(temperature=1.0, logits=torch.zeros(2, 4), labels=torch.tensor([0, 3]), chosen_on="val")
    with pytest.raises(InputError, match="of 4 classes, the model of 3"):
        replace(plain, calibration=other)

"""The distortion meter: exact on planted movement, silent where little moves, warns where much does, resumes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from headfirst.adapt import LPFT, DistortionMeter, FineTune, outside_share
from headfirst.data import ImageSet
from headfirst.errors import DistortionWarning
from headfirst.nn import PretrainedBackbone


def meter(backbone: PretrainedBackbone, images: ImageSet, **options) -> DistortionMeter:
    start = FineTune().start(backbone, images["train"], seed=0)
    return DistortionMeter(start, images["train"], num_epochs=5, method="finetune", stage="finetune", **options)


def test_reads_after_doubling_epochs_and_the_last(backbone: PretrainedBackbone, images: ImageSet):
    model = FineTune(lr=1e-3, epochs=5, batch_size=8).fit(backbone, images["train"])
    readings = model.record["distortion"]["readings"]
    assert [reading["epoch"] for reading in readings] == [0, 1, 2, 4, 5]
    assert readings[0]["inside"] == readings[0]["outside"] == 0
    assert readings[-1]["inside"] > 0


def test_nothing_moves_nothing_read(backbone: PretrainedBackbone, images: ImageSet):
    ours = meter(backbone, images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours(1, FineTune().start(backbone, images["train"], seed=0))
    assert ours.readings[1].inside == pytest.approx(0, abs=1e-7)
    assert ours.readings[1].outside == pytest.approx(0, abs=1e-7)


def test_a_movement_out_of_the_span_warns_once_and_names_the_epoch(backbone: PretrainedBackbone, images: ImageSet):
    ours = meter(backbone, images)
    moved = FineTune().start(backbone, images["train"], seed=0)
    with torch.no_grad():
        for parameter in moved.backbone.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    with pytest.warns(DistortionWarning, match=r"finetune: after epoch 1 features have moved by .* of their norm"):
        ours(1, moved)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours(2, moved)
    assert ours.readings[2].outside > ours.threshold


def test_readings_are_logged_and_read_back(backbone: PretrainedBackbone, images: ImageSet, tmp_path: Path):
    log = tmp_path / "distortion.jsonl"
    first = meter(backbone, images, log=log)
    first(1, FineTune().start(backbone, images["train"], seed=0))
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == [1]
    assert meter(backbone, images, log=log).readings == first.readings


def test_watching_leaves_training_mode_and_result_alone(backbone: PretrainedBackbone, images: ImageSet):
    """A model whose meter read after every epoch is, bit for bit, the one trained without looking."""
    start = FineTune().start(backbone, images["train"], seed=0)
    start.backbone.train()
    modes = [module.training for module in start.modules()]
    before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    DistortionMeter(start, images["train"], num_epochs=1, method="m", stage="s")(1, start)
    assert [module.training for module in start.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in start.state_dict().items())


def test_outside_share_of_features_that_fill_a_plane_and_of_independent_ones():
    plane = torch.zeros(20, 6)
    plane[:, :2] = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    assert outside_share(plane) == pytest.approx(0, abs=1e-6)
    assert outside_share(torch.eye(8)) == pytest.approx(1.0)
    assert outside_share(torch.ones(3, 4)) == 1.0


def test_head_norms_before_and_after(backbone: PretrainedBackbone, images: ImageSet):
    model = LPFT(lr=1e-3, epochs=2, batch_size=8).fit(backbone, images["train"], seed=0)
    before, after = model.record["head_norms"]
    assert after == pytest.approx(model.classifier.head.weight.norm().item(), rel=1e-6)
    assert before != after
    assert np.isfinite(before)

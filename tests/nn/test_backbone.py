"""Saving, copying and fingerprinting a backbone."""

from __future__ import annotations

import copy
import json
import os
import stat

import pytest
import torch
from safetensors.torch import load_file

from headfirst.errors import BackboneError
from headfirst.nn import load_backbone
from headfirst.nn.families import FAMILIES


def random_images(size: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))


def features(backbone) -> torch.Tensor:
    with torch.inference_mode():
        return backbone(random_images())


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_a_saved_backbone_comes_back_bit_for_bit(checkpoints, tmp_path, model_type):
    backbone = load_backbone(checkpoints(model_type))
    with torch.no_grad():  # as after fine-tuning: every weight has moved
        for parameter in backbone.parameters():
            parameter.add_(torch.rand_like(parameter) * 0.01)
    backbone.save(tmp_path)
    again = load_backbone(tmp_path)
    assert torch.equal(features(again), features(backbone))
    assert again.fingerprint == backbone.fingerprint
    assert again.preprocessing == backbone.preprocessing
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]


@pytest.mark.parametrize("model_type", ["vit", "dinov2", "mobilenet_v2", "swin"])
def test_the_saved_keys_are_the_checkpoints_own(checkpoints, tmp_path, model_type):
    load_backbone(checkpoints(model_type)).save(tmp_path)
    before = load_file(checkpoints(model_type) / "model.safetensors")
    after = load_file(tmp_path / "model.safetensors")
    for key, value in after.items():
        # A bare model's keys lack the prefix ("vit.") that a model with a head gives them.
        original = before[key] if key in before else before[f"{model_type}.{key}"]
        assert torch.equal(value, original), key


def test_transformers_reads_what_was_saved(checkpoints, tmp_path):
    from transformers import AutoModel

    backbone = load_backbone(checkpoints("dinov2"))
    backbone.save(tmp_path)
    with torch.inference_mode():
        output = AutoModel.from_pretrained(tmp_path).eval()(random_images())
    assert torch.equal(output.pooler_output, features(backbone))


def test_saved_files_have_the_umasks_mode(checkpoints, tmp_path):
    before = os.umask(0o027)
    try:
        load_backbone(checkpoints("vit")).save(tmp_path / "new" / "folder")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new" / "folder").iterdir()}
    assert modes == {0o640}


@pytest.mark.parametrize("model_type", ["clip", "mobilenet_v2", "dinov3_vit"])
def test_a_deep_copy_is_independent_and_saves_its_own_weights(checkpoints, tmp_path, model_type):
    backbone = load_backbone(checkpoints(model_type))
    original = features(backbone)
    tuned = copy.deepcopy(backbone)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.mul_(1.5)
    assert torch.equal(features(backbone), original)
    assert not torch.equal(features(tuned), original)
    tuned.save(tmp_path)
    assert torch.equal(features(load_backbone(tmp_path)), features(tuned))


def test_the_fingerprint_follows_every_weight_statistic_and_the_preprocessing(checkpoints, tmp_path):
    backbone = load_backbone(checkpoints("resnet"))
    original = backbone.fingerprint
    assert copy.deepcopy(backbone).fingerprint == original == load_backbone(checkpoints("resnet")).fingerprint
    for name, value in backbone.stages.state_dict().items():
        kept = value.flatten()[-1].clone()
        value.view(-1)[-1].add_(1) if value.is_contiguous() else value[-1, -1, -1, -1].add_(1)
        assert backbone.fingerprint != original, name
        value.view(-1)[-1].copy_(kept) if value.is_contiguous() else value[-1, -1, -1, -1].copy_(kept)
    assert backbone.fingerprint == original
    backbone.save(tmp_path)
    processor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**processor, "resample": 3}))
    assert load_backbone(tmp_path).fingerprint != original


def test_eval_mode_moves_no_buffer(checkpoints):
    backbone = load_backbone(checkpoints("resnet"))
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    backbone(random_images())
    assert before
    for name, buffer in backbone.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_a_size_the_model_refuses_is_a_backbone_error(checkpoints, tmp_path):
    load_backbone(checkpoints("vit")).save(tmp_path)
    processor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**processor, "size": {"height": 64, "width": 64}}))
    with pytest.raises(BackboneError, match="do not fit together: an image of 64x64"):
        load_backbone(tmp_path)

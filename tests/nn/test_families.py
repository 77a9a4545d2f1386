"""The stages composed are the transformers model's own features, bit for bit."""

from __future__ import annotations

import pytest
import torch
import transformers

from headfirst.nn import load_backbone
from headfirst.nn.families import FAMILIES

FEATURES = {
    "CLIPVisionModelWithProjection": lambda output: output.image_embeds,
    "MetaClip2VisionModelWithProjection": lambda output: output.image_embeds,
    "ViTModel": lambda output: output.last_hidden_state[:, 0],
    "DeiTModel": lambda output: output.last_hidden_state[:, 0],
    "IJepaModel": lambda output: output.last_hidden_state.mean(dim=1),
    "ViTMSNModel": lambda output: output.last_hidden_state[:, 0],
}


def own_features(model_class: str, model, images):
    with torch.inference_mode():
        output = model.get_image_features(images) if hasattr(model, "text_model") else model(images)
    return FEATURES.get(model_class, lambda output: output.pooler_output.flatten(1))(output)


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_the_composed_stages_are_the_models_own_features(checkpoints, model_type):
    backbone = load_backbone(checkpoints(model_type))
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features = backbone(images)
    # The very model, its memory layout included …
    same_layout = images.contiguous(memory_format=torch.channels_last) if backbone._convolutional else images
    family = FAMILIES[model_type]
    assert torch.equal(features, own_features(family.model_class, backbone._model, same_layout))
    # … and the checkpoint as transformers loads it by itself.
    model_class = family.joint if family.vision_config else family.model_class
    model = getattr(transformers, model_class).from_pretrained(checkpoints(model_type), **family.options).eval()
    torch.testing.assert_close(features, own_features(model_class, model, images), rtol=1e-3, atol=1e-3)
    # Features that did not depend on the image would agree too.
    assert (features[0] - features[1]).norm() > 1e-3 * features[0].norm()


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_every_weight_of_the_model_is_in_exactly_one_stage(checkpoints, model_type):
    backbone = load_backbone(checkpoints(model_type))
    of_the_model = {id(parameter) for parameter in backbone._model.parameters()}
    per_stage = [{id(parameter) for parameter in stage.parameters()} for stage in backbone.stages]
    assert set.union(*per_stage) == of_the_model
    assert sum(map(len, per_stage)) == len(of_the_model)


def test_dinov3_positions_stay_put_in_training_mode(checkpoints):
    backbone = load_backbone(checkpoints("dinov3_vit"))
    images = torch.randn(2, 3, 32, 32)
    expected = backbone(images)
    assert torch.equal(backbone.train()(images), expected)


def test_class_token_features_do_not_depend_on_the_batch(checkpoints):
    backbone = load_backbone(checkpoints("vit")).double()
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(backbone(images)[2:3], backbone(images[2:3]), rtol=1e-5, atol=1e-7)

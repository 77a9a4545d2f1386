"""Every depth in one pass: transformers' own hidden states, averaged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_images import split_of

from headfirst.data import normalise, prepare_split
from headfirst.errors import BackboneError, InputError
from headfirst.features import embed, embed_depths
from headfirst.features.depths import stage_means
from headfirst.nn import load_backbone
from headfirst.nn.families import FAMILIES


@torch.inference_mode()
def test_each_depth_is_the_mean_of_transformers_hidden_state(backbone, paths, tmp_path):
    split, _ = prepare_split(split_of(paths), backbone.preprocessing, cache=tmp_path)
    depths = embed_depths(backbone, split, batch_size=4)
    own = backbone.model(normalise(split.batch(), backbone.preprocessing), output_hidden_states=True)
    assert len(depths) == len(backbone.stages) == len(own.hidden_states) + 1
    for features, hidden in zip(depths, own.hidden_states, strict=False):
        torch.testing.assert_close(features.values, hidden.mean((2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(depths[-1].values, own.pooler_output.flatten(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", ["vit", "deit", "dinov2_with_registers", "dinov3_vit", "siglip_vision_model"])
@torch.inference_mode()
def test_tokens_are_averaged_over_patches_alone(checkpoints, model_type):
    backbone = load_backbone(checkpoints(model_type))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    means = stage_means(backbone, images)
    own = backbone.model(images, output_hidden_states=True).hidden_states
    patches = [hidden[:, hidden.shape[1] - 16 :].mean(1) for hidden in own]  # 4×4 patches stand last
    for number in range(len(backbone.stages) - 2):  # transformers' last hidden state may be normed
        torch.testing.assert_close(means[number], patches[number], rtol=1e-5, atol=1e-5)
    assert torch.equal(means[-1], backbone(images))


@torch.inference_mode()
def test_swins_grid_is_averaged_over_places_not_features(checkpoints):
    backbone = load_backbone(checkpoints("swin"))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    means = stage_means(backbone, images)
    own = backbone.model(images, output_hidden_states=True).hidden_states
    torch.testing.assert_close(means[0], own[0].mean(1), rtol=1e-5, atol=1e-5)
    assert [m.shape[1] for m in means] == [8, 16, 16, 16]


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
@torch.inference_mode()
def test_every_family_has_a_row_an_image_at_every_depth(checkpoints, model_type):
    """A plain mean over everything but samples and features, by the one axis that tells the layouts apart."""
    backbone = load_backbone(checkpoints(model_type))
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    means = stage_means(backbone, images)
    assert len(means) == len(backbone.stages)
    assert all(m.ndim == 2 and len(m) == 3 for m in means)
    assert torch.equal(means[-1], backbone(images))
    for number, mean in enumerate(means):  # the second image's row is its own
        alone = stage_means(backbone, images[1:2])[number]
        torch.testing.assert_close(mean[1:2], alone, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(mean[0], mean[1], rtol=1e-3)


def test_the_last_is_what_embed_gives_and_the_others_have_sources_of_their_own(backbone, paths, tmp_path):
    split = split_of(paths)
    depths = embed_depths(backbone, split, cache=tmp_path, batch_size=4)
    stored = embed(backbone, split, cache=tmp_path, batch_size=4)
    assert torch.equal(depths[-1].values, stored.values)
    assert depths[-1].source == stored.source
    assert len({features.source for features in depths}) == len(depths)
    for features in depths:
        assert (features.ids, features.classes, features.split) == (split.ids, split.classes, "train")
        assert features.labels.tolist() == split.labels.tolist()
        assert not features.values.is_inference()


def test_nothing_moves(backbone, paths, tmp_path):
    backbone.train()
    backbone.stages[1].eval()
    modes = {name: module.training for name, module in backbone.named_modules()}
    weights = {name: value.clone() for name, value in backbone.stages.state_dict().items()}
    seen = []
    embed_depths(backbone, split_of(paths), cache=tmp_path, batch_size=8, progress=lambda *told: seen.append(told))
    assert {name: module.training for name, module in backbone.named_modules()} == modes
    assert all(torch.equal(value, weights[name]) for name, value in backbone.stages.state_dict().items())
    assert not any(module._forward_hooks for module in backbone.modules())
    assert [told[1:] for told in seen if "depth" in told[0]] == [(8, 21), (16, 21), (21, 21)]


def test_refusals(backbone, paths, tmp_path):
    split = split_of(paths)
    with pytest.raises(InputError, match="at least 1, received 0"):
        embed_depths(backbone, split, cache=tmp_path, batch_size=0)
    with pytest.raises(InputError, match="'train' has no images"):
        embed_depths(backbone, split.take(np.arange(0)), cache=tmp_path)
    other, _ = prepare_split(split, replace(backbone.preprocessing, resize=(16, 16)), cache=tmp_path)
    with pytest.raises(InputError, match="another geometry"):
        embed_depths(backbone, other)
    with torch.no_grad():
        next(iter(backbone.parameters())).fill_(float("nan"))
    with pytest.raises(BackboneError, match="not finite"):
        embed_depths(backbone, split, cache=tmp_path)

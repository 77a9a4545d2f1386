"""Images of another size."""

from __future__ import annotations

import pytest
import torch
import transformers

from headfirst.errors import InputError
from headfirst.nn import features_at, load_backbone
from headfirst.nn.families import FAMILIES

CONVOLUTIONAL = sorted(name for name, family in FAMILIES.items() if family.convolutional)
TOKENS = sorted(name for name, family in FAMILIES.items() if family.num_prefix is not None)


def images(height: int, width: int | None = None) -> torch.Tensor:
    return torch.randn(2, 3, height, width or height, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
@torch.inference_mode()
def test_at_the_native_size_it_is_the_backbone(checkpoints, model_type):
    backbone = load_backbone(checkpoints(model_type))
    assert torch.equal(features_at(backbone, images(32)), backbone(images(32)))


@pytest.mark.parametrize("model_type", CONVOLUTIONAL)
@pytest.mark.parametrize("shape", [(64, 64), (48, 80)])
@torch.inference_mode()
def test_convolutional_families_are_transformers_own_at_any_size(checkpoints, model_type, shape):
    backbone = load_backbone(checkpoints(model_type))
    own = backbone.model(images(*shape).contiguous(memory_format=torch.channels_last)).pooler_output.flatten(1)
    torch.testing.assert_close(features_at(backbone, images(*shape)), own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", TOKENS)
@pytest.mark.parametrize("shape", [(16, 16), (48, 48), (16, 40)])
def test_tokens_take_interpolated_positions_as_transformers_does(checkpoints, model_type, shape):
    if model_type == "dinov3_vit" and shape[0] != shape[1]:
        pytest.skip("square images only")
    backbone = load_backbone(checkpoints(model_type))
    pixels = images(*shape).requires_grad_()
    features = features_at(backbone, pixels)
    unasked = {"dinov2", "dinov2_with_registers", "dinov3_vit"}
    output = backbone.model(pixels, **({} if model_type in unasked else {"interpolate_pos_encoding": True}))
    if "image_embeds" in output:
        own = output.image_embeds
    elif model_type == "ijepa":
        own = output.last_hidden_state.mean(dim=1)
    elif model_type in {"vit", "deit", "vit_msn"}:
        own = output.last_hidden_state[:, 0]
    else:
        own = output.pooler_output
    torch.testing.assert_close(features, own, rtol=1e-5, atol=1e-5)
    features.square().sum().backward()
    assert pixels.grad.abs().amax(dim=(0, 1)).min() > 0
    positions = [p for name, p in backbone.stages[0].named_parameters() if "position_embedding" in name]
    assert positions or model_type == "dinov3_vit"
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in positions)


def test_constant_positions_stay_constant_when_interpolated(checkpoints):
    """Analytic: with one position vector for all patches, an image tiled from one patch gives one patch token."""
    backbone = load_backbone(checkpoints("siglip_vision_model")).double()
    positions = backbone.stages[0].position_embedding.weight
    with torch.no_grad():
        positions.copy_(positions[:1].expand_as(positions))
        tile = images(8).double()
        # Identical tokens attend to themselves: one or many give the same features.
        torch.testing.assert_close(
            features_at(backbone, tile.repeat(1, 1, 2, 3)), features_at(backbone, tile.repeat(1, 1, 6, 6)),
            rtol=1e-5, atol=1e-6,
        )  # fmt: skip


@pytest.mark.parametrize("model_type", ["swin", "swinv2"])
def test_swin_is_refused_and_left_as_it_was(checkpoints, model_type):
    backbone = load_backbone(checkpoints(model_type))
    before = backbone(images(32))
    with pytest.raises(InputError, match="windows are laid out for images of 32×32"):
        features_at(backbone, images(16))
    assert torch.equal(backbone(images(32)), before)


@pytest.mark.parametrize("model_type", TOKENS)
def test_broken_patches_are_refused(checkpoints, model_type):
    with pytest.raises(InputError, match="8×8 pixels, and an image of 20×24 is not whole"):
        features_at(load_backbone(checkpoints(model_type)), images(20, 24))


def test_an_image_that_vanishes_is_refused(checkpoints):
    with pytest.raises(InputError, match="shrinks images of 8×8 to nothing"):
        features_at(load_backbone(checkpoints("convnext")), images(8))


def test_positions_of_a_grid_that_is_not_square_are_refused(tmp_path, checkpoints):
    model = transformers.ViTModel(
        transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=(16, 32),
            patch_size=8,
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    model.save_pretrained(tmp_path)
    text = (checkpoints("vit") / "preprocessor_config.json").read_text().replace('"height": 32', '"height": 16')
    (tmp_path / "preprocessor_config.json").write_text(text)
    backbone = load_backbone(tmp_path)
    with pytest.raises(InputError, match="on an oblong grid"):
        features_at(backbone, images(32))

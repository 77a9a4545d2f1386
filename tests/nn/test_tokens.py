"""Only the visible patches: transformers' own numbers, no leak, no order."""

from __future__ import annotations

import pytest
import torch

from headfirst.errors import InputError
from headfirst.nn import (
    encode_visible,
    hides_patches,
    load_backbone,
    load_dual_encoder,
    load_text_tower,
    num_prefix_tokens,
    pair,
    patch_size,
)
from headfirst.nn.families import FAMILIES

PREFIX = {
    "altclip": 1, "chinese_clip": 1, "clip": 1, "clip_vision_model": 1, "deit": 2, "dinov2": 1,
    "dinov2_with_registers": 5, "ijepa": 0, "metaclip_2": 1, "metaclip_2_vision_model": 1, "siglip": 0,
    "siglip_vision_model": 0, "vit": 1, "vit_msn": 1,
}  # fmt: skip


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def every_patch(count: int = 2, patches: int = 16) -> torch.Tensor:
    return torch.arange(patches).expand(count, -1)


def own_tokens(backbone) -> torch.Tensor:
    """transformers' last hidden state after its final norm (CLIP's last hidden state comes before it)."""
    tower = getattr(backbone.model, "vision_model", backbone.model)
    hidden = tower(images()).last_hidden_state
    return tower.post_layernorm(hidden) if hasattr(tower, "pre_layrnorm") else hidden


@pytest.mark.parametrize("model_type", sorted(PREFIX))
@torch.inference_mode()
def test_with_every_patch_visible_it_is_transformers_own(checkpoints, model_type):
    backbone = load_backbone(checkpoints(model_type))
    assert (num_prefix_tokens(backbone), patch_size(backbone)) == (PREFIX[model_type], 8)
    tokens = encode_visible(backbone, images(), every_patch())
    assert tokens.shape[1] == PREFIX[model_type] + 16
    torch.testing.assert_close(tokens, own_tokens(backbone), rtol=1e-6, atol=1e-6)
    assert (tokens[0] - tokens[1]).norm() > 1e-3 * tokens[0].norm()


@pytest.mark.parametrize("model_type", sorted(PREFIX))
@torch.inference_mode()
def test_hidden_pixels_do_not_matter_and_visible_ones_do(checkpoints, model_type):
    backbone = load_backbone(checkpoints(model_type))
    visible = torch.tensor([[0, 5, 9], [15, 2, 3]])
    before = encode_visible(backbone, images(), visible)
    other = images()
    other[0, :, 8:16, 16:24] = 7.0  # patch 6 of the first image
    assert torch.equal(encode_visible(backbone, other, visible), before)
    other[0, :, 8:16, 8:16] = 7.0  # patch 5
    after = encode_visible(backbone, other, visible)
    assert torch.equal(after[1], before[1])
    assert not torch.allclose(after[0], before[0])


@pytest.mark.parametrize("model_type", ["deit", "siglip_vision_model", "dinov2_with_registers", "clip"])
@torch.inference_mode()
def test_a_permuted_choice_permutes_the_patches_and_leaves_the_prefix(checkpoints, model_type):
    backbone = load_backbone(checkpoints(model_type)).double()
    prefix = PREFIX[model_type]
    visible, order = torch.tensor([[0, 5, 9, 14]]).expand(2, -1), [2, 0, 3, 1]
    tokens = encode_visible(backbone, images().double(), visible)
    permuted = encode_visible(backbone, images().double(), visible[:, order])
    torch.testing.assert_close(permuted[:, :prefix], tokens[:, :prefix])
    torch.testing.assert_close(permuted[:, prefix:], tokens[:, prefix:][:, order])
    assert not torch.allclose(tokens[:, prefix:], tokens[:, prefix:][:, order])


def test_joint_and_paired_towers_too(checkpoints, sentence_encoder):
    joint = load_dual_encoder(checkpoints("clip")).image
    alone = load_backbone(checkpoints("clip"))
    expected = encode_visible(alone, images(), every_patch())
    torch.testing.assert_close(encode_visible(joint, images(), every_patch()), expected)
    paired = pair(load_backbone(checkpoints("vit")), load_text_tower(sentence_encoder), dim=4).image
    assert paired.projection is not None
    torch.testing.assert_close(encode_visible(paired, images(), every_patch()), own_tokens(paired))


def test_the_gradient_reaches_visible_patches_alone(checkpoints):
    pixels = images(1).requires_grad_()
    encode_visible(load_backbone(checkpoints("vit")), pixels, torch.tensor([[3, 4]])).square().sum().backward()
    moved = torch.nn.functional.max_pool2d(pixels.grad.abs().amax(1, keepdim=True), 8).flatten() > 0
    assert moved.nonzero().flatten().tolist() == [3, 4]


@pytest.mark.parametrize("model_type", sorted(set(FAMILIES) - set(PREFIX)))
def test_other_families_are_refused_with_those_that_work(checkpoints, model_type):
    backbone = load_backbone(checkpoints(model_type))
    assert not hides_patches(backbone)
    with pytest.raises(
        InputError, match=rf"is a {model_type} backbone, not .* take one of altclip, .*vit_msn$"
    ) as refused:
        encode_visible(backbone, images(), every_patch())
    assert set(str(refused.value).split("take one of ")[1].split(", ")) == set(PREFIX)
    if model_type == "dinov3_vit":
        assert num_prefix_tokens(backbone) == 3
        return
    for ask in (num_prefix_tokens, patch_size):
        with pytest.raises(InputError, match="not a sequence of patch tokens"):
            ask(backbone)


@pytest.mark.parametrize(
    ("visible", "message"),
    [
        ([[0, 16]], r"must lie in 0 … 15, received 0 … 16"),
        ([[-1, 3]], r"received -1 … 3"),
        ([[4, 2, 4]], "visible twice"),
        ([[]], "at least one patch"),
    ],
)
def test_a_bad_choice_is_refused(checkpoints, visible, message):
    with pytest.raises(InputError, match=message):
        encode_visible(load_backbone(checkpoints("vit")), images(1), torch.tensor(visible, dtype=torch.int64))

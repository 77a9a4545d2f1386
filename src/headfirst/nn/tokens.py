"""Patch tokens of a ViT-like backbone: how many there are, and encoding only the visible ones.

A masked autoencoder hides most patches and encodes the rest alone, at a fraction of the cost: He et al., "Masked
Autoencoders Are Scalable Vision Learners" (CVPR 2022), section 3.

Shape letters: B images, P prefix tokens, K visible patches, T patches, D features.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from headfirst.errors import InputError
from headfirst.nn.backbone import PretrainedBackbone
from headfirst.nn.families import FAMILIES, AttentionPool, Block, ClassToken, MeanToken


def num_prefix_tokens(backbone: PretrainedBackbone) -> int:
    """P: class, distillation and register tokens, which stand in front of the patches.

    Raises:
        InputError: its stages are no sequences of patch tokens.
    """
    prefix = FAMILIES[backbone.model_type].num_prefix
    if prefix is None:
        raise InputError(_no_tokens(backbone))
    return prefix + getattr(vision_config(backbone), "num_register_tokens", 0)


def patch_size(backbone: PretrainedBackbone) -> int:
    """Side of a patch in pixels; patches are numbered row by row.

    Raises:
        InputError: its stages are no sequences of patch tokens, or its patches are not square.
    """
    num_prefix_tokens(backbone)
    size = vision_config(backbone).patch_size
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise InputError(f"{backbone.name} has patches of {height}×{width} pixels; only square ones are supported")
    return height


def hides_patches(backbone: PretrainedBackbone) -> bool:
    """Whether `encode_visible` takes it: tokens whose positions are learned and added before the first block."""
    return FAMILIES[backbone.model_type].num_prefix is not None and all(map(_is_block, _blocks(backbone)))


def encode_visible(
    backbone: PretrainedBackbone, images: Float[Tensor, "b 3 h w"], visible: Int64[Tensor, "b k"]
) -> Float[Tensor, "b t d"]:
    """The prefix tokens and the visible patches after all blocks and the final norm, in the order of `visible`.

    Positions are added first, then the hidden patches are dropped: nothing of their pixels enters the rest. With every
    patch visible in order, this is transformers' `last_hidden_state` (of CLIP, its `post_layernorm`).

    Args:
        images: normalised, of the preprocessing's size.
        visible: which patches, numbered row by row, K ≥ 1 different ones an image.

    Returns:
        (B, P + K, D).

    Raises:
        InputError: the family has no such tokens, there are not as many patches, or none or one twice is visible.
    """
    if not hides_patches(backbone):
        raise InputError(_no_tokens(backbone))
    prefix = num_prefix_tokens(backbone)
    tokens = backbone.stages[0](images)
    _refuse_bad_choice(visible, tokens.shape[1] - prefix)
    kept = tokens[:, prefix:].gather(1, visible[..., None].expand(-1, -1, tokens.shape[2]))
    hidden = torch.cat([tokens[:, :prefix], kept], dim=1)
    for block in _blocks(backbone):
        hidden = block(hidden)
    return _final_norm(backbone)(hidden)


def vision_config(backbone: PretrainedBackbone) -> Any:
    """The image tower's config, of joint models too."""
    return getattr(backbone.config, "vision_config", backbone.config)


def _pool_index(backbone: PretrainedBackbone) -> int:
    return -2 if backbone.projection is not None else -1


def _blocks(backbone: PretrainedBackbone) -> list[nn.Module]:
    return list(backbone.stages)[1 : _pool_index(backbone)]


def _is_block(stage: nn.Module) -> bool:
    return isinstance(stage, Block)


def _final_norm(backbone: PretrainedBackbone) -> nn.Module:
    pool = backbone.stages[_pool_index(backbone)]
    if isinstance(pool, nn.Sequential):  # followed by the projection that the checkpoint itself has
        pool = pool[0]
    assert isinstance(pool, ClassToken | AttentionPool | MeanToken)
    return pool.norm


def _refuse_bad_choice(visible: Tensor, num_patches: int) -> None:
    if not visible.numel():
        raise InputError(f"visible must name at least one patch an image, received {tuple(visible.shape)}")
    low, high = int(visible.min()), int(visible.max())
    if low < 0 or high >= num_patches:
        raise InputError(f"visible patches must lie in 0 … {num_patches - 1}, received {low} … {high}")
    ordered = visible.sort(dim=1).values
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise InputError("a patch is visible twice in one image; give every visible patch once")


def _no_tokens(backbone: PretrainedBackbone) -> str:
    working = [name for name, family in FAMILIES.items() if family.num_prefix is not None and name != "dinov3_vit"]
    return (
        f"{backbone.name} is a {backbone.model_type} backbone, not a sequence of patch tokens with learned positions; "
        f"take one of {', '.join(working)}"
    )

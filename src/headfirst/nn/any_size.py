"""Features of images of another size than the preprocessing's: small crops, tiles, larger photographs.

Shape letters: B images, H W pixels, D features.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headfirst.errors import InputError
from headfirst.nn.backbone import PretrainedBackbone
from headfirst.nn.families import FAMILIES, composed
from headfirst.nn.tokens import patch_size, vision_config

# Their embeddings interpolate without being asked, or their positions are computed from the grid.
_UNASKED = ("dinov2", "dinov2_with_registers", "dinov3_vit")


def features_at(backbone: PretrainedBackbone, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
    """`backbone(images)`, of images of any size; at the preprocessing's own size it is that very call.

    Convolutional families run as they are. ViT-like ones interpolate their learned positions to the new grid of
    patches (bicubic; Dosovitskiy et al., ICLR 2021, section 3.2), with gradient; DINOv3 computes its positions.

    Args:
        images: normalised as ever; of ViT-like families both sides are multiples of the patch size.

    Returns:
        (B, D) float32, not normalised.

    Raises:
        InputError: Swin, whose windows belong to one size; sides that are no whole patches; an image too small.
    """
    if tuple(images.shape[2:]) == backbone.preprocessing.size:
        return backbone(images)
    family = FAMILIES[backbone.model_type]
    if family.convolutional:
        return _convolved(backbone, images)
    if family.num_prefix is None:
        height, width = backbone.preprocessing.size
        raise InputError(
            f"{backbone.name} is a {backbone.model_type} backbone, whose attention windows are laid out for images of "
            f"{height}×{width}; give it that size, or take a convolutional or a ViT-like backbone"
        )
    _refuse_bad_grid(backbone, images)
    if backbone.model_type in _UNASKED:
        return backbone(images)
    features = composed(nn.ModuleList(list(backbone.stages)[1:]), _embedded(backbone.stages[0], images))
    return features if features.dtype == torch.float64 else features.float()


def _embedded(stem: nn.Module, images: Tensor) -> Tensor:
    """The stem's tokens with interpolated positions; of CLIP, a norm follows the embeddings."""
    if isinstance(stem, nn.Sequential):
        embeddings, norm = stem
        return norm(embeddings(images, interpolate_pos_encoding=True))
    return stem(images, interpolate_pos_encoding=True)


def _convolved(backbone: PretrainedBackbone, images: Tensor) -> Tensor:
    try:
        return backbone(images)
    except RuntimeError as error:
        if "size" not in str(error):
            raise
        height, width = images.shape[2:]
        raise InputError(
            f"{backbone.name} shrinks images of {height}×{width} to nothing ({error}); give it larger ones"
        ) from error


def _refuse_bad_grid(backbone: PretrainedBackbone, images: Tensor) -> None:
    side = patch_size(backbone)
    height, width = images.shape[2:]
    if height % side or width % side or not height or not width:
        raise InputError(
            f"{backbone.name} reads patches of {side}×{side} pixels, and an image of {height}×{width} is not whole "
            f"patches; give sides that are multiples of {side}"
        )
    native = vision_config(backbone).image_size
    if not isinstance(native, int) and native[0] != native[1] and backbone.model_type != "dinov3_vit":
        raise InputError(
            f"{backbone.name} has learned positions on an oblong grid ({native[0]}×{native[1]} pixels), which "
            "cannot be interpolated; give it images of its own size"
        )

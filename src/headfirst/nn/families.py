"""Model families: a loaded transformers model becomes the ordered stages whose composition is its features.

A stage maps one tensor to one tensor: stem or embeddings | each block or stage | final norm and pooling
(and projection). Stages share the model's own modules; the wrappers below own no parameters.

Shape letters: B images, T tokens, D features, C channels, H W pixels or patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from headfirst.errors import InputError

Stages = list[nn.Module]


class Block(nn.Module):
    """A transformer block of tokens (B, T, D), without a mask; of a returned tuple the first entry counts."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, tokens: Tensor) -> Tensor:
        output = self.block(tokens, None)
        return output if isinstance(output, Tensor) else output[0]


class RotaryBlock(nn.Module):
    """A DINOv3 block: the rotary positions of a square patch grid are computed from the token count.

    They stay in eval mode: in training mode they would be jittered from the global random state.
    """

    def __init__(self, block: nn.Module, rope: nn.Module, *, num_prefix: int, patch_size: int) -> None:
        super().__init__()
        self.block = block
        self.rope = rope
        self.num_prefix = num_prefix
        self.patch_size = patch_size

    def train(self, mode: bool = True) -> RotaryBlock:
        super().train(mode)
        self.rope.eval()
        return self

    def forward(self, tokens: Tensor) -> Tensor:
        num_patches = tokens.shape[1] - self.num_prefix
        side = math.isqrt(num_patches)
        if side * side != num_patches:
            raise InputError(f"a DINOv3 backbone takes square images, but received {num_patches} patches")
        # The rope reads only shape, dtype and device; a broadcast scalar costs no memory.
        pixels = tokens.new_zeros(()).expand(1, 1, side * self.patch_size, side * self.patch_size)
        return self.block(tokens, position_embeddings=self.rope(pixels))


class ClassToken(nn.Module):
    """(B, T, D) tokens → (B, D): the norm of the first token."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(tokens[:, 0])


class MeanToken(nn.Module):
    """(B, T, D) tokens → (B, D): the mean of the normed tokens."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(tokens).mean(dim=1)


class AttentionPool(nn.Module):
    """SigLIP: norm, then the attention-pooling head."""

    def __init__(self, norm: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.head = head

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(tokens))


class PatchGrid(nn.Module):
    """Swin's embeddings: images (B, 3, H, W) → a patch grid (B, H, W, D)."""

    def __init__(self, embeddings: nn.Module) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, images: Tensor) -> Tensor:
        tokens, (height, width) = self.embeddings(images)
        return tokens.unflatten(1, (height, width))


class GridStage(nn.Module):
    """A Swin stage on a patch grid (B, H, W, D); all but the last halve it, odd sides rounded up."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, grid: Tensor) -> Tensor:
        height, width = grid.shape[1:3]
        tokens = self.stage(grid.flatten(1, 2), (height, width))[0]
        if self.stage.downsample is not None:
            height, width = (height + 1) // 2, (width + 1) // 2
        return tokens.unflatten(1, (height, width))


class GridPool(nn.Module):
    """Swin's end: norm, then the mean over the patch grid."""

    def __init__(self, norm: nn.Module, pooler: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.pooler = pooler

    def forward(self, grid: Tensor) -> Tensor:
        return self.pooler(self.norm(grid.flatten(1, 2)).transpose(1, 2)).flatten(1)


class MapPool(nn.Module):
    """A feature map (B, C, H, W) → (B, C) by the model's own pooling."""

    def __init__(self, pooler: nn.Module) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(self, maps: Tensor) -> Tensor:
        return self.pooler(maps).flatten(1)


class MeanNorm(nn.Module):
    """ConvNeXt's end: the mean over the map, then the norm."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, maps: Tensor) -> Tensor:
        return self.norm(maps.mean([-2, -1]))


def clip(model: Any) -> Stages:
    """CLIP's vision tower, and its relatives', with the projection into the space shared with text, if there is one."""
    tower = getattr(model, "vision_model", model)
    stem = nn.Sequential(tower.embeddings, tower.pre_layrnorm)
    pool: nn.Module = ClassToken(tower.post_layernorm)
    if hasattr(model, "visual_projection"):
        pool = nn.Sequential(pool, model.visual_projection)
    return [stem, *map(Block, tower.encoder.layers), pool]


def siglip(model: Any) -> Stages:
    """SigLIP and fixed-resolution SigLIP 2."""
    tower = getattr(model, "vision_model", model)
    return [
        tower.embeddings,
        *map(Block, tower.encoder.layers),
        AttentionPool(tower.post_layernorm, tower.head),
    ]


def vit(model: Any) -> Stages:
    """ViT, DeiT, ViT-MSN: the normed class token, never the pooler (most checkpoints have none)."""
    return [model.embeddings, *map(Block, model.layers), ClassToken(model.layernorm)]


def ijepa(model: Any) -> Stages:
    """I-JEPA: a ViT without a class token, whose features are the mean of its patches'."""
    return [model.embeddings, *map(Block, model.layers), MeanToken(model.layernorm)]


def dinov2(model: Any) -> Stages:
    """DINOv2, with and without registers."""
    return [model.embeddings, *map(Block, model.encoder.layer), ClassToken(model.layernorm)]


def dinov3_vit(model: Any) -> Stages:
    """DINOv3 ViT."""
    num_prefix = 1 + model.config.num_register_tokens
    blocks = [
        RotaryBlock(block, model.rope_embeddings, num_prefix=num_prefix, patch_size=model.config.patch_size)
        for block in model.model.layer
    ]
    return [model.embeddings, *blocks, ClassToken(model.norm)]


def swin(model: Any) -> Stages:
    """Swin and Swin V2."""
    return [
        PatchGrid(model.embeddings),
        *map(GridStage, model.encoder.layers),
        GridPool(model.layernorm, model.pooler),
    ]


def convnext(model: Any) -> Stages:
    """ConvNeXt and ConvNeXt V2."""
    return [model.embeddings, *model.encoder.stages, MeanNorm(model.layernorm)]


def resnet(model: Any) -> Stages:
    """ResNet and RegNet."""
    return [model.embedder, *model.encoder.stages, MapPool(model.pooler)]


def bit(model: Any) -> Stages:
    """BiT: group norm and standardised convolutions, so that no sample sees another."""
    return [model.embedder, *model.encoder.stages, nn.Sequential(model.norm, MapPool(model.pooler))]


def mobilenet_v1(model: Any) -> Stages:
    """MobileNet V1: a depthwise and a pointwise convolution make one stage."""
    pairs = [nn.Sequential(*model.layer[i : i + 2]) for i in range(0, len(model.layer), 2)]
    return [model.conv_stem, *pairs, MapPool(model.pooler)]


def mobilenet_v2(model: Any) -> Stages:
    """MobileNet V2."""
    return [model.conv_stem, *model.layer, nn.Sequential(model.conv_1x1, MapPool(model.pooler))]


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one `model_type` is loaded and cut.

    Attributes:
        model_class: the transformers class.
        stages: the loaded model → its stages.
        convolutional: wants channels-last memory (twice the speed on a CPU).
        joint: the transformers class of image and text towers together; None where there is no text.
        vision_config: what the joint config's image part is read as, where `model_class` is another family's.
        options: what the class's constructor is told besides the config.
        num_prefix: tokens in front of the patches, registers not counted; None where stages are no such tokens.
    """

    model_class: str
    stages: Callable[[Any], Stages]
    convolutional: bool = False
    joint: str | None = None
    vision_config: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    num_prefix: int | None = None


_NO_POOLER = {"add_pooling_layer": False}
# Their image towers are CLIP's to the letter, and transformers has no class for the tower with its projection.
_CLIP_VISION: dict[str, Any] = {
    "model_class": "CLIPVisionModelWithProjection", "stages": clip, "vision_config": "CLIPVisionConfig",
    "num_prefix": 1,
}  # fmt: skip

FAMILIES: dict[str, Family] = {
    "altclip": Family(**_CLIP_VISION, joint="AltCLIPModel"),
    "bit": Family(model_class="BitModel", stages=bit, convolutional=True),
    "chinese_clip": Family(**_CLIP_VISION, joint="ChineseCLIPModel"),
    "clip": Family(model_class="CLIPVisionModelWithProjection", stages=clip, joint="CLIPModel", num_prefix=1),
    "clip_vision_model": Family(model_class="CLIPVisionModelWithProjection", stages=clip, num_prefix=1),
    "convnext": Family(model_class="ConvNextModel", stages=convnext, convolutional=True),
    "convnextv2": Family(model_class="ConvNextV2Model", stages=convnext, convolutional=True),
    "deit": Family(model_class="DeiTModel", stages=vit, options=_NO_POOLER, num_prefix=2),
    "dinov2": Family(model_class="Dinov2Model", stages=dinov2, num_prefix=1),
    "dinov2_with_registers": Family(model_class="Dinov2WithRegistersModel", stages=dinov2, num_prefix=1),
    "dinov3_vit": Family(model_class="DINOv3ViTModel", stages=dinov3_vit, num_prefix=1),
    "ijepa": Family(model_class="IJepaModel", stages=ijepa, options=_NO_POOLER, num_prefix=0),
    "metaclip_2": Family(
        model_class="MetaClip2VisionModelWithProjection", stages=clip, joint="MetaClip2Model", num_prefix=1
    ),
    "metaclip_2_vision_model": Family(model_class="MetaClip2VisionModelWithProjection", stages=clip, num_prefix=1),
    "mobilenet_v1": Family(model_class="MobileNetV1Model", stages=mobilenet_v1, convolutional=True),
    "mobilenet_v2": Family(model_class="MobileNetV2Model", stages=mobilenet_v2, convolutional=True),
    "regnet": Family(model_class="RegNetModel", stages=resnet, convolutional=True),
    "resnet": Family(model_class="ResNetModel", stages=resnet, convolutional=True),
    "siglip": Family(model_class="SiglipVisionModel", stages=siglip, joint="SiglipModel", num_prefix=0),
    "siglip_vision_model": Family(model_class="SiglipVisionModel", stages=siglip, num_prefix=0),
    "swin": Family(model_class="SwinModel", stages=swin),
    "swinv2": Family(model_class="Swinv2Model", stages=swin),
    "vit": Family(model_class="ViTModel", stages=vit, options=_NO_POOLER, num_prefix=1),
    "vit_msn": Family(model_class="ViTMSNModel", stages=vit, num_prefix=1),
}


def composed(stages: nn.ModuleList, images: Tensor) -> Tensor:
    """The stages' composition applied to `images`."""
    hidden = images
    for stage in stages:
        hidden = stage(hidden)
    return hidden


def channels_last(model: nn.Module) -> nn.Module:
    """The same module with its convolutions' weights laid out channels-last."""
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

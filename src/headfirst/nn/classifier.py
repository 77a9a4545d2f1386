"""Backbone and linear head as one module: normalised images in, logits out."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.errors import InputError
from headfirst.nn.backbone import PretrainedBackbone
from headfirst.randomness import keyed_bits


def linear_head(weight: Float[Tensor, "k d"], bias: Float[Tensor, " k"], *, unit_norm: bool = False) -> nn.Linear:
    """A float32 linear layer that holds copies of `weight` and `bias`; a `UnitLinear` with `unit_norm`."""
    # On the meta device first, so that no initialisation draws from the global generator.
    layer = UnitLinear if unit_norm else nn.Linear
    head = layer(weight.shape[1], weight.shape[0], device="meta").to_empty(device="cpu")
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    return head


def random_head(num_features: int, num_classes: int, *, seed: int) -> nn.Linear:
    """`nn.Linear`'s own initialisation (uniform in ±1/√D), drawn from `seed` alone."""
    generator = torch.Generator().manual_seed(int(keyed_bits(seed) >> 1))
    bound = num_features**-0.5
    weight = torch.empty(num_classes, num_features).uniform_(-bound, bound, generator=generator)
    bias = torch.empty(num_classes).uniform_(-bound, bound, generator=generator)
    return linear_head(weight, bias)


class UnitLinear(nn.Linear):
    """A linear layer on features scaled to unit norm: scaled cosines, where its rows are scaled directions."""

    def forward(self, input: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        return F.linear(F.normalize(input, dim=1), self.weight, self.bias)


class ImageClassifier(nn.Module):
    """`head(backbone(images))` for the classes named in `classes`.

    The head is linear, linear on unit features, or a vote of neighbours; it says its `in_features` and `out_features`
    and returns logits.
    """

    def __init__(self, backbone: PretrainedBackbone, head: nn.Module, classes: tuple[str, ...]) -> None:
        super().__init__()
        if head.in_features != backbone.feature_dim or head.out_features != len(classes):
            raise InputError(
                f"the head maps {head.in_features} features to {head.out_features} classes, but the backbone gives "
                f"{backbone.feature_dim} features and there are {len(classes)} class names"
            )
        self.backbone = backbone
        self.head = head
        self.classes = classes

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        return self.head(self.backbone(images))

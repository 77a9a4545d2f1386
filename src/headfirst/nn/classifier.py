"""Backbone and linear head as one module: normalised images in, logits out."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headfirst.errors import InputError
from headfirst.nn.backbone import PretrainedBackbone
from headfirst.randomness import keyed_bits


def linear_head(weight: Float[Tensor, "k d"], bias: Float[Tensor, " k"]) -> nn.Linear:
    """A float32 linear layer that holds copies of `weight` and `bias`."""
    # On the meta device first, so that no initialisation draws from the global generator.
    head = nn.Linear(weight.shape[1], weight.shape[0], device="meta").to_empty(device="cpu")
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


class ImageClassifier(nn.Module):
    """`head(backbone(images))` for the classes named in `classes`.

    The head is linear or a vote of neighbours; it says its `in_features` and `out_features` and returns logits.
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

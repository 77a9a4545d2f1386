"""The loss that a dual encoder was made with, and the bound on its logit scale."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from headfirst.nn.contrastive import contrastive_loss, sigmoid_contrastive_loss
from headfirst.nn.dual_encoder import DualEncoder

MAX_LOG_SCALE = math.log(100)
"""Radford et al., ICML 2021, section 2.5."""


def pair_loss(
    encoder: DualEncoder,
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    *,
    groups: Tensor | None = None,
    workers: dist.ProcessGroup | None = None,
) -> Float[Tensor, ""]:
    """The loss of the encoder's kind; see `contrastive_loss` and `sigmoid_contrastive_loss`."""
    if encoder.logit_bias is None:
        return contrastive_loss(x, y, encoder.logit_scale, groups=groups, workers=workers)
    return sigmoid_contrastive_loss(x, y, encoder.logit_scale, encoder.logit_bias, groups=groups, workers=workers)


def with_bounded_scale(optimiser: torch.optim.Optimizer, log_scale: Tensor) -> torch.optim.Optimizer:
    """After each step, a logit scale above 100 goes back to it, or to where it is now if that is above.

    SigLIP's checkpoints begin above 100: nothing is cut off that was there before.
    """
    limit = max(MAX_LOG_SCALE, log_scale.item())

    @torch.no_grad()
    def clamp(*_: Any) -> None:
        log_scale.clamp_(max=limit)

    optimiser.register_step_post_hook(clamp)
    return optimiser

"""Gradient caching: a loss sees the whole batch while the tower that made it holds one micro-batch of activations.

Gao, Zhang, Han & Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021: the
embeddings of all micro-batches are made without activations, the loss gives their gradient, and each micro-batch is
encoded once more to carry it on. Activation checkpointing of whole micro-batches is exactly that.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from headfirst.errors import InputError


def embed_in_parts(
    encode: Callable[[slice], Tensor], num_samples: int, *, micro_batch: int | None, device: torch.device | str = "cpu"
) -> Tensor:
    """`torch.cat` of `encode(slice)` over micro-batches, each encoded again when its gradient comes.

    Value and gradient are those of one `encode(slice(0, num_samples))`, up to rounding, as long as samples do not
    mix in the tower (batch norm in training mode would mix them).

    Args:
        encode: from a slice of the samples to their embeddings (b, D). Called twice for each part, with the same
            state of PyTorch's random generators both times (dropout falls alike); anything else that is random in it
            must be keyed.
        num_samples: N, at least 1.
        micro_batch: samples encoded at a time; None encodes all at once and keeps the activations.
        device: where the tower runs, whose random generator is kept and put back.

    Returns:
        (N, D).

    Raises:
        InputError: no samples, or a micro-batch below 1.
    """
    if num_samples < 1 or (micro_batch is not None and micro_batch < 1):
        raise InputError(f"need at least one sample, at least one at a time; got {num_samples} and {micro_batch}")
    if micro_batch is None or micro_batch >= num_samples:
        return encode(slice(0, num_samples))
    # checkpoint keeps the generator of the devices that its tensor arguments lie on.
    there = torch.empty(0, device=device)
    parts = [
        checkpoint(lambda part, _: encode(part), slice(start, min(start + micro_batch, num_samples)), there,
                   use_reentrant=False, preserve_rng_state=True)
        for start in range(0, num_samples, micro_batch)
    ]  # fmt: skip
    return torch.cat(parts)

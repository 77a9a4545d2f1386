"""Which parameters shrink: weight decay acts on matrices and kernels only."""

from __future__ import annotations

from typing import Any

from torch import nn


def decay_groups(module: nn.Module, *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Optimiser groups of the parameters that need a gradient: decay of matrices and kernels, none of the others.

    Not decayed are vectors and scalars (biases, norms, logit scales) and embedding tables: a row that no text uses has
    no gradient, and without decay it stays what it is, bit for bit.
    """
    tables = {id(p) for m in module.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    trained = [p for p in module.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1 and id(p) not in tables]
    others = [p for p in trained if p.ndim <= 1 or id(p) in tables]
    parts = ((decayed, weight_decay), (others, 0.0))
    return [{"params": params, "lr": lr, "weight_decay": decay} for params, decay in parts if params]

"""The N×N logits of a contrastive loss, a block of rows at a time; nothing of their size is kept.

Softmax and sigmoid losses are sums over rows, so a block of whole rows is all that either ever needs. It is reduced to
its share of the loss and, while it is there, to its share of the gradients of both embeddings, the scale and the bias;
backwards these are only multiplied by what comes in.

Shape letters: n queries (rows), m keys (columns), D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

BLOCK = 2**20
"""Logits held at a time (4 MiB of float32, and a few times that in passing)."""


@dataclass(frozen=True, eq=False)
class Positives:
    """Which keys belong to a query: key `first + i` to query i alone, or all of its group where there are groups.

    `of_rows` (n,) and `of_columns` (m,) are the groups of queries and keys. Key `itself + i`, where there is one, is
    query i once more, and left out.
    """

    first: int = 0
    of_rows: Tensor | None = None
    of_columns: Tensor | None = None
    itself: int | None = None

    def within(self, block: slice, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns of the positives within a block of logits."""
        if self.of_rows is None or self.of_columns is None:
            rows = torch.arange(len(logits), device=logits.device)
            return rows, rows + (self.first + block.start)
        rows, columns = (self.of_rows[block, None] == self.of_columns).nonzero(as_tuple=True)
        return rows, columns

    def leave_out(self, block: slice, logits: Tensor) -> None:
        """No softmax reaches the queries themselves."""
        if self.itself is not None:
            rows = torch.arange(len(logits), device=logits.device)
            logits[rows, rows + (self.itself + block.start)] = -torch.inf


class _Rows(torch.autograd.Function):
    """What both losses share backwards: the gradients are there, `forward` saved them."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        made = iter(ctx.saved_tensors)
        return tuple(gradient * next(made) if kept else None for kept in ctx.kept)


class SoftmaxRows(_Rows):
    """Mean over the queries of the cross-entropy of their softmax over the keys to the uniform over their positives.

    ℓ_ij = s · q_i·k_j,  t_ij = 1/|P_i| for j in P_i, i's positives, else 0
    L_i = log Σ_j exp ℓ_ij - Σ_j t_ij ℓ_ij,  ∂L_i/∂ℓ_ij = softmax(ℓ_i)_j - t_ij

    Takes queries (n, D), keys (m, D), s (0-dim), the positives.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, scale: Tensor, positives: Positives) -> Tensor:
        gradients, total = _Gradients(ctx, queries, keys, scale), scale.new_zeros(())
        for block, cosines in _blocks(queries, keys):
            logits = scale * cosines
            positives.leave_out(block, logits)
            rows, columns = positives.within(block, logits)
            weights = 1 / torch.bincount(rows, minlength=len(logits)).to(logits.dtype)[rows]
            positive = logits.new_zeros(len(logits)).index_add_(0, rows, weights * logits[rows, columns])
            # Differences to the positives first: a loss near zero is then not one of two numbers near s.
            loss = logits.sub_(positive[:, None]).logsumexp(1)
            total += loss.sum()
            if gradients.wanted:
                slopes = logits.sub_(loss[:, None]).exp_()
                slopes[rows, columns] -= weights
                gradients.add(block, slopes, cosines)
        return gradients.keep(total)


class SigmoidRows(_Rows):
    """Mean over the queries of the sum over the keys of the binary losses.

    ℓ_ij = s · q_i·k_j + b,  z_ij = 1 for j in i's positives, else -1
    L_i = -Σ_j log σ(z_ij ℓ_ij),  ∂L_i/∂ℓ_ij = -z_ij σ(-z_ij ℓ_ij)

    Takes queries (n, D), keys (m, D), s and b (0-dim), the positives.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, scale: Tensor, bias: Tensor, positives: Positives) -> Tensor:
        gradients, total = _Gradients(ctx, queries, keys, scale, bias), scale.new_zeros(())
        for block, cosines in _blocks(queries, keys):
            signed = (scale * cosines).add_(bias).neg_()
            rows, columns = positives.within(block, signed)
            signed[rows, columns] *= -1
            total -= F.logsigmoid(signed).sum()
            if gradients.wanted:
                slopes = signed.neg_().sigmoid_()
                slopes[rows, columns] *= -1
                gradients.add(block, slopes, cosines)
        return gradients.keep(total)


class _Gradients:
    """Gradients of queries, keys, scale and bias, those that are asked for, summed up block by block."""

    def __init__(self, ctx: Any, *inputs: Tensor) -> None:
        self.ctx, (self.queries, self.keys, self.scale, *_) = ctx, inputs
        self.sums = [torch.zeros_like(x) if asked else None for x, asked in zip(inputs, ctx.needs_input_grad)]  # noqa: B905
        self.wanted = any(ctx.needs_input_grad)

    def add(self, block: slice, slopes: Tensor, cosines: Tensor) -> None:
        """A block's share, from its ∂L/∂ℓ and its cosines."""
        to_queries, to_keys, to_scale, *to_bias = self.sums
        if to_queries is not None:
            to_queries[block] = self.scale * (slopes @ self.keys)
        if to_keys is not None:
            to_keys.addmm_(slopes.T, self.scale * self.queries[block])
        if to_scale is not None:
            to_scale += (slopes * cosines).sum()
        if to_bias and to_bias[0] is not None:
            to_bias[0] += slopes.sum()

    def keep(self, total: Tensor) -> Tensor:
        """The mean over the queries, its gradients saved for backward."""
        made = [None if x is None else x / len(self.queries) for x in self.sums]
        self.ctx.kept = (*(x is not None for x in made), False)  # the positives have no gradient
        self.ctx.save_for_backward(*(x for x in made if x is not None))
        return total / len(self.queries)


def _blocks(queries: Tensor, keys: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows and their q_i·k_j."""
    rows = max(1, BLOCK // len(keys))
    # Under autocast the products would be made in half precision, whatever the type of what is multiplied.
    with torch.autocast(queries.device.type, enabled=False):
        for start in range(0, len(queries), rows):
            block = slice(start, start + rows)
            yield block, queries[block] @ keys.T

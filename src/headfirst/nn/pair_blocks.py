"""The N×N logits of a contrastive loss, a block of rows at a time, forwards and again backwards.

Softmax and sigmoid losses are sums over rows, so a block of whole rows is all that either direction ever needs:
forwards it is reduced to one number a row, backwards it is computed again. Nothing of size N×N is kept.

Shape letters: n queries (rows), m keys (columns), D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

BLOCK = 2**20
"""Logits held at a time (4 MiB of float32, and a few times that in passing)."""

Gradients = tuple[Tensor | None, ...]


class SoftmaxRows(torch.autograd.Function):
    """(n,) cross-entropy of each query's softmax over the keys to the uniform distribution over its positives.

    ℓ_ij = s · q_i·k_j,  t_ij = 1/|P_i| for j in P_i, the keys of i's group, else 0
    L_i = log Σ_j exp ℓ_ij - Σ_j t_ij ℓ_ij,  ∂L_i/∂ℓ_ij = softmax(ℓ_i)_j - t_ij

    Takes queries (n, D), keys (m, D), s (0-dim), the queries' groups (n,) and the keys' (m,).
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, scale: Tensor, rows_in: Tensor, columns_in: Tensor) -> Tensor:
        ctx.save_for_backward(queries, keys, scale, rows_in, columns_in)
        losses = queries.new_empty(len(queries))
        with _no_autocast(queries):
            for block in _blocks(queries, keys):
                logits = scale * (queries[block] @ keys.T)
                target = _uniform(rows_in[block], columns_in, logits)
                # Differences to the positives first: a loss near zero is then not one of two numbers near s.
                losses[block] = (logits - (target * logits).sum(1, keepdim=True)).logsumexp(1)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        queries, keys, scale, rows_in, columns_in = ctx.saved_tensors

        def slope(logits: Tensor, block: slice) -> Tensor:
            target = _uniform(rows_in[block], columns_in, logits)
            return gradient[block, None] * (logits.softmax(1) - target)

        to_queries, to_keys, to_scale, _ = _backward(ctx, queries, keys, scale, None, slope)
        return to_queries, to_keys, to_scale, None, None


class SigmoidRows(torch.autograd.Function):
    """(n,) sum over the keys of each query's binary losses.

    ℓ_ij = s · q_i·k_j + b,  z_ij = 1 for j of i's group, else -1
    L_i = -Σ_j log σ(z_ij ℓ_ij),  ∂L_i/∂ℓ_ij = -z_ij σ(-z_ij ℓ_ij)

    Takes queries (n, D), keys (m, D), s and b (0-dim), the queries' groups (n,) and the keys' (m,).
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, scale: Tensor, bias: Tensor, rows_in: Tensor, columns_in: Tensor
    ) -> Tensor:
        ctx.save_for_backward(queries, keys, scale, bias, rows_in, columns_in)
        losses = queries.new_empty(len(queries))
        with _no_autocast(queries):
            for block in _blocks(queries, keys):
                logits = scale * (queries[block] @ keys.T) + bias
                losses[block] = -F.logsigmoid(_signs(rows_in[block], columns_in, logits) * logits).sum(1)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        queries, keys, scale, bias, rows_in, columns_in = ctx.saved_tensors

        def slope(logits: Tensor, block: slice) -> Tensor:
            z = _signs(rows_in[block], columns_in, logits)
            return gradient[block, None] * -z * (-z * logits).sigmoid()

        return *_backward(ctx, queries, keys, scale, bias, slope), None, None


def _backward(ctx: Any, queries: Tensor, keys: Tensor, scale: Tensor, bias: Tensor | None, slope: Any) -> Gradients:
    """Gradients of queries, keys, scale and bias from `slope(logits, block)`, the block's ∂L/∂ℓ."""
    to_queries, to_keys = torch.zeros_like(queries), torch.zeros_like(keys)
    to_scale, to_bias = torch.zeros_like(scale), None if bias is None else torch.zeros_like(bias)
    with _no_autocast(queries):
        for block in _blocks(queries, keys):
            cosines = queries[block] @ keys.T
            slopes = slope(scale * cosines if bias is None else scale * cosines + bias, block)
            to_scale += (slopes * cosines).sum()
            if to_bias is not None:
                to_bias += slopes.sum()
            if ctx.needs_input_grad[0]:
                to_queries[block] = scale * (slopes @ keys)
            if ctx.needs_input_grad[1]:
                to_keys.addmm_(slopes.T, scale * queries[block])
    return to_queries, to_keys, to_scale, to_bias


def _blocks(queries: Tensor, keys: Tensor) -> Iterator[slice]:
    rows = max(1, BLOCK // len(keys))
    for start in range(0, len(queries), rows):
        yield slice(start, start + rows)


def _uniform(rows_in: Tensor, columns_in: Tensor, like: Tensor) -> Tensor:
    """t: rows that sum to one over the columns of the row's group."""
    same = (rows_in[:, None] == columns_in).to(like.dtype)
    return same / same.sum(1, keepdim=True)


def _signs(rows_in: Tensor, columns_in: Tensor, like: Tensor) -> Tensor:
    """z: +1 where row and column are of one group, else -1."""
    return (rows_in[:, None] == columns_in).to(like.dtype) * 2 - 1


def _no_autocast(tensor: Tensor) -> torch.autocast:
    # Under autocast the products would be made in half precision, whatever the type of what is multiplied.
    return torch.autocast(tensor.device.type, enabled=False)

"""Every worker's rows on every worker, with a gradient: what a loss over the whole batch needs of `torch.distributed`.

What enters: this worker's rows and a process group that the caller names; nothing is read from global state. What
leaves: the rows of all workers in rank order, whose gradient comes back summed over the workers.

Shape letters: n rows of one worker, N of all, D columns.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from headfirst.errors import InputError

_TYPES = (torch.float32, torch.float64)


def exchange_sizes(own: Tensor, problem: str | None, workers: dist.ProcessGroup, *, grouped: bool) -> tuple[int, ...]:
    """Rows of each worker, by rank; where one worker's input is refused, all of them raise and none waits for it.

    Args:
        own: this worker's (n, D) rows, float32 or float64.
        problem: why this worker refuses its input; None where it does not.
        grouped: whether this worker names groups.

    Raises:
        InputError: `problem`; another worker's input was refused, or its width, type or groups differ.
    """
    refused = problem is not None
    shape = [0, 0, 0, 0] if refused else [len(own), own.shape[1], _TYPES.index(own.dtype), int(grouped)]
    mine = torch.tensor([*shape, int(refused)], device=own.device)
    every = [torch.empty_like(mine) for _ in range(workers.size())]
    dist.all_gather(every, mine, group=workers)
    if problem is not None:
        raise InputError(problem)
    rows = [row.tolist() for row in every]
    for rank, row in enumerate(rows):
        if row[4]:
            raise InputError(f"worker {rank} refused its embeddings; its own message says why")
        if row[1:4] != rows[0][1:4]:
            described = [f"{r[1]} columns of {_TYPES[r[2]]}, {'with' if r[3] else 'no'} groups" for r in rows]
            raise InputError(
                f"all workers must hold the same kind of embeddings, got {described[0]} at worker 0 and "
                f"{described[rank]} at worker {rank}"
            )
    return tuple(row[0] for row in rows)


def gather(own: Tensor, sizes: tuple[int, ...], workers: dist.ProcessGroup) -> Tensor:
    """The rows of all workers in rank order; every worker must call it.

    The gradient with respect to a worker's rows is the sum of what all workers' losses say of them, so every worker
    must also run backward. Shares may be unequal.

    Args:
        own: (n, …) this worker's rows, n at least 1.
        sizes: how many each worker holds (`exchange_sizes`).

    Returns:
        (N, …), N the sum of `sizes`.
    """
    return _Gather.apply(own, sizes, workers)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: tuple[int, ...], workers: dist.ProcessGroup) -> Tensor:
        ctx.sizes, ctx.workers = sizes, workers
        padded = own.new_zeros(max(sizes), *own.shape[1:])  # gloo and NCCL gather equal shapes only
        padded[: len(own)] = own
        every = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(every, padded, group=workers)
        return torch.cat([rows[:size] for rows, size in zip(every, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.workers)
        return total.split(ctx.sizes)[ctx.workers.rank()], None, None

"""The little of `torch.distributed` the loop needs: who am I, and the sum of everybody's gradients.

Plain all-reduce rather than a wrapper: the gradient is exactly that of the whole batch, also when the batch does
not divide by the number of workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """`rank` of `size` workers."""

    rank: int
    size: int


def join_world(device: torch.device) -> World:
    """Join the group that `torchrun` announces in the environment; alone where it announces none."""
    if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if not dist.is_initialized():
        return World(0, 1)
    return World(dist.get_rank(), dist.get_world_size())


def together(world: World, act: Callable[[], None] = lambda: None) -> None:
    """The first worker acts, and none goes on before it has: for what is written once and read by all."""
    if world.rank == 0:
        act()
    if world.size > 1:
        dist.barrier()


def told_by_first(world: World, value: str | None) -> str | None:
    """What the first worker says, for all of them."""
    if world.size == 1:
        return value
    said = [value]
    dist.broadcast_object_list(said)
    return said[0]


def sum_gradients(parameters: Sequence[Tensor], world: World) -> None:
    """Replace each gradient by its sum over the workers (one all-reduce of the flattened gradients)."""
    if world.size == 1:
        return
    # A worker with no sample in this batch takes part with zeros. The last numbers say whom each parameter reached:
    # one that no worker's loss has reached keeps no gradient, as in one process.
    reached = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float64)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), reached.to(gradients[0])])
    dist.all_reduce(flat)
    *sums, anywhere = flat.split([*(g.numel() for g in gradients), len(parameters)])
    for parameter, gradient, total, count in zip(parameters, gradients, sums, anywhere.tolist(), strict=True):
        parameter.grad = gradient.copy_(total.view_as(gradient)) if count else None


def sharing_workers(world: World, num_samples: int, batch_size: int) -> Callable[[int], dist.ProcessGroup | None]:
    """From the samples of a batch to the workers that hold some of it: for losses that look at the whole batch.

    A batch may have fewer samples than there are workers, and those without any take no part in its loss. Every worker
    must call this, once before the training.

    Returns:
        A function of `Batch.num_global`, for batches of an epoch of `num_samples` cut into `batch_size`; None: this
        process holds it all.
    """
    if world.size == 1:
        return lambda _: None
    sizes = {min(batch_size, num_samples), num_samples % batch_size} - {0}
    everybody = dist.group.WORLD
    groups = {size: everybody if size >= world.size else dist.new_group(range(size)) for size in sorted(sizes)}

    def of(size: int) -> dist.ProcessGroup:
        group = groups[size]
        assert isinstance(group, dist.ProcessGroup)  # a number where this worker has no sample, and does not ask
        return group

    return of

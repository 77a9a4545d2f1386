"""Micro-batches change nothing but the memory: value, gradient, dropout."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from headfirst.errors import InputError
from headfirst.nn import contrastive_loss, embed_in_parts

N = 10


class Tower(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 4)).double()
        self.seen: list[int] = []
        with torch.no_grad():
            for i, parameter in enumerate(self.layers.parameters()):
                generator = torch.Generator().manual_seed(i)
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2)

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(len(inputs))
        return F.normalize(self.layers(inputs), dim=1)


X, Y = (torch.randn(N, 6, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in (8, 9))


def gradients(tower: Tower, micro_batch: int | None) -> tuple[float, list[Tensor]]:
    x, y = (embed_in_parts(lambda s, a=a: tower(a[s]), N, micro_batch=micro_batch) for a in (X, Y))
    loss = contrastive_loss(x, y, 8.0)
    return loss.item(), list(torch.autograd.grad(loss, list(tower.parameters())))


@pytest.mark.parametrize(("micro_batch", "parts"), [(1, [1] * 10), (4, [4, 4, 2]), (5, [5, 5]), (9, [9, 1])])
def test_value_and_gradient_are_those_of_the_whole_batch(micro_batch: int, parts: list[int]):
    tower = Tower()
    value, expected = gradients(tower, None)
    tower.seen.clear()
    in_parts, got = gradients(tower, micro_batch)
    assert in_parts == pytest.approx(value, rel=1e-13)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)
    assert tower.seen[: 2 * len(parts)] == parts + parts  # images, texts, and then all of it once more
    assert sorted(tower.seen[2 * len(parts) :]) == sorted(parts + parts)


def test_dropout_falls_the_second_time_as_it_fell_the_first():
    """The same masks as a forward pass in the same parts that keeps its activations, from the same generator state."""
    tower = Tower(dropout=0.5).train()
    torch.manual_seed(1)
    kept = torch.cat([tower(X[start : start + 3]) for start in range(0, N, 3)])
    expected = torch.autograd.grad(contrastive_loss(kept, F.normalize(Y[:, :4], dim=1), 8.0), list(tower.parameters()))
    torch.manual_seed(1)
    again = embed_in_parts(lambda s: tower(X[s]), N, micro_batch=3)
    assert torch.equal(kept, again)
    torch.manual_seed(2)  # whoever draws between forward and backward changes nothing
    before = torch.get_rng_state()
    got = torch.autograd.grad(contrastive_loss(again, F.normalize(Y[:, :4], dim=1), 8.0), list(tower.parameters()))
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


class LiveBytes(TorchDispatchMode):
    """The most bytes of tensors that were alive at once, among those made while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for storage in (leaf.untyped_storage() for leaf in tree_leaves(made) if isinstance(leaf, Tensor)):
            address, size = storage.data_ptr(), storage.nbytes()
            if size and address not in self.known:
                self.known.add(address)
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.freed, address, size)
        return made

    def freed(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.now -= size


def test_memory_is_that_of_one_micro_batch():
    """24 layers keep 256 KiB each for 1,024 samples: 6 MiB at once, 0.75 MiB in eighths, beside the embeddings."""
    tower = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(24)])
    x = torch.randn(1024, 64, generator=torch.Generator().manual_seed(0))
    peaks = []
    for micro_batch in (None, 128):
        with LiveBytes() as live:
            embed_in_parts(lambda s: tower(x[s]), 1024, micro_batch=micro_batch).square().sum().backward()
        peaks.append(live.peak / 2**20)
        tower.zero_grad()
    at_once, in_parts = peaks
    assert at_once > 6
    assert in_parts < 3


def test_refusals():
    with pytest.raises(InputError, match="got 0 and 4"):
        embed_in_parts(lambda s: X[s], 0, micro_batch=4)
    with pytest.raises(InputError, match="got 10 and 0"):
        embed_in_parts(lambda s: X[s], N, micro_batch=0)

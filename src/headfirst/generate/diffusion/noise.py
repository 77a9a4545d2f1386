"""Random numbers for samplers: one stream for all images, or one for each.

What enters: the images to be disturbed, and where their noise comes from. What leaves: noise of their shape. With a
stream an image, what an image becomes depends on no other: not on the batch, its order, or the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from headfirst.errors import InputError
from headfirst.randomness import keyed_bits

ON_THE_WAY = 79
"""Stream of the keyed generator of what an image draws while it is sampled."""

Streams = Generator | Sequence[Generator] | None
"""One generator for the whole batch, one for each image, or None for torch's own."""


def streams(seed: int, indices: Sequence[int], *key: int) -> list[Generator]:
    """A generator for each image, from (seed, key, index) alone.

    >>> a, b = streams(0, [7]), streams(0, [3, 7])
    >>> bool(torch.equal(torch.randn(4, generator=a[0]), torch.randn(4, generator=b[1])))
    True
    """
    return [Generator().manual_seed(int(keyed_bits(seed, *key, index)) >> 1) for index in indices]


def normal_like(x: Tensor, generator: Streams) -> Tensor:
    """Standard normal noise of the shape, type and device of `x`; drawn where the generators are.

    Raises:
        InputError: another number of generators than images.
    """
    if generator is None:
        return torch.randn_like(x)
    if isinstance(generator, Generator):
        return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device).to(x.device)
    if len(generator) != len(x):
        raise InputError(f"generator must be one or a sequence of {len(x)}, one for each image, got {len(generator)}")
    rows = [torch.randn(x.shape[1:], generator=each, dtype=x.dtype, device=each.device) for each in generator]
    return torch.stack(rows).to(x.device)

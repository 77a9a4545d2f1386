"""Batch norm's running statistics: whether there are any, keeping them still, and settling them on given images.

Ioffe & Szegedy, "Batch Normalization" (ICML 2015): in training mode the statistics are those of the batch, in eval
mode the running ones.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headfirst.errors import InputError

_BatchNorm = nn.modules.batchnorm._BatchNorm


def has_batch_norm(module: nn.Module) -> bool:
    """Whether samples of one batch mix in it in training mode: any kind of batch norm, at any depth."""
    return bool(_norms(module))


def keep_statistics(module: nn.Module) -> None:
    """Batch norm in eval mode: it uses its statistics and does not move them; everything else keeps its mode.

    The next `module.train()` undoes it.
    """
    for norm in _norms(module):
        norm.eval()


def untrained_statistics(module: nn.Module) -> bool:
    """Whether there is batch norm, and none of it has seen an image: every running mean is 0 and every variance 1."""
    norms = [norm for norm in _norms(module) if norm.running_mean is not None and norm.running_var is not None]
    return bool(norms) and all(
        bool((norm.running_mean == 0).all() and (norm.running_var == 1).all())  # pyright: ignore[reportOptionalMemberAccess]
        for norm in norms
    )


@torch.no_grad()
def settle_batch_norm(module: nn.Module, batches: Iterable[Float[Tensor, "_ 3 _ _"]]) -> None:
    """Running statistics become plain averages over the images of `batches`, in place; weights do not move.

    Every layer's mean and variance are those of each batch, averaged with the batches' sizes as weights. To be used
    after training with augmentation or with averaged weights, whose running statistics belong to other images or
    other weights. Everything but batch norm runs in eval mode (no dropout), and all modes come back as they were.
    Without batch norm nothing happens, and no batch is read.

    Args:
        batches: normalised images as they will be embedded, at least two a batch, on the module's device.

    Raises:
        InputError: no batch, or one of a single image, which has no variance where the map is one pixel.
    """
    norms = [norm for norm in _norms(module) if norm.track_running_stats]
    if not norms:
        return
    modes = {part: part.training for part in module.modules()}
    momenta = [norm.momentum for norm in norms]
    seen = 0
    try:
        module.eval()
        for norm in norms:
            norm.train()
        for batch in batches:
            if len(batch) < 2:
                raise InputError(f"batch norm needs at least 2 images a batch, received {len(batch)}; leave it out")
            seen += len(batch)
            for norm in norms:
                # running ← (1 - m) running + m batch: the first batch replaces what was there.
                norm.momentum = len(batch) / seen
            module(batch)
    finally:
        for part, training in modes.items():
            part.training = training
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    if not seen:
        raise InputError("batch norm is settled on at least one batch of images, received none")


def _norms(module: nn.Module) -> list[_BatchNorm]:
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]

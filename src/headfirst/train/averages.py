"""One step of a moving average of weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from headfirst.errors import InputError


def update_average(averages: Sequence[Tensor], parameters: Sequence[Tensor], decay: float) -> None:
    """Move every average, in place: average ← decay · average + (1 - decay) · parameter.

    One call of PyTorch's for the whole list, with the bits of `average.lerp_(parameter, 1 - decay)` for each.

    Args:
        averages: floating-point tensors on the parameters' devices, of the parameters' types; no graph is kept.
        parameters: as many, each of its average's shape; not changed.
        decay: in [0, 1]; 1 leaves the averages as they are, 0 makes them the parameters.

    Raises:
        InputError: a decay outside [0, 1], other numbers of tensors, other shapes.

    Source: of generators, Yazıcı et al., ICLR 2019.

    >>> import torch
    >>> average, weight = torch.zeros(2), torch.ones(2)
    >>> update_average([average], [weight], 0.75)
    >>> average
    tensor([0.2500, 0.2500])
    """
    if not 0 <= decay <= 1:
        raise InputError(f"decay must lie in [0, 1], got {decay}; 0.999 is usual")
    if len(averages) != len(parameters):
        raise InputError(f"need an average for every parameter, got {len(averages)} for {len(parameters)}")
    for i, (average, parameter) in enumerate(zip(averages, parameters, strict=True)):
        if average.shape != parameter.shape:
            raise InputError(
                f"an average has its parameter's shape, got {tuple(average.shape)} for {tuple(parameter.shape)} "
                f"at tensor {i}; were both listed in the same order?"
            )
    if averages:
        get_ema_multi_avg_fn(decay)(averages, parameters, 0)  # pyright: ignore[reportArgumentType]

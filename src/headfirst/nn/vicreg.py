"""VICReg: two views agree, every dimension varies, no two dimensions say the same.

What enters: embeddings of two views of n images, not normalised. What leaves: the loss. Its statistics are those of the
whole batch: with several workers, everybody's rows are gathered and each gets the loss of the full batch.

Shape letters: n images of this worker, N of all, D dimensions.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from headfirst.errors import InputError
from headfirst.nn.gather import exchange_sizes, gather

_EPSILON = 1e-4  # the official implementation's


def vicreg_loss(
    view_a: Tensor,
    view_b: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    workers: dist.ProcessGroup | None = None,
) -> Tensor:
    """λ s(Z, Z') + μ [v(Z) + v(Z')] / 2 + ν [c(Z) + c(Z')].

    s = mean_ij (z_ij - z'_ij)²;  v(Z) = 1/D Σ_j max(0, 1 - √(Var z_j + ε));  c(Z) = 1/D Σ_{j≠k} Cov(z_j, z_k)²

    Args:
        view_a, view_b: (n, D) embeddings, not normalised.
        invariance, variance, covariance: λ, μ, ν, at least 0.
        workers: each holds some rows and gets the loss of the full batch; weighted by n/N and summed, value and
            gradients are the full batch's.

    Returns:
        Scalar.

    Raises:
        InputError: other shapes, fewer than two images over all workers, or a negative weight.

    Source: Bardes, Ponce & LeCun, "VICReg", ICLR 2022, equations 1 to 6. Deviation: the variance term is halved over
    the two views, as in the authors' code.

    >>> z = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    >>> vicreg_loss(z, z).item()                # agreed, varied enough, uncorrelated
    0.0
    """
    problem = _problem(view_a, view_b, (invariance, variance, covariance))
    if workers is None:
        if problem is not None:
            raise InputError(problem)
        a, b = view_a, view_b
    else:
        rows = torch.cat([view_a, view_b], dim=-1)
        a, b = gather(rows, exchange_sizes(rows, problem, workers, grouped=False), workers).tensor_split(2, dim=1)
    if len(a) < 2:
        raise InputError(f"a batch's variance needs at least two images, got {len(a)}")
    n, d = a.shape
    agreement = (a - b).square().mean()
    spread, redundancy = a.new_zeros(()), a.new_zeros(())
    for z in (a, b):
        centred = z - z.mean(dim=0)
        spread = spread + (1 - (centred.square().sum(dim=0) / (n - 1) + _EPSILON).sqrt()).clamp(min=0).mean() / 2
        cov = centred.T @ centred / (n - 1)
        redundancy = redundancy + (cov.square().sum() - cov.diagonal().square().sum()) / d
    return invariance * agreement + variance * spread + covariance * redundancy


def _problem(a: Tensor, b: Tensor, weights: tuple[float, ...]) -> str | None:
    if a.ndim != 2 or a.shape != b.shape or 0 in a.shape:
        return f"both views must be (N, D) embeddings of the same images, got {tuple(a.shape)} and {tuple(b.shape)}"
    if min(weights) < 0:
        return f"weights of the terms must be at least 0, got {weights}"
    return None

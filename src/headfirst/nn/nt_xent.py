"""NT-Xent: two views of an image find one another among all the views of a batch.

What enters: embeddings of the two views of n images, and the process group where several workers share the batch. What
leaves: the loss. The 2N×2N logits are made block by block (`headfirst.nn.pair_blocks`) and never kept.

Shape letters: n images of this worker, N of all, D dimensions.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from headfirst.errors import InputError
from headfirst.nn.gather import exchange_sizes, gather
from headfirst.nn.pair_blocks import Positives, SoftmaxRows


def nt_xent_loss(
    view_a: Tensor, view_b: Tensor, temperature: float, *, workers: dist.ProcessGroup | None = None
) -> Tensor:
    """Normalised temperature-scaled cross-entropy, the mean over the 2N anchors.

    z = x/‖x‖;  L = -1/2N Σ_i log exp(z_i·z_p(i) / τ) / Σ_{k≠i} exp(z_i·z_k / τ),  p(i) the other view of i's image

    Args:
        view_a, view_b: (n, D) embeddings, normalised here; row i of one is the other view of row i of the other.
        temperature: τ, positive.
        workers: each holds n of the N images and gets the mean over its own anchors, told apart from everybody's
            views; weighted by n/N and summed, values and gradients are those of the full batch.

    Returns:
        Scalar, float32 or the embeddings' wider type. Equal embeddings give log(2N - 1).

    Raises:
        InputError: other shapes, no image, or a temperature that is not positive.

    Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, equation 1.

    >>> import math
    >>> x = torch.ones(4, 3)
    >>> abs(nt_xent_loss(x, x, 0.5).item() - math.log(7)) < 1e-6
    True
    """
    problem = _problem(view_a, view_b, temperature)
    if workers is None and problem is not None:
        raise InputError(problem)
    wide = torch.promote_types(torch.promote_types(view_a.dtype, view_b.dtype), torch.float32)
    a, b = (F.normalize(x.to(wide), dim=-1) for x in (view_a, view_b))
    first, every = 0, torch.cat([a, b], dim=-1)
    if workers is not None:
        sizes = exchange_sizes(every, problem, workers, grouped=False)
        first, every = sum(sizes[: workers.rank()]), gather(every, sizes, workers)
    all_a, all_b = every.tensor_split(2, dim=1)
    scale = torch.tensor(1 / temperature, dtype=wide, device=a.device)
    positives = Positives(first=first, itself=len(every) + first)
    return (
        SoftmaxRows.apply(a, torch.cat([all_b, all_a]), scale, positives)
        + SoftmaxRows.apply(b, torch.cat([all_a, all_b]), scale, positives)
    ) / 2


def _problem(a: Tensor, b: Tensor, temperature: float) -> str | None:
    if a.ndim != 2 or a.shape != b.shape or 0 in a.shape:
        return f"both views must be (N, D) embeddings of the same images, got {tuple(a.shape)} and {tuple(b.shape)}"
    if not 0 < temperature < float("inf"):
        return f"temperature must be positive and finite, got {temperature}"
    return None

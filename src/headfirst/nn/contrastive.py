"""The two losses that align images with texts: softmax over the batch (CLIP) and sigmoid over the pairs (SigLIP).

What enters: embeddings of N image–text pairs, row i of one belonging to row i of the other. What leaves: the loss.
The N×N logits are made block by block, in float32 at least, and are never kept (`headfirst.nn.pair_blocks`).

With `workers`, each worker holds n of the N pairs and gets the mean loss of its own, measured against everybody's.
Weighted by n/N and summed over the workers, values and gradients are those of the full batch in one process, for the
towers, the logit scale and the bias alike; `headfirst.train.train` weighs and sums so.

Shape letters: n pairs of this worker, N pairs of all, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError
from headfirst.nn.gather import exchange_sizes, gather
from headfirst.nn.pair_blocks import Positives, SigmoidRows, SoftmaxRows

_NORM_TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 1e-2}
"""Half-precision rows are off by their own rounding (bfloat16: 2⁻⁸); the others may have been cast from float16."""


def contrastive_loss(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    logit_scale: Tensor | float,
    *,
    groups: Tensor | None = None,
    workers: dist.ProcessGroup | None = None,
) -> Float[Tensor, ""]:
    """Symmetric cross-entropy between images and texts, the mean over pairs and over both directions.

    ℓ_ij = s · x_i·y_j,  L = 1/2N Σ_i [log Σ_j exp ℓ_ij + log Σ_j exp ℓ_ji - 2 ℓ_ii]

    With groups, the target of a row (and of a column) is uniform over all pairs of its group.

    Args:
        image_embeddings: x, (n, D), each of unit norm.
        text_embeddings: y, (n, D), each of unit norm.
        logit_scale: s > 0, the multiplier itself and not its logarithm; a float or a 0-dim tensor.
        groups: (n,) integers; pairs of one group are all positives of one another. None: each pair is on its own.
        workers: the process group whose workers together hold the batch, e.g. `torch.distributed.group.WORLD`;
            every one of them must call, and run backward. None: this process holds it all.

    Returns:
        Scalar, float32 or the embeddings' wider type; log N where all embeddings are the same.

    Raises:
        InputError: no pairs, shapes that differ, rows that are not of unit norm, a scale that is not positive and
            finite; at every worker where it is so at one. NaN embeddings give NaN, for the training loop to name.

    Source: Radford et al., ICML 2021, figure 3; groups: Yang et al., "Unified Contrastive Learning in
    Image-Text-Label Space", CVPR 2022, equations 3 to 5.

    >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    >>> contrastive_loss(x, x, 100.0).exp()
    tensor(4.)
    """
    own, every, positives = _batch(
        image_embeddings, text_embeddings, groups, workers, images_of_all=True, scale=logit_scale
    )
    s = _scalar(logit_scale, own.images)
    by_image = SoftmaxRows.apply(own.images, every.texts, s, positives)
    by_text = SoftmaxRows.apply(own.texts, every.images, s, positives)
    return (by_image + by_text) / 2


def sigmoid_contrastive_loss(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    *,
    groups: Tensor | None = None,
    workers: dist.ProcessGroup | None = None,
) -> Float[Tensor, ""]:
    """Binary cross-entropy of every image with every text, summed over the N² and divided by N.

    L = -1/N Σ_ij log σ(z_ij (s · x_i·y_j + b)),  z_ij = 1 where i and j are of one group (i = j without), else -1

    Args:
        logit_bias: b, a float or a 0-dim tensor.
        image_embeddings, text_embeddings, logit_scale, groups, workers: as for `contrastive_loss`.

    Returns:
        Scalar, float32 or the embeddings' wider type.

    Raises:
        InputError: as for `contrastive_loss`; a bias that is not finite.

    Source: Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, equation 1 and algorithm 1.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> import math
    >>> round(sigmoid_contrastive_loss(x, x, 1e-9, 0.0).item() / math.log(2), 6)        # N² losses of log 2, over N
    2.0
    """
    own, every, positives = _batch(
        image_embeddings, text_embeddings, groups, workers, images_of_all=False, scale=logit_scale, bias=logit_bias
    )
    s, b = _scalar(logit_scale, own.images), _scalar(logit_bias, own.images)
    return SigmoidRows.apply(own.images, every.texts, s, b, positives)


@dataclass(frozen=True, eq=False)
class _Pairs:
    images: Tensor
    texts: Tensor


def _batch(
    images: Tensor,
    texts: Tensor,
    groups: Tensor | None,
    workers: dist.ProcessGroup | None,
    *,
    images_of_all: bool,
    scale: Tensor | float,
    bias: Tensor | float = 0.0,
) -> tuple[_Pairs, _Pairs, Positives]:
    """This worker's pairs and everybody's (`images` of all only where asked), checked, in the type of the logits."""
    problem = _problem(images, texts, groups, scale, bias)
    wide = torch.promote_types(torch.promote_types(images.dtype, texts.dtype), torch.float32)
    images, texts = images.to(wide), texts.to(wide)
    if workers is None:
        if problem is not None:
            raise InputError(problem)
        return _Pairs(images, texts), _Pairs(images, texts), Positives(of_rows=groups, of_columns=groups)
    sizes = exchange_sizes(texts, problem, workers, grouped=groups is not None)
    # One collective for both towers: two would have to meet in the same order backwards at every worker.
    every = gather(torch.cat([images, texts], dim=1) if images_of_all else texts, sizes, workers)
    all_images = every[:, : images.shape[1]] if images_of_all else images
    all_groups = None if groups is None else gather(groups.long(), sizes, workers)
    positives = Positives(first=sum(sizes[: workers.rank()]), of_rows=groups, of_columns=all_groups)
    return _Pairs(images, texts), _Pairs(all_images, every[:, -texts.shape[1] :]), positives


def _problem(
    images: Tensor, texts: Tensor, groups: Tensor | None, scale: Tensor | float, bias: Tensor | float
) -> str | None:
    """Why these cannot be the arguments of a contrastive loss, or None."""
    if images.ndim != 2 or images.shape != texts.shape:
        shapes = f"{tuple(images.shape)} and {tuple(texts.shape)}"
        return (
            f"image and text embeddings must both be (N, D), row i of one the pair of row i of the other; got {shapes}"
        )
    if 0 in images.shape:
        return f"a contrastive loss needs at least one pair, got embeddings of shape {tuple(images.shape)}"
    if groups is not None and groups.shape != images.shape[:1]:
        return f"groups must be ({len(images)},), one for each pair, got {tuple(groups.shape)}"
    for name, value in (("logit_scale", scale), ("logit_bias", bias)):
        if isinstance(value, Tensor) and value.numel() != 1:
            return f"{name} must be one number, got a tensor of shape {tuple(value.shape)}"
    scale, bias = (value.detach() if isinstance(value, Tensor) else value for value in (scale, bias))
    if not 0 < float(scale) < float("inf"):
        return f"logit_scale is the multiplier (not its logarithm), positive and finite; got {float(scale)}"
    if not abs(float(bias)) < float("inf"):
        return f"logit_bias must be finite, got {float(bias)}"
    for name, rows in (("image", images), ("text", texts)):
        norms = torch.linalg.vector_norm(rows.detach(), dim=1, dtype=torch.promote_types(rows.dtype, torch.float32))
        off = (norms - 1).abs() > _NORM_TOLERANCE.get(rows.dtype, 1e-3)  # NaN passes: the loop says at which step
        if off.any():
            row = int(off.nonzero()[0])
            return (
                f"{name} embeddings must have unit norm, but row {row} has {norms[row].item():.4g}; "
                "pass torch.nn.functional.normalize(embeddings, dim=1)"
            )
    return None


def _scalar(value: Tensor | float, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.reshape(()).to(like)
    return torch.tensor(value, dtype=like.dtype, device=like.device)

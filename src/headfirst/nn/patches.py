"""Images as rows of patches and back, and the loss of a masked autoencoder.

Shape letters: N images, C channels, H W pixels, L patches, P numbers of a patch (patch_size² · C).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headfirst.errors import InputError


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """(N, C, H, W) → (N, L, patch_size² · C): patches row by row; inside one, pixel by pixel, channels last.

    Raises:
        InputError: sides that are no multiples of the patch size.

    Source: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022.

    >>> image = torch.arange(8.0).reshape(1, 2, 2, 2)           # channels 0–3 and 4–7
    >>> patchify(image, 2).tolist()
    [[[0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0]]]
    """
    if images.ndim != 4 or patch_size < 1 or images.shape[2] % patch_size or images.shape[3] % patch_size:
        raise InputError(
            f"images must be (N, C, H, W) with sides that are multiples of patch_size {patch_size}, got "
            f"{tuple(images.shape)}"
        )
    n, c, h, w = images.shape
    p = patch_size
    grid = images.reshape(n, c, h // p, p, w // p, p)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(n, (h // p) * (w // p), p * p * c)


def unpatchify(patches: Tensor, patch_size: int, channels: int, *, grid: tuple[int, int] | None = None) -> Tensor:
    """The inverse of `patchify`, bit for bit.

    Args:
        patches: (N, L, patch_size² · channels).
        grid: rows and columns of patches; a square if None.

    Returns:
        (N, channels, H, W).

    Raises:
        InputError: another width, or a number of patches that does not fill the grid.
    """
    p = patch_size
    if patches.ndim != 3 or patches.shape[2] != p * p * channels:
        raise InputError(
            f"patches must be (N, L, {p * p * channels}) for patch_size {p} and {channels} channels, got "
            f"{tuple(patches.shape)}"
        )
    n, num_patches, _ = patches.shape
    rows, columns = grid or (math.isqrt(num_patches),) * 2
    if rows * columns != num_patches:
        raise InputError(f"{num_patches} patches do not fill a grid of {rows}x{columns}; name the grid")
    pixels = patches.reshape(n, rows, columns, p, p, channels)
    return pixels.permute(0, 5, 1, 3, 2, 4).reshape(n, channels, rows * p, columns * p)


def normalised_patches(patches: Float[Tensor, "n l p"]) -> Float[Tensor, "n l p"]:
    """Each patch with mean 0 and variance 1 over its own numbers: He et al., section 4.1, "normalised pixels"."""
    centred = patches - patches.mean(dim=2, keepdim=True)
    return centred / (patches.var(dim=2, keepdim=True) + 1e-6).sqrt()


def masked_reconstruction_loss(prediction: Tensor, target_patches: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the hidden patches; what was visible does not count.

    L = Σ_{hidden} mean_p (x̂ - x)² / number of hidden patches

    Args:
        prediction, target_patches: (N, L, P) (`patchify`, `normalised_patches`).
        mask: (N, L), true where a patch was hidden.

    Raises:
        InputError: shapes that differ, or nothing hidden.

    Source: He et al., CVPR 2022, section 3.
    """
    if prediction.shape != target_patches.shape or prediction.ndim != 3 or mask.shape != prediction.shape[:2]:
        raise InputError(
            "prediction and target must be (N, L, P) and mask (N, L), got "
            f"{tuple(prediction.shape)}, {tuple(target_patches.shape)} and {tuple(mask.shape)}"
        )
    hidden = mask.to(torch.bool)
    if not hidden.any():
        raise InputError("no patch is hidden, so there is nothing to reconstruct; mask must be true somewhere")
    return (prediction[hidden] - target_patches[hidden]).square().mean()


def reconstruction_errors(
    prediction: Float[Tensor, "n l p"], target_patches: Float[Tensor, "n l p"], mask: Bool[Tensor, "n l"]
) -> Float[Tensor, " n"]:
    """`masked_reconstruction_loss` of each image by itself; every image has a hidden patch."""
    errors = (prediction - target_patches).square().mean(dim=2) * mask
    return errors.sum(dim=1) / mask.sum(dim=1)

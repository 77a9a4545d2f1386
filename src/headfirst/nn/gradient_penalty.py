"""R1 and R2: the discriminator is to be flat where the images lie.

What enters: logits and the images they were computed from. What leaves: a scalar with a graph, to be added to the
discriminator's loss.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError


def r1_penalty(real_logits: Tensor, real_images: Tensor, gamma: float) -> Float[Tensor, ""]:
    """γ/2 · 1/N Σ_i ‖∇ l(x_i)‖², on real images: the squared gradients of each image summed over channels and pixels.

    Applied every k-th step only (lazy regularisation), it is multiplied by k.

    Args:
        real_logits: (N,) or (N, 1), before the logistic function, each of its own image: a discriminator that mixes the
            images of a batch (batch norm in training mode) has no gradient of one image.
        real_images: (N, …), `requires_grad_()` before the discriminator saw them.
        gamma: γ, at least 0.

    Returns:
        Scalar in float32 or the images' wider type, differentiable in the discriminator's parameters.

    Raises:
        InputError: not one logit an image; images that the logits do not depend on through a graph; γ negative.

    Source: Mescheder, Geiger & Nowozin, "Which Training Methods for GANs do actually Converge?", ICML 2018, equation 9.

    >>> images = torch.randn(5, 3).requires_grad_()
    >>> round(r1_penalty(images @ torch.tensor([1.0, 2.0, 2.0]), images, gamma=10.0).item(), 4)         # 10/2 · 9
    45.0
    """
    return _penalty("real", real_logits, real_images, gamma)


def r2_penalty(fake_logits: Tensor, fake_images: Tensor, gamma: float) -> Float[Tensor, ""]:
    """γ/2 · 1/N Σ_i ‖∇ l(G(z_i))‖²: `r1_penalty` on generated images.

    Args:
        fake_logits: (N,) or (N, 1).
        fake_images: (N, …), detached from the generator, then `requires_grad_()`.
        gamma: γ, at least 0.

    Raises:
        InputError: as `r1_penalty`.

    Source: Mescheder, Geiger & Nowozin, ICML 2018, equation 10.
    """
    return _penalty("fake", fake_logits, fake_images, gamma)


def _penalty(name: str, logits: Tensor, images: Tensor, gamma: float) -> Tensor:
    if not 0 <= gamma < float("inf"):
        raise InputError(f"gamma must be at least 0 and finite, got {gamma}")
    if images.ndim < 2 or len(images) == 0 or logits.shape not in ((len(images),), (len(images), 1)):
        raise InputError(
            f"{name}_images must be (N, …) and {name}_logits one an image, got {tuple(images.shape)} and "
            f"{tuple(logits.shape)}"
        )
    (gradient,) = (
        torch.autograd.grad(logits.sum(), images, create_graph=True, allow_unused=True)
        if images.requires_grad and logits.requires_grad
        else (None,)
    )
    if gradient is None:
        raise InputError(
            f"{name}_logits do not depend on {name}_images through a graph; call {name}_images.requires_grad_() before "
            "the discriminator, outside torch.no_grad()"
        )
    wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    return gamma / 2 * wide.flatten(1).square().sum(dim=1).mean()

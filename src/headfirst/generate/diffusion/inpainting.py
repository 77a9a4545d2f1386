"""A denoiser that knows some of the pixels: any sampler then fills in the others.

What enters: a denoiser D, pixels and where they are known. What leaves: a `Denoiser`.

Shape letters: N images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError
from headfirst.types import Denoiser


def inpainted(
    denoiser: Denoiser,
    known: Float[Tensor, "n ..."],
    mask: Tensor,
    *,
    std: float = 0.0,
    iterations: int = 8,
) -> Denoiser:
    """D_y(x; σ) = D + C Mᵀ (M C Mᵀ + std² I)⁻¹ (y - M D), C = σ² ∂D/∂x: the mean of x₀ given x and pixels y = M x₀.

    C is the covariance of x₀ given x, whatever the data (Tweedie's second moment). D_y is exact where x₀ given x is
    normal: of Gaussian data at every level, of any data where there is little noise. With much noise and data of
    several modes it is the best linear guess, and a mode may come out too often or too seldom.

    The inverse is by conjugate gradients, each step a pass backwards through the denoiser; exact in as many as there
    are known pixels, in fewer where pixels go together. With std = 0, known pixels come out as they are.

    Args:
        denoiser: differentiable in x; one image's guess must not depend on another.
        known: y, images on the denoiser's scale; what they hold at other pixels is not looked at.
        mask: booleans, true where they are known, of a shape that broadcasts to theirs.
        std: of the noise on the known pixels; some of it steadies a network that contradicts them.
        iterations: of conjugate gradients, at most.

    Raises:
        InputError: a mask that does not broadcast or knows nothing, numbers that cannot be; at a call, images of
            another shape than `known`.

    Source: Boys et al., "Tweedie Moment Projected Diffusions for Inverse Problems", TMLR 2024, with the inverse solved
    for where they replace it by a diagonal.
    """
    if mask.dtype != torch.bool or not bool(mask.any()):
        raise InputError(f"mask must be of booleans, true where a pixel is known, at least one; got {mask.dtype}")
    if torch.broadcast_shapes(mask.shape, known.shape) != known.shape:
        raise InputError(f"mask must broadcast to the images, {tuple(known.shape)}, got {tuple(mask.shape)}")
    if not std >= 0 or iterations < 1:
        raise InputError(f"std must be at least 0 and iterations at least 1, got {std} and {iterations}")

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        if x.shape != known.shape:
            raise InputError(f"the known pixels are of images {tuple(known.shape)}, and x is {tuple(x.shape)}")
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            guess = denoiser(leaf, sigma)

        def covariance(v: Tensor) -> Tensor:
            """C v; C is symmetric, so that the pass backwards gives it."""
            return torch.autograd.grad(guess, leaf, v, retain_graph=True)[0] * sigma**2

        m = mask.to(x)
        guessed = guess.detach()
        residual = m * (known.to(x) - guessed)
        solved = _conjugate_gradients(lambda v: m * covariance(v) + std**2 * v, residual, iterations)
        better = guessed + covariance(solved)
        return better if std > 0 else torch.where(mask, known.to(x), better)

    return denoise


def _conjugate_gradients(apply: Callable[[Tensor], Tensor], residual: Tensor, iterations: int) -> Tensor:
    """v with A v = r for each image, A symmetric and not negative; an image stops where A is not, or r is gone."""
    solved, left = torch.zeros_like(residual), residual
    direction, squares = left, _dot(left, left)
    enough = squares * 1e-24 if residual.dtype == torch.float64 else squares * 1e-10
    for _ in range(iterations):
        turned = apply(direction)
        curvature = _dot(direction, turned)
        going = (squares > enough) & (curvature > 0)
        if not bool(going.any()):
            break
        step = torch.where(going, squares / curvature, 0.0)
        solved, left = solved + step * direction, left - step * turned
        before, squares = squares, torch.where(going, _dot(left, left), squares)
        direction = torch.where(going, left + squares / before * direction, torch.zeros_like(left))
    return solved


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Of each image, (N, 1, …)."""
    return (a * b).flatten(1).sum(1).view(-1, *[1] * (a.ndim - 1))

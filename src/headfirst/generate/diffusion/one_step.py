"""One step of the probability-flow ODE dx/dσ = (x - D(x; σ)) / σ, each image from a level of its own.

What enters: a denoiser, images, the levels they are at and those they go to. What leaves: the images there. Samplers
take all images through the same levels; distillation draws a level for each.

Shape letters: N images.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

LevelledDenoiser = Callable[[Tensor, Tensor], Tensor]
"""D(x; σ) of x (N, …) and σ, (N,) or a scalar tensor."""

Step = Callable[[LevelledDenoiser, Tensor, Tensor, Tensor], Tensor]
"""Of a denoiser, x, the levels s of x and t to go to: x at t."""


def euler_step(
    denoiser: LevelledDenoiser, x: Float[Tensor, "n ..."], s: Float[Tensor, "*n"], t: Float[Tensor, "*n"]
) -> Float[Tensor, "n ..."]:
    """D + t/s (x - D), the step of `euler` and `ddim`. One evaluation.

    Args:
        s, t: (N,) or scalars, s > t >= 0.
    """
    return denoiser(x, s).lerp(x, along(t / s, x))


def heun_step(
    denoiser: LevelledDenoiser, x: Float[Tensor, "n ..."], s: Float[Tensor, "*n"], t: Float[Tensor, "*n"]
) -> Float[Tensor, "n ..."]:
    """x + (t - s) (d_s + d_t) / 2, d = (x - D) / σ, d_t where Euler's step ends. Two evaluations.

    Args:
        s, t: (N,) or scalars, s > t > 0.

    Source: Karras et al., NeurIPS 2022, algorithm 1.
    """
    slope = (x - denoiser(x, s)) / along(s, x)
    ahead = x + along(t - s, x) * slope
    return x + along(t - s, x) * (slope + (ahead - denoiser(ahead, t)) / along(t, x)) / 2


def along(value: Float[Tensor, "*n"], x: Float[Tensor, "n ..."]) -> Tensor:
    """A number for each image, shaped and typed so that it multiplies the images; a scalar stays one."""
    return value.to(x.dtype).view(-1, *[1] * (x.ndim - 1)) if value.ndim else value.to(x.dtype)

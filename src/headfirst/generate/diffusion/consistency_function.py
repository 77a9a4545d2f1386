"""The consistency function f(x; σ): from any point of a path of the probability-flow ODE to its end at σ_min.

What enters: a student, its target, two points of a path. What leaves: how far apart the student puts their ends.

Shape letters: N images.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError
from headfirst.generate.diffusion.one_step import LevelledDenoiser


def consistency_loss(
    student: LevelledDenoiser,
    target: LevelledDenoiser,
    x_s: Float[Tensor, "n ..."],
    s: Float[Tensor, " n"],
    x_t: Float[Tensor, "n ..."],
    t: Float[Tensor, " n"],
    *,
    huber: float,
) -> Float[Tensor, " n"]:
    """‖f(x_s; s) - f⁻(x_t; t)‖, made smooth at 0 (`pseudo_huber`); no gradient through f⁻.

    Unweighted over the levels of a grid these distances sum to at least that of the one-step image from the end of its
    path, by the triangle inequality: the loss bounds the error of one step.

    Args:
        student, target: f and f⁻, the same function or an average of it; at σ_min both must return x.
        x_s, x_t: (N, …) on the same path, at levels s > t.
        huber: see `pseudo_huber`.

    Source: Song et al., "Consistency Models", ICML 2023, equations 7 and 9.
    """
    with torch.no_grad():
        end = target(x_t, t)
    return pseudo_huber(student(x_s, s) - end, huber)


def pseudo_huber(difference: Float[Tensor, "n ..."], c: float) -> Float[Tensor, " n"]:
    """√(‖d‖² + c²) - c of each row: ‖d‖ far from 0, ‖d‖² / 2c near it.

    Args:
        c: positive.

    Raises:
        InputError: c is not.

    Source: Song & Dhariwal, "Improved Techniques for Training Consistency Models", ICLR 2024, equation 8.

    >>> pseudo_huber(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), 1e-3)
    tensor([4.9990, 0.0000])
    """
    if not 0 < c < math.inf:
        raise InputError(f"c must be positive and finite, got {c}; 0.00054 √D of D pixels is usual")
    squared = difference.flatten(1).square().sum(dim=1)
    return squared / ((squared + c**2).sqrt() + c)


def usual_huber(num_pixels: int) -> float:
    """0.00054 √D, of D = C · S · S values (Song & Dhariwal, ICLR 2024, section 3.3)."""
    return 0.00054 * math.sqrt(num_pixels)

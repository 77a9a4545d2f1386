"""DINO's loss, its centre and what tells its two kinds of collapse apart.

Shape letters: N images, K prototypes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.errors import InputError


def dino_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    center: Tensor,
    student_temperature: float,
    teacher_temperature: float,
) -> Float[Tensor, ""]:
    """Cross-entropy of the student's to the teacher's centred and sharpened distribution, for one pair of views.

    P_t = softmax((g_t - c) / τ_t),  P_s = softmax(g_s / τ_s),  L = -1/N Σ_i Σ_k P_t(k) log P_s(k)

    Args:
        student_logits: (N, K), g_s of one view.
        teacher_logits: (N, K), g_t of another view of the same images; no gradient flows into it.
        center: c, (K,) or (1, K): the running mean of the teacher's logits.
        student_temperature, teacher_temperature: τ_s and τ_t, positive; the teacher's is the smaller.

    Returns:
        Scalar; equal logits without a centre at temperature 1 give the entropy of their softmax.

    Raises:
        InputError: shapes that differ, or a temperature that is not positive.

    Source: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, algorithm 1.

    >>> flat = torch.zeros(3, 8)
    >>> import math
    >>> abs(dino_loss(flat, flat, torch.zeros(8), 0.1, 0.04).item() - math.log(8)) < 1e-6
    True
    """
    if student_logits.ndim != 2 or student_logits.shape != teacher_logits.shape:
        raise InputError(
            f"student and teacher logits must both be (N, K), got {tuple(student_logits.shape)} and "
            f"{tuple(teacher_logits.shape)}"
        )
    if center.numel() != teacher_logits.shape[1]:
        raise InputError(f"the centre has one number a prototype, {teacher_logits.shape[1]}; got {tuple(center.shape)}")
    target = teacher_probabilities(teacher_logits, center, teacher_temperature)
    _require_positive("student_temperature", student_temperature)
    return -(target * (student_logits / student_temperature).log_softmax(dim=1)).sum(dim=1).mean()


def teacher_probabilities(logits: Float[Tensor, "n k"], center: Tensor, temperature: float) -> Float[Tensor, "n k"]:
    """softmax((g - c) / τ), without a gradient."""
    _require_positive("teacher_temperature", temperature)
    return ((logits.detach() - center.detach().reshape(1, -1)) / temperature).softmax(dim=1)


def teacher_entropies(probabilities: Float[Tensor, "n k"]) -> tuple[float, float]:
    """Mean entropy of the rows and entropy of the mean row, in nats.

    A teacher that says nothing has both at log K; one that says the same of every image has the second near the first,
    and both near 0.
    """
    rows = -(torch.xlogy(probabilities, probabilities)).sum(dim=1).mean()
    mean = probabilities.mean(dim=0)
    return rows.item(), -torch.xlogy(mean, mean).sum().item()


def _require_positive(name: str, temperature: float) -> None:
    if not 0 < temperature < float("inf"):
        raise InputError(f"{name} must be positive and finite, got {temperature}")

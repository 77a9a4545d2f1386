"""What a discriminator's logits say of the game while it is played.

What enters: logits of a batch, high for real images. What leaves: numbers for a log, without a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from headfirst.errors import InputError

_LARGEST_LOGIT = 700.0  # e^±700 is finite and above zero in float64


@dataclass(frozen=True, kw_only=True)
class DiscriminatorReading:
    """Both probabilities at ½ is a game in balance; real near 1 and fake near 0, a generator that is left behind."""

    real: float
    """Mean probability, in [0, 1], that real images are real."""

    fake: float
    """Mean probability, in [0, 1], that generated images are real."""

    gradient_ratio: float
    """Median over the generated images of `gradient_ratio`: 1 in balance, near 0 where the saturating loss is dead."""


def read_discriminator(real_logits: Tensor, fake_logits: Tensor) -> DiscriminatorReading:
    """Mean D on real and on generated images, and how much of its gradient the saturating loss would have kept.

    Args:
        real_logits, fake_logits: any shapes.

    Raises:
        InputError: no logits.

    >>> import torch
    >>> read_discriminator(torch.zeros(4), torch.zeros(4))
    DiscriminatorReading(real=0.5, fake=0.5, gradient_ratio=1.0)
    """
    if not real_logits.numel() or not fake_logits.numel():
        raise InputError(
            f"real_logits and fake_logits must hold at least one logit each, got shapes {tuple(real_logits.shape)} and "
            f"{tuple(fake_logits.shape)}"
        )
    return DiscriminatorReading(
        real=real_logits.detach().double().sigmoid().mean().item(),
        fake=fake_logits.detach().double().sigmoid().mean().item(),
        gradient_ratio=gradient_ratio(fake_logits).quantile(0.5).item(),
    )


def gradient_ratio(fake_logits: Tensor) -> Tensor:
    """|∂ saturating / ∂l| / |∂ non-saturating / ∂l| of each generated image: S(l) / S(-l) = e^l.

    The two losses push an image the same way through the generator, and differ by this factor only.

    Returns:
        Of the logits' shape, float64, in [e^-700, e^700], where larger logits are cut.

    Source: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, section 3.
    """
    return fake_logits.detach().double().clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT).exp()

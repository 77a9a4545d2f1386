"""The losses of a generator and its discriminator, on logits that are high for real images.

What enters: logits of any shape. What leaves: a scalar, the mean over the batch, to be minimised, in float32 or the
logits' wider type. G is the generator, l a logit, S the logistic function, D = S(l) the probability of being real.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from headfirst.errors import InputError


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Float[Tensor, ""]:
    """-mean log D(x) - mean log(1 - D(G(z))): the sum of two means, log 4 where D says ½ everywhere.

    The best discriminator of densities p and q has the logit log p/q, and its loss is log 4 - 2·JSD(p, q).

    Raises:
        InputError: no logits.

    Source: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, equation 1.

    >>> round(discriminator_loss(torch.zeros(3), torch.zeros(5)).exp().item(), 5)
    4.0
    """
    return F.softplus(-_logits("real", real_logits)).mean() + F.softplus(_logits("fake", fake_logits)).mean()


def saturating_loss(fake_logits: Tensor) -> Float[Tensor, ""]:
    """mean log(1 - D(G(z))), the generator's side of the game; its gradient, -S(l), dies where fakes are found out.

    Raises:
        InputError: no logits.

    Source: Goodfellow et al., NeurIPS 2014, equation 1.

    >>> round(saturating_loss(torch.zeros(3)).exp().item(), 5)
    0.5
    """
    return -F.softplus(_logits("fake", fake_logits)).mean()


def non_saturating_loss(fake_logits: Tensor) -> Float[Tensor, ""]:
    """-mean log D(G(z)), whose gradient, -S(-l), is largest where fakes are found out.

    Raises:
        InputError: no logits.

    Source: Goodfellow et al., NeurIPS 2014, section 3.

    >>> round(non_saturating_loss(torch.zeros(3)).exp().item(), 5)
    2.0
    """
    return F.softplus(-_logits("fake", fake_logits)).mean()


def hinge_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Float[Tensor, ""]:
    """mean max(0, 1 - l(x)) + mean max(0, 1 + l(G(z))): nothing is gained beyond the margins ±1.

    Raises:
        InputError: no logits.

    Source: Lim & Ye, "Geometric GAN", 2017; Miyato et al., "Spectral Normalization for GANs", ICLR 2018, equation 16.
    """
    return (1 - _logits("real", real_logits)).relu().mean() + (1 + _logits("fake", fake_logits)).relu().mean()


def hinge_generator_loss(fake_logits: Tensor) -> Float[Tensor, ""]:
    """-mean l(G(z)).

    Raises:
        InputError: no logits.

    Source: Miyato et al., ICLR 2018, equation 17.
    """
    return -_logits("fake", fake_logits).mean()


def least_squares_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Float[Tensor, ""]:
    """½ mean (l(x) - 1)² + ½ mean l(G(z))²: the output itself, not its logistic, is 1 for real and 0 for generated.

    Raises:
        InputError: no logits.

    Source: Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017, equation 9.
    """
    real, fake = _logits("real", real_logits), _logits("fake", fake_logits)
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def least_squares_generator_loss(fake_logits: Tensor) -> Float[Tensor, ""]:
    """½ mean (l(G(z)) - 1)².

    Raises:
        InputError: no logits.

    Source: Mao et al., ICCV 2017, equation 9.
    """
    return (_logits("fake", fake_logits) - 1).square().mean() / 2


def relativistic_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Float[Tensor, ""]:
    """-mean log S(l(x) - l(G(z))): each real image against one generated image; log 2 where nothing is told apart.

    Args:
        real_logits, fake_logits: one shape; row i of one is paired with row i of the other, of its class if there are
            classes.

    Raises:
        InputError: no logits, or shapes that differ.

    Source: Jolicoeur-Martineau, "The relativistic discriminator", ICLR 2019; Huang et al., "The GAN is dead; long live
    the GAN! A Modern Baseline GAN" (R3GAN), NeurIPS 2024, equation 2.
    """
    return F.softplus(-_differences(real_logits, fake_logits)).mean()


def relativistic_generator_loss(real_logits: Tensor, fake_logits: Tensor) -> Float[Tensor, ""]:
    """-mean log S(l(G(z)) - l(x)): the generated image is to look the more real of the pair.

    Args:
        real_logits, fake_logits: as for `relativistic_discriminator_loss`; the real ones are needed here too.

    Raises:
        InputError: no logits, or shapes that differ.

    Source: Huang et al., NeurIPS 2024, equation 2. Deviation: there the generator minimises what the discriminator
    maximises; here, as in the authors' code, it has the same loss with the roles exchanged (non-saturating).
    """
    return F.softplus(_differences(real_logits, fake_logits)).mean()


def _differences(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    if real_logits.shape != fake_logits.shape:
        raise InputError(
            "each real logit is paired with one generated one, so both must have one shape, got "
            f"{tuple(real_logits.shape)} and {tuple(fake_logits.shape)}"
        )
    return _logits("real", real_logits) - _logits("fake", fake_logits)


def _logits(name: str, logits: Tensor) -> Tensor:
    if logits.numel() == 0:
        raise InputError(f"{name}_logits must hold at least one logit, got shape {tuple(logits.shape)}")
    return logits.to(torch.promote_types(logits.dtype, torch.float32))

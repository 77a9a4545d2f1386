"""The space between the images: paths through it, and whether a VAE uses it as its prior says.

What enters: latents, or a `Generator` of kind vae and images. What leaves: latents, images, what was found.

Shape letters: N images, Z latent dimensions, M steps, C channels, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import kstest
from torch import Tensor
from torch.special import ndtri

from headfirst.data import ImageSplit
from headfirst.errors import InputError
from headfirst.generate.generator import Generator
from headfirst.generate.pictures import Pictures
from headfirst.generate.vae_bound import decode, encode
from headfirst.randomness import keyed_normal

ACTIVE = 0.01
"""A unit is active if the variance of its posterior mean over the images is above (Burda et al., ICLR 2016, 5.2)."""
_FEW = 0.1  # share of the units that are active, at most, where the posterior has collapsed
_DRAW = 33  # stream of the keyed generator


def linear_path(a: Tensor, b: Tensor, steps: int) -> Float[Tensor, "m z"]:
    """(1 - t) a + t b at `steps` equal steps from a to b, both (Z,).

    Raises:
        InputError: other shapes, or fewer than two steps.
    """
    t = _steps(a, b, steps)
    return (1 - t) * a + t * b


def spherical_path(a: Tensor, b: Tensor, steps: int) -> Float[Tensor, "m z"]:
    """sin((1 - t) θ) / sin θ a + sin(t θ) / sin θ b, θ the angle between a and b, at equal steps from a to b.

    In many dimensions a normal prior lies near a sphere, which the straight line leaves.

    Raises:
        InputError: as `linear_path`; a latent of length zero, or the two point opposite ways: no arc is the shortest.

    Source: Shoemake, "Animating Rotation with Quaternion Curves", SIGGRAPH 1985; White, "Sampling Generative Networks",
    2016, for latents.

    >>> spherical_path(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 3)[1]
    tensor([0.7071, 0.7071])
    """
    t = _steps(a, b, steps).double()
    a64, b64 = a.double(), b.double()
    lengths = a64.norm() * b64.norm()
    if lengths == 0:
        raise InputError("a path along a sphere needs two latents of positive length; take linear_path")
    u, v = a64 / a64.norm(), b64 / b64.norm()
    theta = 2 * torch.atan2((u - v).norm(), (u + v).norm())  # exact also where the cosine is flat
    if torch.pi - theta < 1e-6:
        raise InputError("the latents point opposite ways, so that no arc is the shortest; go through a third one")
    if theta < 1e-6:
        return linear_path(a, b, steps)
    return ((((1 - t) * theta).sin() * a64 + (t * theta).sin() * b64) / theta.sin()).to(a.dtype)


def traverse(
    generator: Generator,
    latent: Float[Tensor, " z"],
    dimension: int,
    values: Sequence[float],
    *,
    label: int | None = None,
) -> Float[Tensor, "m c s s"]:
    """The images of one latent while one of its dimensions takes each of `values`.

    Args:
        label: the class, for a class-conditional generator.

    Raises:
        InputError: no such dimension, no value, or as `decode`.
    """
    if latent.ndim != 1 or not 0 <= dimension < len(latent) or not len(values):
        raise InputError(
            f"latent must be (Z,), dimension one of its Z and values not empty, got {tuple(latent.shape)}, {dimension} "
            f"and {len(values)} values"
        )
    moved = latent.repeat(len(values), 1)
    moved[:, dimension] = torch.as_tensor(values, dtype=latent.dtype)
    return decode(generator, moved, None if label is None else torch.full((len(values),), label))


@dataclass(frozen=True, kw_only=True)
class LatentDiagnostics:
    """How a VAE uses its latents on N images. Of the aggregate posterior (one draw an image), mapped so that the prior
    is N(0, 1), where it is not already.

    Attributes:
        variance_of_means: of E_q(z | x) over the images, each dimension; above 0.01 it is active.
        kl: mean KL to the prior of each dimension, nats.
        aggregate_mean, aggregate_std: of each dimension; 0 and 1 where samples of the prior look like encoded images.
        aggregate_distance: KL to N(0, I) of the normal distribution with the draws' mean and covariance, nats. N draws
            of the prior itself give about Z (Z + 3) / 4N.
        aggregate_p: of Kolmogorov and Smirnov's test that a dimension is the prior's, the smallest of all Z, times Z.
    """

    variance_of_means: tuple[float, ...]
    kl: tuple[float, ...]
    aggregate_mean: tuple[float, ...]
    aggregate_std: tuple[float, ...]
    aggregate_distance: float
    aggregate_p: float

    @property
    def active_units(self) -> int:
        """Dimensions that say something of the image."""
        return sum(variance > ACTIVE for variance in self.variance_of_means)

    @property
    def warning(self) -> str | None:
        """Posterior collapse in a sentence, where a tenth of the dimensions or fewer are active."""
        if self.active_units > _FEW * len(self.kl):
            return None
        return (
            f"posterior collapse: {self.active_units} of {len(self.kl)} latent dimensions are active (variance of the "
            f"posterior mean above {ACTIVE}; the largest is {max(self.variance_of_means):.2g}) and an image's latents "
            f"hold {sum(self.kl):.2g} nats, so the decoder all but ignores them; a smaller beta, a longer warm-up or "
            "free bits are the remedies"
        )


def latent_diagnostics(
    generator: Generator, images: ImageSplit | Pictures, *, labels: Tensor | None = None, seed: int = 0
) -> LatentDiagnostics:
    """Active units, KL of each dimension, and the aggregate posterior beside the prior.

    Args:
        images: at least two.
        labels: as for `encode`.

    Raises:
        InputError: as `encode`; fewer than two images.
    """
    q = encode(generator, images, labels=labels)
    N, Z = q.location.shape
    if N < 2:
        raise InputError(f"the spread of latents needs at least two images, got {N}")
    noise = torch.from_numpy(keyed_normal(seed, _DRAW, np.arange(N)[:, None], np.arange(Z))).float()
    latent = generator.network.latent
    below = latent.prior_cdf(latent.sample(q.location, q.spread, noise))
    eps = torch.finfo(torch.float64).eps
    draws = ndtri(below.clamp(eps, 1 - eps))
    m, covariance = draws.mean(dim=0), draws.T.cov().reshape(Z, Z)
    return LatentDiagnostics(
        variance_of_means=tuple(q.location.double().var(dim=0).tolist()),
        kl=tuple(latent.kl(q.location, q.spread, noise).double().mean(dim=0).tolist()),
        aggregate_mean=tuple(m.tolist()),
        aggregate_std=tuple(draws.std(dim=0).tolist()),
        aggregate_distance=_kl_to_standard_normal(m, covariance),
        aggregate_p=min(1.0, Z * min(float(kstest(below[:, d].numpy(), "uniform").pvalue) for d in range(Z))),
    )


def _kl_to_standard_normal(m: Float[Tensor, " z"], covariance: Float[Tensor, "z z"]) -> float:
    """½ (tr C + |m|² - Z - log det C); infinite where the draws lie in a subspace."""
    return 0.5 * (covariance.trace() + m.square().sum() - len(m) - covariance.logdet()).item()


def _steps(a: Tensor, b: Tensor, steps: int) -> Float[Tensor, "m 1"]:
    if a.ndim != 1 or a.shape != b.shape or steps < 2:
        raise InputError(
            f"a path needs two latents (Z,) and at least 2 steps, got {tuple(a.shape)}, {tuple(b.shape)} and {steps}"
        )
    return torch.linspace(0, 1, steps, dtype=a.dtype)[:, None]

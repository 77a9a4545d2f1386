"""What a trained VAE says of given images: their latents, the evidence lower bound, the importance-weighted bound.

What enters: a `Generator` of kind vae and images. What leaves: latents, images, nats.

Shape letters: N images, Z latent dimensions, K draws an image, C channels, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.data import ImageSplit
from headfirst.errors import InputError
from headfirst.generate.generator import Generator
from headfirst.generate.pictures import Pictures, as_pictures
from headfirst.nn import ImportanceBound, importance_weighted_bound
from headfirst.randomness import keyed_normal
from headfirst.types import Progress, silent

_BATCH = 256
_IMAGES, _DECODED = 16, 512  # images, and images times draws, that are decoded at a time: little enough for the cache
_REFINING, _REFINE_RATE = 4, 0.03  # draws a step, and Adam's rate, where a posterior is refined
_ELBO, _BOUND, _REFINE = 31, 32, 34  # streams of the keyed generator


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """q(z | x) of N images, as the generator's `latent` reads it: N(μ, σ²) with log σ², or a logistic with log s."""

    location: Float[Tensor, "n z"]
    spread: Float[Tensor, "n z"]


@dataclass(frozen=True, kw_only=True)
class EvidenceBound:
    """The evidence lower bound of N images in its two parts, nats."""

    reconstruction: Float[Tensor, " n"]
    """E_q log p(x | z), by one draw or more."""

    kl: Float[Tensor, " n"]
    """KL(q(z | x) ‖ p(z))."""

    @property
    def mean(self) -> float:
        """Of reconstruction - KL over the images."""
        return (self.reconstruction - self.kl).mean().item()


def encode(generator: Generator, images: ImageSplit | Pictures, *, labels: Tensor | None = None) -> Posterior:
    """q(z | x) of every image.

    Args:
        images: resized to the generator's size.
        labels: (N,) what a class-conditional generator takes the images for; their own if None.

    Raises:
        InputError: another generator, colours where it knows grey alone, or missing labels.
    """
    network, shown, classes = _asked(generator, images, labels)
    with torch.inference_mode():
        parts = [network.encode(shown.batch(rows), classes(rows)) for rows in _batches(len(shown))]
    location, spread = (torch.cat(each) for each in zip(*parts, strict=True))
    return Posterior(location=location, spread=spread)


def decode(
    generator: Generator, latents: Float[Tensor, "n z"], labels: Int[Tensor, " n"] | None = None
) -> Float[Tensor, "n c s s"]:
    """The decoder's mean image of each latent, in [0, 1].

    Args:
        labels: classes, which a class-conditional generator needs.

    Raises:
        InputError: another generator, labels missing or of no use, or latents of another size.
    """
    network = _network(generator)
    if latents.ndim != 2 or latents.shape[1] != network.noise_dim or not len(latents):
        raise InputError(f"latents must be (N, {network.noise_dim}), got {tuple(latents.shape)}")
    rows = _batches(len(latents))
    with torch.inference_mode():
        return torch.cat(
            [network.decoder.mean(network.decode(latents[r], None if labels is None else labels[r])) for r in rows]
        )


def elbo(
    generator: Generator,
    images: ImageSplit | Pictures,
    *,
    draws: int = 1,
    labels: Tensor | None = None,
    seed: int = 0,
) -> EvidenceBound:
    """log p(x) ≥ E_q log p(x | z) - KL(q(z | x) ‖ p(z)) of every image; the KL exact where the latent's is.

    Args:
        draws: of each image, averaged over.
        labels: as for `encode`.

    Raises:
        InputError: as `encode`; no draw.
    """
    if draws < 1:
        raise InputError(f"draws must be at least 1, got {draws}")
    network, shown, classes = _asked(generator, images, labels)
    reconstruction, kl = [], []
    with torch.inference_mode():
        for rows in _batches(len(shown)):
            x, y = shown.batch(rows), classes(rows)
            q = network.encode(x, y)
            noise = _noise(seed, _ELBO, rows, np.arange(draws), network.noise_dim)
            decoded = [network.decode(network.latent.sample(*q, e), y) for e in noise]
            reconstruction.append(torch.stack([network.decoder.log_likelihood(d, x) for d in decoded]).mean(dim=0))
            kl.append(torch.stack([network.latent.kl(*q, e).sum(dim=1) for e in noise]).mean(dim=0))
    return EvidenceBound(reconstruction=torch.cat(reconstruction), kl=torch.cat(kl))


def bound(
    generator: Generator,
    images: ImageSplit | Pictures,
    *,
    draws: int = 500,
    refine: int = 0,
    labels: Tensor | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> ImportanceBound:
    """log p(x) of every image from below, by `importance_weighted_bound`; of images and classes, log p(x | class).

    The prior is the one that images are drawn from: each class's own (`fit_class_priors`), where `elbo` has that of the
    training. Draws are made and weighed a few at a time, so that neither more images nor more draws need more memory.

    Args:
        draws: K of each image, at least 2. Few say too little: L_K rises with K.
        refine: steps of Adam, with `_REFINING` draws each, that first improve the encoder's q(z | x) of each image. On
            images it never saw an encoder is far from the best it could say (Cremer, Li & Duvenaud, "Inference
            Suboptimality in Variational Autoencoders", ICML 2018), and few of its draws then carry all weight.
        labels: as for `encode`.

    Raises:
        InputError: as `encode`; fewer than two draws.
    """
    network, shown, classes = _asked(generator, images, labels)

    def refining(step: int, rows: np.ndarray) -> Tensor:
        some = np.arange(step * _REFINING, (step + 1) * _REFINING)
        return _noise(seed, _REFINE, rows, some, network.noise_dim)

    parts = []
    for start in range(0, len(shown), _IMAGES):
        rows = np.arange(start, min(start + _IMAGES, len(shown)))
        x, y = shown.batch(rows), classes(rows)
        at_once = np.array_split(np.arange(draws), max(1, -(-draws * len(rows) // _DECODED)))
        weighed = []
        with torch.no_grad():
            q = network.encode(x, y)
        if refine:
            q = _refined(network, x, y, q, partial(refining, rows=rows), refine)
        with torch.inference_mode():
            for some in at_once:
                noise = _noise(seed, _BOUND, rows, some, network.noise_dim)
                weighed.append(_log_joint_and_posterior(network, x, y, q, noise))
        joint, posterior = (torch.cat(each) for each in zip(*weighed, strict=True))
        parts.append(importance_weighted_bound(joint, posterior))
        progress("bound", start + len(rows), len(shown))
    return _joined(parts)


def _refined(
    network: Any,
    x: Tensor,
    y: Tensor | None,
    q: tuple[Tensor, Tensor],
    noise: Callable[[int], Float[Tensor, "k n z"]],
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Location and spread of each image after `steps` steps up its evidence lower bound, the rate falling to 0."""
    location, spread = (each.detach().clone().requires_grad_() for each in q)
    rule = torch.optim.Adam([location, spread], lr=_REFINE_RATE)
    with torch.enable_grad():
        for step in range(steps):
            rule.param_groups[0]["lr"] = _REFINE_RATE * (1 - step / steps)
            joint, posterior = _log_joint_and_posterior(network, x, y, (location, spread), noise(step))
            loss = (posterior - joint).mean(dim=0).sum()
            location.grad, spread.grad = torch.autograd.grad(loss, (location, spread))
            rule.step()
    return location.detach(), spread.detach()


def _log_joint_and_posterior(
    network: Any,
    x: Tensor,
    y: Tensor | None,
    q: tuple[Tensor, Tensor],
    noise: Float[Tensor, "k n z"],
) -> tuple[Float[Tensor, "k n"], Float[Tensor, "k n"]]:
    """log p(x, z) and log q(z | x) of K draws for each of N images."""
    K, N = noise.shape[:2]
    location, spread = (each.repeat(K, 1) for each in q)
    z = network.latent.sample(location, spread, noise.flatten(0, 1))
    decoded = network.decode(z, None if y is None else y.repeat(K))
    log_likelihood = network.decoder.log_likelihood(decoded, x.repeat(K, 1, 1, 1))
    prior = network.log_prior(z, None if y is None else y.repeat(K))
    posterior = network.latent.log_density(z, location, spread)
    return (log_likelihood + prior).reshape(K, N), posterior.reshape(K, N)


def _joined(parts: list[ImportanceBound]) -> ImportanceBound:
    per_image, errors, effective = (
        torch.cat([getattr(part, name) for part in parts])
        for name in ("per_image", "standard_errors", "effective_draws")
    )
    return ImportanceBound(
        per_image=per_image,
        standard_errors=errors,
        effective_draws=effective,
        mean=per_image.mean().item(),
        standard_error=errors.square().sum().sqrt().item() / len(errors),
    )


def _noise(seed: int, stream: int, images: np.ndarray, draws: np.ndarray, dim: int) -> Float[Tensor, "k n z"]:
    """What image i gets in draw k depends on (seed, i, k) alone."""
    noise = keyed_normal(seed, stream, images[None, :, None], draws[:, None, None], np.arange(dim))
    return torch.from_numpy(noise).float()


def _network(generator: Generator) -> Any:
    if generator.kind != "vae":
        raise InputError(
            f"only a VAE has an encoder and latents with a likelihood; this generator is a {generator.kind}"
        )
    return generator.network


def _asked(
    generator: Generator, images: ImageSplit | Pictures, labels: Tensor | None
) -> tuple[Any, Pictures, Callable[[np.ndarray], Tensor | None]]:
    """The network, the images as it takes them, and the classes of some of them."""
    network = _network(generator)
    shown = as_pictures(images, size=network.size, channels=network.channels)
    if not generator.classes:
        if labels is not None:
            raise InputError("the generator was trained without classes, so labels must be None")
        return network, shown, lambda _: None
    if labels is None:
        if shown.classes != generator.classes:
            raise InputError(
                f"a class-conditional generator needs every image's label, of {', '.join(generator.classes)}; "
                "label them, or give labels"
            )
        labels = torch.from_numpy(shown.labels)
    if labels.shape != (len(shown),) or not bool(((labels >= 0) & (labels < len(generator.classes))).all()):
        raise InputError(
            f"labels must be ({len(shown)},), each from 0 to {len(generator.classes) - 1}, got {tuple(labels.shape)}"
        )
    return network, shown, lambda rows: labels[torch.from_numpy(rows)]


def _batches(num: int) -> list[np.ndarray]:
    return [np.arange(start, min(start + _BATCH, num)) for start in range(0, num, _BATCH)]

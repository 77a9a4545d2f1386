"""Claim 12's generators of images: what they make of noise, and of the way between two noises.

Shape letters: N images, Z noise, K images for the picture, C channels, S pixels a side, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.claims.known_targets import NOISES
from headfirst.claims.trained import made, seen
from headfirst.data import ImageSet, ImageSplit, shuffled_by_name
from headfirst.generate import Generator, linear_path, pictures, spherical_path
from headfirst.metrics import frechet_distance
from headfirst.nn import PretrainedBackbone

NOISE, FRESH, LINEAR = "noise", "fresh sample", "linear"
NUM_IMAGES, NUM_PAIRS = 1000, 600
STEPS, PATHS = 64, 24
NEIGHBOUR = 5
SHOWN, SHOWN_PAIR = 20, 0
"""Images in each strip of the picture; the pair of noises whose path is shown."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The real images, all of the size that the generators make, and what they are compared with.

    Attributes:
        pool: learned from, prepared.
        real: (N, D) features of test images.
        distance: to these of `NOISE`, which has the mean and variance of the pool in each pixel; of `FRESH`, images of
            the pool, which is what another sample gives; of `LINEAR`, noise with the pool's mean and covariance, which
            is what a linear generator makes of it.
        shown: (C, S, S) images for the picture, by name.
    """

    pool: ImageSplit
    real: Float[Tensor, "n d"]
    distance: Mapping[str, float]
    shown: Mapping[str, Float[Tensor, "k c s s"]]


@dataclass(frozen=True, kw_only=True)
class OfImages:
    """What was found of one generator of images. Distances are Fréchet's, without the bias of few images.

    Attributes:
        distance: of samples to real images, for each of `NOISES`.
        changed, repeated: images that differ when the same noise is asked for again, alone or among others; images
            that other noise gives too.
        step, halved: largest of `STEPS` steps over the distance of the ends; largest of twice as many over it.
        norm, spread: mean and standard deviation of ‖z‖ / √Z.
        midpoint: mean ‖z‖ / √Z at the middle of the path, "straight" and "spherical".
        off: distance of the images there to the generator's own samples.
        nearest: mean distance of the images there to the fifth nearest real one, over that of samples.
        shown: (K, C, S, S) images for the picture, by name.
    """

    distance: Mapping[str, float]
    changed: int
    repeated: int
    step: float
    halved: float
    norm: float
    spread: float
    midpoint: Mapping[str, float]
    off: Mapping[str, float]
    nearest: Mapping[str, float]
    shown: Mapping[str, Float[Tensor, "k c s s"]]


def looked_at(data: ImageSet, backbone: PretrainedBackbone) -> Scene:
    """Of prepared and audited images."""
    pool = pictures(data["train"])
    test = data["test"].take(shuffled_by_name(data["test"].ids, seed=0)[:NUM_IMAGES])
    real = pictures(test, size=pool.size, grey=pool.grey).batch()
    some = pool.batch(shuffled_by_name(pool.split.ids, seed=0)[:NUM_IMAGES])
    generator = torch.Generator().manual_seed(0)
    noise = some.mean(dim=0) + some.std(dim=0) * torch.randn(real.shape, generator=generator)
    weights = torch.randn(len(real), len(some), generator=generator) / math.sqrt(len(some) - 1)
    linear = some.mean(dim=0) + torch.einsum("nm,mchw->nchw", weights, some - some.mean(dim=0))
    features = seen(real, backbone)
    others = {NOISE: noise, FRESH: some, LINEAR: linear}
    return Scene(
        pool=data["train"],
        real=features,
        distance={name: frechet_distance(seen(x, backbone), features).corrected for name, x in others.items()},
        shown={"real images": real[:SHOWN].clone(), NOISE: noise[:SHOWN].clone()},
    )


def of_generator(generator: Generator, scene: Scene, backbone: PretrainedBackbone, seed: int) -> OfImages:
    """Everything that is asked of one generator."""
    random = torch.Generator().manual_seed(seed)
    Z = generator.network.noise_dim
    z = {kind: draw(NUM_IMAGES, Z, random) for kind, draw in NOISES.items()}
    own = {kind: made(generator, noise) for kind, noise in z.items()}
    features = {kind: seen(images, backbone) for kind, images in own.items()}
    a, b = torch.randn(2, NUM_PAIRS, Z, generator=random)
    middle = {"straight": middles(a, b, linear_path), "spherical": middles(a, b, spherical_path)}
    there = {how: seen(made(generator, noise), backbone) for how, noise in middle.items()}
    step, halved = smoothness(generator, a[:PATHS], b[:PATHS])
    norms = z["Gaussian"].norm(dim=1) / math.sqrt(Z)
    usual = to_real(features["Gaussian"], scene.real)
    changed, repeated = asked_again(generator, seed)
    ends = a[SHOWN_PAIR], b[SHOWN_PAIR]
    return OfImages(
        distance={kind: frechet_distance(f, scene.real).corrected for kind, f in features.items()},
        changed=changed,
        repeated=repeated,
        step=step,
        halved=halved,
        norm=norms.mean().item(),
        spread=norms.std().item(),
        midpoint={how: (noise.norm(dim=1).mean() / math.sqrt(Z)).item() for how, noise in middle.items()},
        off={how: frechet_distance(f, features["Gaussian"]).corrected for how, f in there.items()},
        nearest={how: to_real(f, scene.real) / usual for how, f in there.items()},
        shown={
            "samples": own["Gaussian"][:SHOWN].clone(),
            "straight path": made(generator, linear_path(*ends, SHOWN)),
            "spherical path": made(generator, spherical_path(*ends, SHOWN)),
        },
    )


def middles(a: Float[Tensor, "n z"], b: Float[Tensor, "n z"], path: Callable[..., Tensor]) -> Float[Tensor, "n z"]:
    """Half-way from each row of a to its row of b."""
    return torch.stack([path(x, y, 3)[1] for x, y in zip(a, b, strict=True)])


def smoothness(generator: Generator, a: Float[Tensor, "n z"], b: Float[Tensor, "n z"]) -> tuple[float, float]:
    """Largest step of the image, by Euclidean distance of the pixels, on spherical paths from a to b: over the distance
    of the images at the ends, and with twice as many steps over the largest. Means over paths."""
    steps, halved = [], []
    for x, y in zip(a, b, strict=True):
        images = made(generator, spherical_path(x, y, 2 * STEPS + 1)).flatten(1).double()
        coarse = images[::2].diff(dim=0).norm(dim=1).max()
        steps.append(coarse / (images[-1] - images[0]).norm())
        halved.append(images.diff(dim=0).norm(dim=1).max() / coarse)
    return torch.stack(steps).mean().item(), torch.stack(halved).mean().item()


def asked_again(generator: Generator, seed: int) -> tuple[int, int]:
    """Of 70 images: how many differ when they are asked for again, in twos and one by one; how many of another seed are
    among them."""
    first = generator.sample(70, seed=seed).pixels
    twos = torch.cat([generator.sample(2, seed=seed, start=i).pixels for i in range(0, 70, 2)])
    few = (0, 1, 37, 63, 64, 69)
    ones = torch.cat([generator.sample(1, seed=seed, start=i).pixels for i in few])
    changed = (first != twos).flatten(1).any(dim=1).sum() + (first[list(few)] != ones).flatten(1).any(dim=1).sum()
    other = generator.sample(70, seed=seed + 1).pixels
    repeated = (first[:, None] == other[None]).flatten(2).all(dim=2).any(dim=1).sum()
    return int(changed), int(repeated)


def to_real(features: Float[Tensor, "n d"], real: Float[Tensor, "m d"]) -> float:
    """Mean distance to the fifth nearest real image: far where there are few."""
    return torch.cdist(features.double(), real.double()).kthvalue(NEIGHBOUR, dim=1).values.mean().item()

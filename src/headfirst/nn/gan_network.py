"""The two networks of an adversarial game: small residual ones for images, perceptrons for points.

What enters a generator: noise. What leaves: images in [0, 1], or points. What enters a discriminator: those. What
leaves: a logit each, high for real. No layer mixes the rows of a batch (no batch norm).

Shape letters: N rows, Z noise, C image channels, S pixels a side, D coordinates of a point, K classes.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from headfirst.errors import InputError

SIDES = (8, 64)
"""Smallest and largest side of an image; all are multiples of 4."""
SLOPE = 0.2  # of the leaky ReLU below zero
LEAK = 0.02  # share of the line through a generator's sigmoid at ½ that is mixed into it
_MOST_WIDTHS = 4  # a stage has at most so many times the channels of the first


class ResidualGenerator(nn.Module):
    """Noise to images: a linear map to the smallest stage, a residual block a stage, each twice as large as the last.

    The last convolution works at half the side and fills 2×2 pixels at a time. With classes, an embedding of the class
    is put beside the noise.

    Args:
        size: S, a multiple of 4 in 8 … 64.
        channels: C, 1 or 3.
        noise_dim: Z.
        width: channels at half the side; 16 makes 2.2 million multiplications for a 28 × 28 image, 64, the size of
            DCGAN's networks, some 30 million.
        num_classes: K; 0 for a generator without classes.

    Attributes:
        config: what builds it again.

    Raises:
        InputError: a size, width or number that cannot be.

    Source: Huang et al. (R3GAN), NeurIPS 2024, section 3: no normalisation, leaky ReLU, fix-up initialisation.
    Deviations: plain 3×3 blocks, one a stage; pixels filled by shuffling.
    """

    def __init__(
        self, *, size: int, channels: int = 1, noise_dim: int = 64, width: int = 16, num_classes: int = 0
    ) -> None:
        super().__init__()
        stages = halvings(size, channels, width)[::-1]
        _at_least_one(noise_dim=noise_dim)
        self.config: dict[str, Any] = {
            "size": size,
            "channels": channels,
            "noise_dim": noise_dim,
            "width": width,
            "num_classes": num_classes,
        }
        self.noise_dim = noise_dim
        self.classes = nn.Embedding(num_classes, noise_dim) if num_classes else None
        (side, first), (_, last) = stages[0], stages[-1]
        self.begin = nn.Linear(noise_dim * (2 if num_classes else 1), first * side**2)
        self.first = (first, side, side)
        self.blocks = nn.ModuleList(ResidualBlock(w, depth=len(stages)) for _, w in stages)
        self.widen = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) for (_, a), (_, b) in itertools.pairwise(stages))
        self.end = nn.Conv2d(last, 4 * channels, 3, padding=1)
        he_normal(self.begin, gain=1.0)
        for narrow in self.widen:
            he_normal(narrow, gain=1.0)
        he_normal(self.end, gain=1.0)

    def forward(self, noise: Float[Tensor, "n z"], labels: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n c s s"]:
        """Images in [0, 1], a hundredth or so beyond at most: a sigmoid alone has no way back from all black.

        Args:
            labels: in 0 … K-1, where there are classes.
        """
        given = noise if self.classes is None else torch.cat([noise, _embedded(self.classes, labels)], dim=1)
        x = self.begin(given).unflatten(1, self.first)
        for i, block in enumerate(self.blocks):
            if i:
                x = self.widen[i - 1](F.interpolate(x, scale_factor=2, mode="nearest"))
            x = block(x)
        x = F.pixel_shuffle(self.end(F.leaky_relu(x, SLOPE)), 2)
        return (1 - LEAK) * x.sigmoid() + LEAK * (0.5 + x / 4)


class ResidualDiscriminator(nn.Module):
    """Images to logits: 2×2 pixels become channels, a residual block a stage, each half as large as the last.

    With classes the logit is ψ(φ(x)) + ⟨e(y), φ(x)⟩: the embedding of the class projected on the features.

    Args:
        size, channels, width, num_classes: as for `ResidualGenerator`.
        spectral: divide every weight by its largest singular value.

    Raises:
        InputError: a size, width or number that cannot be.

    Source: as `ResidualGenerator`; classes: Miyato & Koyama, "cGANs with Projection Discriminator", ICLR 2018,
    equation 5; spectral normalisation: Miyato et al., ICLR 2018.
    """

    def __init__(
        self, *, size: int, channels: int = 1, width: int = 16, num_classes: int = 0, spectral: bool = False
    ) -> None:
        super().__init__()
        stages = halvings(size, channels, width)
        self.begin = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(w, depth=len(stages), zero=not spectral) for _, w in stages)
        self.widen = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) for (_, a), (_, b) in itertools.pairwise(stages))
        side, last = stages[-1]
        self.pool = nn.Conv2d(last, last, side, groups=last, bias=False)
        self.end = nn.Linear(last, 1)
        self.classes = nn.Embedding(num_classes, last) if num_classes else None
        for layer in (self.begin, *self.widen, self.pool, self.end):
            he_normal(layer, gain=1.0)
        if self.classes is not None:
            nn.init.normal_(self.classes.weight, std=last**-0.5)
        if spectral:
            _normalise_spectrum(self)

    def features(self, images: Float[Tensor, "n c s s"]) -> Float[Tensor, "n f"]:
        """φ(x), of images in [0, 1]."""
        x = self.begin(F.pixel_unshuffle(2 * images - 1, 2))
        for i, block in enumerate(self.blocks):
            if i:
                x = self.widen[i - 1](F.avg_pool2d(x, 2))
            x = block(x)
        return self.pool(F.leaky_relu(x, SLOPE)).flatten(1)

    def forward(self, images: Float[Tensor, "n c s s"], labels: Int[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """One logit an image in [0, 1]; `labels` where there are classes."""
        return _logits(self.features(images), self.end, self.classes, labels)


class PointGenerator(nn.Module):
    """Noise to points: a perceptron of the noise and, where asked, of sines and cosines of it at random frequencies.

    The noise is normal and made uniform first, of variance 1: √3 erf(z / √2). No region of it is then rare.

    Args:
        dim: D.
        noise_dim: Z.
        hidden: units of each hidden layer.
        layers: hidden layers.
        scale: the points' standard deviation, which those of an untrained generator have already.
        waves: frequencies, each at random from a normal distribution whose deviation rises geometrically from 0.5 to 4
            radians a standard deviation; 0 leaves them out. They let the generator bend early, before the discriminator
            is sharp; faster ones fold the points more often, and more of them lie between clumps.

    Source: of the waves, as `PointDiscriminator`.
    """

    waves: Tensor

    def __init__(
        self, *, dim: int = 2, noise_dim: int = 2, hidden: int = 64, layers: int = 3, scale: float = 1.0, waves: int = 0
    ) -> None:
        super().__init__()
        _at_least_one(dim=dim, noise_dim=noise_dim, hidden=hidden, layers=layers)
        self.config: dict[str, Any] = {
            "dim": dim,
            "noise_dim": noise_dim,
            "hidden": hidden,
            "layers": layers,
            "scale": scale,
            "waves": waves,
        }
        self.noise_dim, self.scale = noise_dim, scale
        self.register_buffer("waves", _waves(noise_dim, waves, 0.5, 4.0))
        self.layers = _perceptron(noise_dim + 2 * waves, hidden, layers, dim)

    def forward(self, noise: Float[Tensor, "n z"], labels: None = None) -> Float[Tensor, "n d"]:
        """One point a row of noise."""
        uniform = math.sqrt(3) * torch.erf(noise / math.sqrt(2))
        return self.scale * self.layers(_with_waves(uniform, self.waves))


class PointDiscriminator(nn.Module):
    """Points to logits: a perceptron of the points and of sines and cosines of them at random frequencies.

    Args:
        dim, hidden, scale: as for `PointGenerator`.
        layers: hidden layers.
        waves: frequencies, each at random from a normal distribution whose deviation rises geometrically from 2 to
            `fastest` radians a standard deviation of the points; 0 leaves them out.
        fastest: the sharpest details are about 1 / `fastest` standard deviations wide.
        spectral: divide every weight by its largest singular value.

    Source: Tancik et al., "Fourier features let networks learn high frequency functions", NeurIPS 2020.
    """

    waves: Tensor

    def __init__(
        self,
        *,
        dim: int = 2,
        hidden: int = 64,
        layers: int = 2,
        waves: int = 32,
        fastest: float = 16.0,
        scale: float = 1.0,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        _at_least_one(dim=dim, hidden=hidden, layers=layers)
        self.scale = scale
        self.register_buffer("waves", _waves(dim, waves, 2.0, fastest))
        self.layers = _perceptron(dim + 2 * waves, hidden, layers, 1)
        if spectral:
            _normalise_spectrum(self)

    def forward(self, points: Float[Tensor, "n d"], labels: None = None) -> Float[Tensor, " n"]:
        """One logit a point."""
        return self.layers(_with_waves(points / self.scale, self.waves)).squeeze(1)


class ResidualBlock(nn.Module):
    """x + f(x), f two 3×3 convolutions, each after a leaky ReLU, that begins at 0 where `zero`.

    Source: Zhang, Dauphin & Ma, "Fixup Initialization", ICLR 2019: with L blocks of m = 2 layers the first is scaled
    by L^(-1 / (2m - 2)), the last begins at zero.
    """

    def __init__(self, width: int, *, depth: int, zero: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        leaky = nn.init.calculate_gain("leaky_relu", SLOPE)
        he_normal(self.first, gain=leaky * depth**-0.5)
        he_normal(self.second, gain=0.0 if zero else leaky)

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape."""
        return x + self.second(F.leaky_relu(self.first(F.leaky_relu(x, SLOPE)), SLOPE))


def halvings(size: int, channels: int, width: int) -> list[tuple[int, int]]:
    """(side, channels) from half the image's side down to an odd side, or 4."""
    if not SIDES[0] <= size <= SIDES[1] or size % 4:
        raise InputError(f"size must be a multiple of 4 in {SIDES[0]} … {SIDES[1]}, got {size}")
    if channels not in (1, 3):
        raise InputError(f"channels must be 1 (grey) or 3 (colour), got {channels}")
    _at_least_one(width=width)
    sides = [size // 2]
    while sides[-1] % 2 == 0 and sides[-1] > 4:
        sides.append(sides[-1] // 2)
    return [(side, width * min(2**i, _MOST_WIDTHS)) for i, side in enumerate(sides)]


def _waves(dim: int, waves: int, slowest: float, fastest: float) -> Float[Tensor, "d w"]:
    return torch.logspace(math.log10(slowest), math.log10(fastest), waves) * torch.randn(dim, waves)


def _with_waves(x: Float[Tensor, "n d"], waves: Float[Tensor, "d w"]) -> Float[Tensor, "n f"]:
    angles = x @ waves
    return torch.cat([x, angles.sin(), angles.cos()], dim=1)


def _perceptron(inputs: int, hidden: int, layers: int, outputs: int) -> nn.Sequential:
    widths = [inputs, *[hidden] * layers]
    parts: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        parts += [nn.Linear(a, b), nn.LeakyReLU(SLOPE)]
        he_normal(parts[-2], gain=nn.init.calculate_gain("leaky_relu", SLOPE))
    parts.append(nn.Linear(hidden, outputs))
    he_normal(parts[-1], gain=1.0)
    return nn.Sequential(*parts)


def he_normal(layer: nn.Module, *, gain: float) -> None:
    """Normal weights of variance gain² / fan-in, biases 0 (He et al., ICCV 2015)."""
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _normalise_spectrum(network: nn.Module) -> None:
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d | nn.Embedding)]
    for layer in layers:
        spectral_norm(layer)


def _logits(features: Tensor, end: nn.Linear, classes: nn.Embedding | None, labels: Tensor | None) -> Tensor:
    logits = end(features).squeeze(1)
    return logits if classes is None else logits + (_embedded(classes, labels) * features).sum(dim=1)


def _embedded(classes: nn.Embedding, labels: Tensor | None) -> Tensor:
    if labels is None:
        raise InputError(f"the network has {classes.num_embeddings} classes; give labels, one an image")
    return classes(labels)


def _at_least_one(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} must be at least 1, got {count}")

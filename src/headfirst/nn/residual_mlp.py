"""A small residual perceptron F(x, c_noise, labels, extra), for latents; no layer mixes the rows of a batch.

What enters: noisy latents scaled to unit variance and what they are told beside them. What leaves: as many latents.

Shape letters: N rows, C channels, S places a side (1 of a flat latent), D features.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.errors import InputError
from headfirst.nn.conditioning import Conditioning


@dataclass(frozen=True, kw_only=True)
class MLPShape:
    """The size of a `ResidualMLP`.

    Attributes:
        dim: D.
        depth: blocks.

    Raises:
        InputError: a number that cannot be.
    """

    dim: int = 128
    depth: int = 3

    name = "mlp"

    def __post_init__(self) -> None:
        if min(self.dim, self.depth) < 1:
            raise InputError(f"dim and depth must be at least 1, got {self.dim} and {self.depth}")

    def build(self, *, size: int, channels: int, num_classes: int, num_augmentation: int = 0) -> ResidualMLP:
        """The network, its weights drawn from PyTorch's generator."""
        return ResidualMLP(self, numbers=channels * size**2, num_classes=num_classes, num_augmentation=num_augmentation)


class ResidualMLP(nn.Module):
    """Blocks whose norms are scaled and shifted, and their ends gated, by the conditioning, as a `DiT`'s.

    Gates and exit are zero at first: an untrained network returns zeros.

    Args:
        numbers: C · S · S.
    """

    def __init__(self, shape: MLPShape, *, numbers: int, num_classes: int, num_augmentation: int = 0) -> None:
        super().__init__()
        self.conditioning = Conditioning(shape.dim, num_classes=num_classes, num_augmentation=num_augmentation)
        self.begin = nn.Linear(numbers, shape.dim)
        self.blocks = nn.ModuleList(_Block(shape.dim) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.dim)
        self.end = nn.Linear(shape.dim, numbers)
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)

    def forward(
        self,
        x: Float[Tensor, "n c s s"],
        c_noise: Float[Tensor, " n"],
        labels: Int[Tensor, " n"] | None,
        extra: Float[Tensor, " n"] | None = None,
        augmentation: Float[Tensor, "n a"] | None = None,
    ) -> Float[Tensor, "n c s s"]:
        """What the preconditioning makes D of; arguments as in `Conditioning`."""
        told = self.conditioning(c_noise, labels, extra, augmentation)
        h = self.begin(x.flatten(1))
        for block in self.blocks:
            h = block(h, told)
        return self.end(self.norm(h)).view_as(x)


class _Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.film = nn.LayerNorm(dim, elementwise_affine=False), nn.Linear(dim, 3 * dim)
        self.wide, self.narrow = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        scale, shift, gate = self.film(told).chunk(3, dim=1)
        return h + gate * self.narrow(F.silu(self.wide(self.norm(h) * (1 + scale) + shift)))

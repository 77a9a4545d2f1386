"""A small diffusion transformer F(x, c_noise, labels, extra); no layer mixes the rows of a batch.

What enters: noisy images scaled to unit variance and what they are told beside it. What leaves: as many images.

Shape letters: N rows, C channels, S pixels a side, L patches, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.errors import InputError
from headfirst.nn.conditioning import Conditioning
from headfirst.nn.positions import sine_cosine


@dataclass(frozen=True, kw_only=True)
class DiTShape:
    """The size of a `DiT`.

    Attributes:
        dim: D, a multiple of 4 and of heads.
        depth: blocks.
        heads: of each attention.
        patch: pixels a side of a patch.

    Raises:
        InputError: a number that cannot be.
    """

    dim: int = 128
    depth: int = 6
    heads: int = 4
    patch: int = 4

    name = "dit"

    def __post_init__(self) -> None:
        if min(self.dim, self.depth, self.heads, self.patch) < 1 or self.dim % 4 or self.dim % self.heads:
            raise InputError(
                "dim must be a multiple of 4 and of heads, depth, heads and patch at least 1, got "
                f"{self.dim}, {self.depth}, {self.heads} and {self.patch}"
            )

    @property
    def multiple(self) -> int:
        """Of which the side of an image must be."""
        return self.patch

    def build(self, *, size: int, channels: int, num_classes: int, num_augmentation: int = 0) -> DiT:
        """The network, its weights drawn from PyTorch's generator.

        Raises:
            InputError: images that patches do not tile.
        """
        if size % self.patch:
            raise InputError(f"patches of {self.patch} pixels do not tile a side of {size}; give another size or patch")
        return DiT(self, size=size, channels=channels, num_classes=num_classes, num_augmentation=num_augmentation)


class DiT(nn.Module):
    """Patches as tokens; blocks whose norms are scaled and shifted, and their ends gated, by the conditioning.

    Gates and exit are zero at first (adaLN-zero): an untrained network returns zeros.

    Source: Peebles & Xie, "Scalable Diffusion Models with Transformers", ICCV 2023, section 3.
    """

    places: Tensor

    def __init__(
        self, shape: DiTShape, *, size: int, channels: int, num_classes: int, num_augmentation: int = 0
    ) -> None:
        super().__init__()
        self.patch, dim, side = shape.patch, shape.dim, size // shape.patch
        self.side, pixels = side, channels * shape.patch**2
        self.conditioning = Conditioning(dim, num_classes=num_classes, num_augmentation=num_augmentation)
        self.begin = nn.Linear(pixels, dim)
        self.register_buffer("places", sine_cosine((side, side), dim), persistent=False)
        self.blocks = nn.ModuleList(_Block(dim, shape.heads) for _ in range(shape.depth))
        self.norm, self.film = nn.LayerNorm(dim, elementwise_affine=False), nn.Linear(dim, 2 * dim)
        self.end = nn.Linear(dim, pixels)
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
        told = self.conditioning(c_noise, labels, extra, augmentation)[:, None]
        h = self.begin(F.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2)) + self.places
        for block in self.blocks:
            h = block(h, told)
        scale, shift = self.film(told).chunk(2, dim=2)
        h = self.end(self.norm(h) * (1 + scale) + shift)
        return F.pixel_shuffle(h.transpose(1, 2).unflatten(2, (self.side, self.side)), self.patch)


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = (nn.LayerNorm(dim, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.wide, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.film = nn.Linear(dim, 6 * dim)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = self.film(told).chunk(6, dim=2)
        h = self.norm_1(x) * (1 + scale_1) + shift_1
        q, k, v = self.qkv(h).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + gate_1 * self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        h = self.norm_2(x) * (1 + scale_2) + shift_2
        return x + gate_2 * self.narrow(F.gelu(self.wide(h), approximate="tanh"))

"""A small UNet F(x, c_noise, labels, extra) for images of 8 to 64 pixels; no layer mixes the rows of a batch.

What enters: noisy images scaled to unit variance and what they are told beside it. What leaves: as many images.

Shape letters: N rows, C channels, S pixels a side, D features of the conditioning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.errors import InputError
from headfirst.nn.conditioning import Conditioning


@dataclass(frozen=True, kw_only=True)
class UNetShape:
    """The size of a `UNet`.

    Attributes:
        widths: channels of each level, each at half the side of the one before; attention is in the last alone.
        blocks: residual blocks of a level on each way, down and up.
        patch: pixels a side that become channels at the entrance: 2 makes a network four times as cheap.
        head_dim: features of an attention head, which divides the last width.

    Raises:
        InputError: a number that cannot be.
    """

    widths: tuple[int, ...] = (48, 96)
    blocks: int = 1
    patch: int = 2
    head_dim: int = 32

    name = "unet"

    def __post_init__(self) -> None:
        if not self.widths or any(width < 8 or width % 8 for width in self.widths):
            raise InputError(f"widths must be one or more positive multiples of 8, got {self.widths}")
        if self.blocks < 1 or self.patch < 1 or self.head_dim < 1 or self.widths[-1] % self.head_dim:
            raise InputError(
                "blocks and patch must be at least 1 and head_dim divide the last width, got "
                f"{self.blocks}, {self.patch} and {self.head_dim} for {self.widths[-1]}"
            )

    @property
    def multiple(self) -> int:
        """Of which the side of an image must be."""
        return self.patch * 2 ** (len(self.widths) - 1)

    def build(self, *, size: int, channels: int, num_classes: int, num_augmentation: int = 0) -> UNet:
        """The network, its weights drawn from PyTorch's generator.

        Raises:
            InputError: images that it cannot halve as often.
        """
        if size % self.multiple:
            raise InputError(
                f"a UNet of patch {self.patch} and {len(self.widths)} levels takes sides that are multiples of "
                f"{self.multiple}, got {size}; give another size or fewer levels"
            )
        return UNet(self, size=size, channels=channels, num_classes=num_classes, num_augmentation=num_augmentation)


class UNet(nn.Module):
    """Residual blocks down and up with the images of the way down put beside those of the way up.

    Each block is scaled and shifted by the conditioning (FiLM) and adds nothing at first, as does the exit: an
    untrained network returns zeros. Each level learns an embedding of its places, without which a shallow network of
    convolutions hardly knows where it is: at much noise the best guess is a mean image.

    Source: Ho et al., NeurIPS 2020, and Dhariwal & Nichol, NeurIPS 2021, appendix A, smaller, with places.
    """

    def __init__(
        self, shape: UNetShape, *, size: int, channels: int, num_classes: int, num_augmentation: int = 0
    ) -> None:
        super().__init__()
        self.patch, widths, dim = shape.patch, shape.widths, 2 * shape.widths[-1]
        side = size // shape.patch
        pixels = channels * shape.patch**2
        self.conditioning = Conditioning(dim, num_classes=num_classes, num_augmentation=num_augmentation)
        self.begin = nn.Conv2d(pixels, widths[0], 3, padding=1)
        self.places, self.down, self.up = nn.ParameterList(), nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            last = level == len(widths) - 1
            before = widths[max(level - 1, 0)]
            halve = nn.Conv2d(before, width, 3, stride=2, padding=1) if level else nn.Identity()
            heads = width // shape.head_dim if last else 0
            self.places.append(nn.Parameter(torch.zeros(1, width, side >> level, side >> level)))
            self.down.append(_Level(halve, [_Block(width, width, dim, heads) for _ in range(shape.blocks)]))
            blocks = [_Block(2 * width, width, dim, heads) for _ in range(shape.blocks)]
            double = _Double(width, before) if level else nn.Identity()
            self.up.append(_Level(double, blocks))
        self.norm = _norm(widths[0])
        self.end = nn.Conv2d(widths[0], pixels, 3, padding=1)
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)  # pyright: ignore[reportArgumentType]
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

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
        h = F.pixel_unshuffle(x, self.patch).contiguous(memory_format=torch.channels_last)
        h, kept = self.begin(h), []
        for level, places in zip(_levels(self.down), self.places, strict=True):
            h = level.resize(h) + places
            for block in level.blocks:
                h = block(h, told)
                kept.append(h)
        for level in _levels(self.up)[::-1]:
            for block in level.blocks:
                h = block(torch.cat([h, kept.pop()], dim=1), told)
            h = level.resize(h)
        return F.pixel_shuffle(self.end(F.silu(self.norm(h))), self.patch).contiguous()


class _Level(nn.Module):
    """Blocks, and what halves the side before them, or doubles it after."""

    def __init__(self, resize: nn.Module, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.resize, self.blocks = resize, nn.ModuleList(blocks)


def _levels(modules: nn.ModuleList) -> list[_Level]:
    return [module for module in modules if isinstance(module, _Level)]


class _Block(nn.Module):
    """Two convolutions and, with heads, attention between all places of an image."""

    def __init__(self, before: int, width: int, dim: int, heads: int) -> None:
        super().__init__()
        self.norm_1, self.conv_1 = _norm(before), nn.Conv2d(before, width, 3, padding=1)
        self.norm_2, self.conv_2 = _norm(width), nn.Conv2d(width, width, 3, padding=1)
        self.film = nn.Linear(dim, 2 * width)
        self.straight = nn.Conv2d(before, width, 1) if before != width else nn.Identity()
        self.attention = _Attention(width, heads) if heads else nn.Identity()
        nn.init.zeros_(self.conv_2.weight)
        nn.init.zeros_(self.conv_2.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.film(told)[:, :, None, None].chunk(2, dim=1)
        h = self.conv_1(F.silu(self.norm_1(x)))
        h = self.conv_2(F.silu(self.norm_2(h) * (1 + scale) + shift))
        return self.attention(self.straight(x) + h)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, _norm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        rows, width, *sides = x.shape
        places = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(places).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(seen).transpose(1, 2).reshape(rows, width, *sides)


class _Double(nn.Module):
    """Twice the side."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, width // 4), width)

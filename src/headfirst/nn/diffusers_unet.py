"""The UNet of `diffusers`' UNet2DModel: the same computation, and the same names for the same weights.

What enters: noisy images and times. What leaves: what the network predicts, images of as many channels or twice as
many. The names of modules are theirs, so that their weights fit; nothing of theirs is needed to run it.

Shape letters: N images, C channels, S pixels a side, K classes, E embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.errors import InputError, did_you_mean

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "mish": nn.Mish,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
}


@dataclass(frozen=True, kw_only=True)
class DiffusersUNetShape:
    """The arguments of UNet2DModel, with its names and defaults.

    `dropout` is read and not used: the network is for sampling.

    Raises:
        InputError: numbers that do not fit, or a kind of layer that is not built here.
    """

    sample_size: int | tuple[int, int] | None = None
    in_channels: int = 3
    out_channels: int = 3
    center_input_sample: bool = False
    time_embedding_type: str = "positional"
    time_embedding_dim: int | None = None
    freq_shift: float = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    mid_block_type: str | None = "UNetMidBlock2D"
    up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: tuple[int, ...] = (224, 448, 672, 896)
    layers_per_block: int = 2
    mid_block_scale_factor: float = 1
    downsample_padding: int = 1
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    dropout: float = 0.0
    act_fn: str = "silu"
    attention_head_dim: int | None = 8
    norm_num_groups: int = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: str = "default"
    add_attention: bool = True
    class_embed_type: str | None = None
    num_class_embeds: int | None = None
    num_train_timesteps: int | None = None

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            given = getattr(self, name)
            for value in given if isinstance(given, tuple) else (given,):
                if value not in allowed:
                    raise InputError(
                        f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}"
                        f"{did_you_mean(str(value), [str(a) for a in allowed])}; other kinds are not read here"
                    )
        levels = len(self.block_out_channels)
        if not levels or len(self.down_block_types) != levels or len(self.up_block_types) != levels:
            raise InputError(
                f"block_out_channels, down_block_types and up_block_types must be equally long, got {levels}, "
                f"{len(self.down_block_types)} and {len(self.up_block_types)}"
            )
        groups, heads = self.norm_num_groups, self.attention_head_dim
        if not groups or any(width % groups for width in self.block_out_channels):
            raise InputError(f"norm_num_groups {groups} must divide each of block_out_channels, got {self._widths}")
        if heads is not None and (heads < 1 or any(width % heads for width in self.block_out_channels)):
            raise InputError(f"attention_head_dim {heads} must divide each of block_out_channels, got {self._widths}")
        if self.out_channels not in (self.in_channels, 2 * self.in_channels) or self.layers_per_block < 1:
            raise InputError(
                f"out_channels must be in_channels or twice as many and layers_per_block at least 1, got "
                f"{self.out_channels}, {self.in_channels} and {self.layers_per_block}"
            )

    @property
    def _widths(self) -> str:
        return ", ".join(map(str, self.block_out_channels))

    @property
    def embedding_dim(self) -> int:
        """E."""
        return self.time_embedding_dim or 4 * self.block_out_channels[0]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DiffusersUNetShape:
        """From unet/config.json; names that begin with an underscore are not read, empty ones are the defaults.

        Raises:
            InputError: a name that UNet2DModel does not have, or as for the class.
        """
        known = {field.name for field in fields(cls)}
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if not k.startswith("_")}
        for name, value in given.items():
            if name not in known and value is not None:
                raise InputError(f"UNet2DModel has no {name!r}{did_you_mean(name, known)}; is it another network?")
        return cls(**{k: v for k, v in given.items() if k in known})


_ALLOWED: dict[str, tuple[Any, ...]] = {
    "time_embedding_type": ("positional", "fourier"),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": ("UNetMidBlock2D", None),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D"),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": tuple(ACTIVATIONS),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None,),
}


class DiffusersUNet(nn.Module):
    """UNet2DModel: halvings with residual blocks and attention, the same way back with what was met on the way down.

    Source of the design: Ho, Jain & Abbeel, NeurIPS 2020, appendix B; scale_shift: Dhariwal & Nichol, "Diffusion Models
    Beat GANs on Image Synthesis", NeurIPS 2021; fourier: Song et al., ICLR 2021. The dtype is the weights'.
    """

    def __init__(self, shape: DiffusersUNetShape) -> None:
        super().__init__()
        self.shape = shape
        widths, embedding, layers = shape.block_out_channels, shape.embedding_dim, shape.layers_per_block
        self.conv_in = nn.Conv2d(shape.in_channels, widths[0], 3, padding=1)
        fourier = shape.time_embedding_type == "fourier"
        self.time_proj = _Fourier(widths[0]) if fourier else _Positional(shape)
        self.time_embedding = nn.ModuleDict(
            {
                "linear_1": nn.Linear((2 if fourier else 1) * widths[0], embedding),
                "linear_2": nn.Linear(embedding, embedding),
            }
        )
        if shape.num_class_embeds is not None:
            self.class_embedding = nn.Embedding(shape.num_class_embeds, embedding)
        self.down_blocks = nn.ModuleList()
        before = widths[0]
        for i, (kind, width) in enumerate(zip(shape.down_block_types, widths, strict=True)):
            wide = [before, *[width] * (layers - 1)]
            self.down_blocks.append(
                _Block(shape, wide, width, attention=kind.startswith("Attn"), down=i < len(widths) - 1)
            )
            before = width
        self.mid_block = _Middle(shape) if shape.mid_block_type else None
        self.up_blocks = nn.ModuleList()
        rising = widths[::-1]
        for i, (kind, width) in enumerate(zip(shape.up_block_types, rising, strict=True)):
            arriving = [before, *[width] * layers]
            met = [*[width] * layers, rising[min(i + 1, len(widths) - 1)]]
            wide = [a + m for a, m in zip(arriving, met, strict=True)]
            self.up_blocks.append(_Block(shape, wide, width, attention=kind.startswith("Attn"), up=i < len(widths) - 1))
            before = width
        self.conv_norm_out = nn.GroupNorm(shape.norm_num_groups, widths[0], eps=shape.norm_eps)
        self.conv_out = nn.Conv2d(widths[0], shape.out_channels, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "n c s1 s2"], t: Float[Tensor, " n"], labels: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n o s1 s2"]:
        """What the network predicts of `x` at the time `t`, a training step, or between two of them.

        Args:
            labels: in 0 … K - 1, for a network with classes; None without.

        Raises:
            InputError: labels where there are no classes, or none where there are; a side that cannot be halved.
        """
        self._check(x, labels)
        if self.shape.center_input_sample:
            x = 2 * x - 1
        embedding = self.time_embedding["linear_1"](self.time_proj(t).to(x.dtype))
        embedding = self.time_embedding["linear_2"](F.silu(embedding))
        if labels is not None:
            embedding = embedding + self.class_embedding(labels)
        x = self.conv_in(x)
        met = [x]
        for block in self.down_blocks:
            x, new = block(x, embedding, None)
            met += new
        if self.mid_block is not None:
            x = self.mid_block(x, embedding)
        for block in self.up_blocks:
            x, _ = block(x, embedding, met)
        x = self.conv_out(F.silu(self.conv_norm_out(x)))
        return x / t.to(x.dtype)[:, None, None, None] if self.shape.time_embedding_type == "fourier" else x

    def _check(self, x: Tensor, labels: Tensor | None) -> None:
        has = self.shape.num_class_embeds is not None
        if (labels is not None) != has:
            raise InputError(f"the network has {'' if has else 'no '}classes: give {'' if has else 'no '}labels")
        multiple = 2 ** (len(self.shape.block_out_channels) - 1)
        if x.shape[2] % multiple or x.shape[3] % multiple:
            raise InputError(f"sides must be multiples of {multiple}, got {x.shape[2]} and {x.shape[3]}")


class _Positional(nn.Module):
    """cos and sin of t at falling frequencies, from 1 to about 1/10,000."""

    frequencies: Tensor

    def __init__(self, shape: DiffusersUNetShape) -> None:
        super().__init__()
        self.cosine_first, self.width = shape.flip_sin_to_cos, shape.block_out_channels[0]
        half = self.width // 2
        exponent = -math.log(10_000) * torch.arange(half, dtype=torch.float32) / (half - shape.freq_shift)
        self.register_buffer("frequencies", exponent.exp(), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angle = t.float()[:, None] * self.frequencies
        parts = [angle.sin(), angle.cos()]
        both = torch.cat(parts[::-1] if self.cosine_first else parts, dim=1)
        return F.pad(both, (0, self.width % 2))


class _Fourier(nn.Module):
    """sin and cos of log t at drawn frequencies."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(16 * torch.randn(width), requires_grad=False)

    def forward(self, t: Tensor) -> Tensor:
        angle = t.float().log()[:, None] * self.weight * 2 * math.pi
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class _Residual(nn.Module):
    """Norm, activation and convolution twice, told the time in between; (x + that) / scale."""

    def __init__(self, shape: DiffusersUNetShape, into: int, out: int, scale: float = 1.0) -> None:
        super().__init__()
        groups, eps = shape.norm_num_groups, shape.norm_eps
        self.scales = shape.resnet_time_scale_shift == "scale_shift"
        self.scale = scale
        self.norm1 = nn.GroupNorm(groups, into, eps=eps)
        self.conv1 = nn.Conv2d(into, out, 3, padding=1)
        self.time_emb_proj = nn.Linear(shape.embedding_dim, 2 * out if self.scales else out)
        self.norm2 = nn.GroupNorm(groups, out, eps=eps)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.nonlinearity = ACTIVATIONS[shape.act_fn]()
        self.conv_shortcut = nn.Conv2d(into, out, 1) if into != out else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        hidden = self.conv1(self.nonlinearity(self.norm1(x)))
        time = self.time_emb_proj(self.nonlinearity(embedding))[:, :, None, None]
        if self.scales:
            scale, shift = time.chunk(2, dim=1)
            hidden = self.norm2(hidden) * (1 + scale) + shift
        else:
            hidden = self.norm2(hidden + time)
        hidden = self.conv2(self.nonlinearity(hidden))
        return ((x if self.conv_shortcut is None else self.conv_shortcut(x)) + hidden) / self.scale


class _Attention(nn.Module):
    """(x + attention of all pixels to all) / scale."""

    def __init__(self, shape: DiffusersUNetShape, width: int, groups: int | None, scale: float = 1.0) -> None:
        super().__init__()
        self.heads = width // (shape.attention_head_dim or width)
        self.scale = scale
        self.group_norm = None if groups is None else nn.GroupNorm(groups, width, eps=shape.norm_eps)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        pixels = (x if self.group_norm is None else self.group_norm(x)).flatten(2).transpose(1, 2)
        q, k, v = (
            project(pixels).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return (x + self.to_out[0](seen).transpose(1, 2).unflatten(2, x.shape[2:])) / self.scale


class _Resampling(nn.Module):
    """A convolution that halves the sides, or one after each pixel was doubled."""

    def __init__(self, width: int, *, down: bool, padding: int = 1) -> None:
        super().__init__()
        self.down, self.padding = down, padding
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=padding) if down else nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.down:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        elif self.padding == 0:
            x = F.pad(x, (0, 1, 0, 1))
        return self.conv(x)


class _Block(nn.Module):
    """Residual blocks, each with attention or without, and a resampling, or none, at the end."""

    def __init__(
        self,
        shape: DiffusersUNetShape,
        wide: list[int],
        out: int,
        *,
        attention: bool,
        down: bool = False,
        up: bool = False,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(_Residual(shape, into, out) for into in wide)
        self.attentions = nn.ModuleList(_Attention(shape, out, shape.norm_num_groups) for _ in wide if attention)
        if down:
            self.downsamplers = nn.ModuleList([_Resampling(out, down=True, padding=shape.downsample_padding)])
        if up:
            self.upsamplers = nn.ModuleList([_Resampling(out, down=False)])

    def forward(self, x: Tensor, embedding: Tensor, met: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """Of `met`, on the way up, the last are taken; on the way down what is met is returned."""
        new = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x if met is None else torch.cat([x, met.pop()], dim=1), embedding)
            if self.attentions:
                x = self.attentions[i](x)
            new.append(x)
        if hasattr(self, "downsamplers"):
            x = self.downsamplers[0](x)
            new.append(x)
        if hasattr(self, "upsamplers"):
            x = self.upsamplers[0](x)
        return x, new


class _Middle(nn.Module):
    """Two residual blocks, attention between them."""

    def __init__(self, shape: DiffusersUNetShape) -> None:
        super().__init__()
        width, scale = shape.block_out_channels[-1], shape.mid_block_scale_factor
        default = shape.norm_num_groups if shape.resnet_time_scale_shift == "default" else None
        groups = shape.attn_norm_num_groups or default
        self.resnets = nn.ModuleList(_Residual(shape, width, width, scale) for _ in range(2))
        self.attentions = nn.ModuleList([_Attention(shape, width, groups, scale)] if shape.add_attention else [])

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.resnets[0](x, embedding)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x, embedding)

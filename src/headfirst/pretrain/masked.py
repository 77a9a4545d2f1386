"""Masked images: most patches are hidden, and the visible ones must say what was there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from headfirst.data import View, Views
from headfirst.errors import InputError
from headfirst.nn import (
    PretrainedBackbone,
    encode_visible,
    normalised_patches,
    num_prefix_tokens,
    patch_size,
    patchify,
    reconstruction_errors,
    sine_cosine,
    unpatchify,
)
from headfirst.nn.seeds import seeded
from headfirst.pretrain.pretext import as_input
from headfirst.randomness import Draw
from headfirst.types import Preprocessing

_HIDDEN = 100  # stream of a sample's draw


@dataclass(frozen=True, kw_only=True)
class Masked:
    """A masked autoencoder: the encoder sees the visible patches only, a small decoder draws the hidden ones.

    Attributes:
        mask_ratio: share of the patches that is hidden.
        decoder_dim, decoder_depth: width and blocks of the decoder, which is thrown away. None: half the encoder's
            width, and at least 64.

    Source: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, section 3, with normalised pixels.
    Deviation: one decoder block for eight, which serves fine-tuning as well (table 1a) and leaves a small encoder most
    of the time.
    """

    mask_ratio: float = 0.75
    decoder_dim: int | None = None
    decoder_depth: int = 1

    method: ClassVar[str] = "masked"
    compares: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise InputError(f"mask_ratio is a share in (0, 1), got {self.mask_ratio}")
        wide = self.decoder_dim is None or (self.decoder_dim >= 4 and self.decoder_dim % 4 == 0)
        if not wide or self.decoder_depth < 1:
            raise InputError(
                "decoder_dim must be a multiple of 4 and decoder_depth at least 1, got "
                f"{self.decoder_dim} and {self.decoder_depth}"
            )

    def learner(self, backbone: PretrainedBackbone, *, seed: int, num_steps: int) -> MaskedAutoencoder:
        """See `Pretext`."""
        return MaskedAutoencoder(backbone, self, seed=seed)

    def views(self, *, mirror: bool) -> View:
        """Crops and mirror images, no colours: He et al., appendix A.1."""
        return Views(area=(0.2, 1.0), aspect=(3 / 4, 4 / 3), mirror=mirror)

    def preprocessing(self, backbone: PretrainedBackbone) -> Preprocessing:
        """See `Pretext`."""
        return backbone.preprocessing

    def mended(self, attempt: int) -> None:
        """Only a smaller learning rate helps."""


class MaskedAutoencoder(nn.Module):
    """Encoder and decoder; a row is the loss of one image."""

    places: Tensor

    def __init__(self, backbone: PretrainedBackbone, task: Masked, *, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        size, patch = backbone.preprocessing.size, patch_size(backbone)
        self.patch, self.prefix = patch, num_prefix_tokens(backbone)
        self.grid = (size[0] // patch, size[1] // patch)
        self.num_patches = self.grid[0] * self.grid[1]
        self.num_visible = min(max(1, round(self.num_patches * (1 - task.mask_ratio))), self.num_patches - 1)
        if self.num_visible < 1:
            raise InputError(f"{backbone.name} sees an image as one patch: nothing can be hidden from it")
        token_dim = self._token_dim()
        width = task.decoder_dim or max(64, token_dim // 8 * 4)
        with seeded(seed, 1):
            self.narrow = nn.Linear(token_dim, width)
            self.hole = nn.Parameter(torch.randn(width) * 0.02)
            self.decoder = nn.ModuleList(
                nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, activation="gelu",
                                           batch_first=True, norm_first=True)
                for _ in range(task.decoder_depth)
            )  # fmt: skip
            self.draw_patch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, patch * patch * 3))
        self.register_buffer("places", sine_cosine(self.grid, width), persistent=False)

    def _token_dim(self) -> int:
        size = self.backbone.preprocessing.size
        with torch.no_grad():
            visible = torch.zeros(1, 1, dtype=torch.int64)
            return encode_visible(self.backbone, torch.zeros(1, 3, *size), visible).shape[2]

    def encode(self, images: UInt8[Tensor, "b 3 h w"], draw: Draw, views: View) -> Float[Tensor, "b 1"]:
        """Loss of each image: the mean squared error over its hidden patches."""
        shown = as_input(views(images, draw, 0, size=self.backbone.preprocessing.size), self.backbone)
        visible, hidden = self.chosen(draw)
        visible, hidden = visible.to(shown.device), hidden.to(shown.device)
        target, drawn = normalised_patches(patchify(shown, self.patch)), self.reconstruct(shown, visible)
        return reconstruction_errors(drawn, target, hidden)[:, None]

    def chosen(self, draw: Draw) -> tuple[Int64[Tensor, "b k"], Bool[Tensor, "b l"]]:
        """Numbers of the visible patches, and which are hidden."""
        order = torch.from_numpy(np.argsort(draw.uniforms(self.num_patches, _HIDDEN), axis=1, kind="stable"))
        visible = order[:, : self.num_visible]
        return visible, torch.ones(order.shape, dtype=torch.bool).scatter_(1, visible, False)

    def reconstruct(self, images: Float[Tensor, "b 3 h w"], visible: Int64[Tensor, "b k"]) -> Float[Tensor, "b l p"]:
        """All patches of normalised images, drawn from the visible ones, each normalised by itself."""
        seen = self.narrow(encode_visible(self.backbone, images, visible))
        prefix, patches = seen[:, : self.prefix], seen[:, self.prefix :]
        where = visible[:, :, None].expand(-1, -1, patches.shape[2])
        tokens = self.hole.expand(len(images), self.num_patches, -1).scatter(1, where, patches) + self.places
        tokens = torch.cat([prefix, tokens], dim=1)
        for block in self.decoder:
            tokens = block(tokens)
        return self.draw_patch(tokens[:, self.prefix :])

    def loss(self, rows: Float[Tensor, "n 1"], draw: Draw, workers: dist.ProcessGroup | None) -> Tensor:
        """The mean over the images."""
        return rows.mean()

    def stepped(self) -> None:
        """Nothing follows a step."""

    def taught(self) -> PretrainedBackbone:
        """The encoder."""
        return self.backbone

    @torch.no_grad()
    def look(
        self, images: UInt8[Tensor, "b 3 h w"], draw: Draw
    ) -> tuple[UInt8[Tensor, "b 3 h w"], UInt8[Tensor, "b 3 h w"]]:
        """For a person's eyes: the images with their hidden patches grey, and with them drawn.

        A drawn patch is given the mean and deviation of the true one, which the network was never asked for.
        """
        visible, hidden = self.chosen(draw)
        true = patchify(images.float(), self.patch)
        drawn = self.reconstruct(as_input(images.float(), self.backbone), visible)
        in_colour = drawn * (true.var(dim=2, keepdim=True) + 1e-6).sqrt() + true.mean(dim=2, keepdim=True)
        seen = [torch.where(hidden[:, :, None], other, true) for other in (torch.full_like(true, 127.0), in_colour)]
        masked, completed = (
            unpatchify(each, self.patch, 3, grid=self.grid).round().clamp(0, 255).to(torch.uint8) for each in seen
        )
        return masked, completed

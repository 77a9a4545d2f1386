"""Image tower and text tower that embed into one space, with the scale (and bias) of their training.

Shape letters: N images or texts, D features.
"""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from headfirst.errors import BackboneError, InputError
from headfirst.nn.allocator import keep_freed_memory
from headfirst.nn.backbone import PretrainedBackbone
from headfirst.nn.classifier import random_head
from headfirst.nn.families import FAMILIES
from headfirst.nn.loading import image_alone, load_backbone, model_type, read_backbone
from headfirst.nn.sources import PAIR, VOCABULARIES, image_tower, locate
from headfirst.nn.storage import projection_of, staged
from headfirst.nn.text import JointText, TextTower
from headfirst.nn.text_loading import joint_tower, read_sentence_tower

Kind = Literal["softmax", "sigmoid"]
_FORMAT = 1


class DualEncoder(nn.Module):
    """Two towers and what turns their cosines into logits.

    `softmax` models (CLIP, ALIGN-like) were trained to pick the partner: logits are `logit_scale · cosine`. `sigmoid`
    models (SigLIP) were trained to judge each pair: logits are `logit_scale · cosine + logit_bias`.

    Attributes:
        name: what it was loaded by.
        image: images to (N, D) features, the projection included, not normalised.
        text: texts to (N, D) embeddings, the projection included, not normalised.
        log_logit_scale: the logarithm that training moves; `logit_scale` is the multiplier.
        logit_bias: of sigmoid models, else None.
    """

    def __init__(
        self,
        image: PretrainedBackbone,
        text: TextTower,
        *,
        name: str,
        log_logit_scale: nn.Parameter,
        logit_bias: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        if image.feature_dim != text.feature_dim:
            raise InputError(
                f"both towers must embed into one space, but images have {image.feature_dim} dimensions and texts "
                f"{text.feature_dim}; headfirst.nn.pair gives both a projection"
            )
        self.name = name
        self.image = image
        self.text = text
        self.log_logit_scale = log_logit_scale
        self.logit_bias = logit_bias
        self.eval()

    @property
    def kind(self) -> Kind:
        """Which of the two, read from the checkpoint: only sigmoid models have a bias."""
        return "softmax" if self.logit_bias is None else "sigmoid"

    @property
    def embed_dim(self) -> int:
        """D."""
        return self.image.feature_dim

    @property
    def logit_scale(self) -> Tensor:
        """The multiplier of cosines, a scalar with a gradient."""
        return self.log_logit_scale.exp().reshape(())

    def image_alone(self) -> PretrainedBackbone:
        """An independent copy of the image tower, without the text tower around it."""
        return image_alone(self.image) if isinstance(self.text.tower, JointText) else copy.deepcopy(self.image)

    def save(self, directory: str | Path) -> None:
        """Writes a checkpoint that `load_dual_encoder` reads back bit for bit; each file appears whole or not at all.

        Of a joint checkpoint, the layout is transformers' own. Paired towers lie in `image/` and `text/`, with their
        projections, beside `dual_encoder.json`.
        """
        directory = Path(directory)
        with staged(directory) as staging:
            if isinstance(self.text.tower, JointText):
                self.image.write(staging)
                self.text.write(staging)
                return
            for part, tower in (("image", self.image), ("text", self.text)):
                (staging / part).mkdir()
                tower.write(staging / part)
            bias = None if self.logit_bias is None else self.logit_bias.item()
            about = {"format": _FORMAT, "log_logit_scale": self.log_logit_scale.item(), "logit_bias": bias}
            (staging / PAIR).write_text(json.dumps(about) + "\n", encoding="utf-8")


def load_dual_encoder(id_or_dir: str | Path, *, revision: str | None = None) -> DualEncoder:
    """A pretrained dual encoder, float32, on the CPU, in eval mode.

    Args:
        id_or_dir: a hub id ("openai/clip-vit-base-patch32"), a local directory, "builtin/glyph-clip", or what
            `DualEncoder.save` wrote. CLIP, SigLIP (and fixed-resolution SigLIP 2), AltCLIP, Chinese-CLIP, MetaCLIP 2.
        revision: branch, tag or commit of a hub id.

    Raises:
        BackboneError: it cannot be found, reached or read, or has no text tower.
    """
    keep_freed_memory()
    name = str(id_or_dir)
    source = locate(id_or_dir, revision, tokenizer=True)
    if (source.directory / PAIR).is_file():
        return _read_pair(source.directory, name)
    kind = model_type(source.directory, name)
    joint = FAMILIES[kind].joint
    if joint is None:
        raise BackboneError(
            f"{name} is a {kind} backbone, which has no text tower; name an image-text checkpoint such as "
            "openai/clip-vit-base-patch32 or google/siglip-base-patch16-224, or pair it with a sentence encoder "
            "(headfirst.nn.pair)"
        )
    image = read_backbone(joint, source.directory, name, source.revision)
    model: Any = image.model
    return DualEncoder(
        image,
        joint_tower(model, source.directory, name, fixed_length=joint == "SiglipModel"),
        name=name,
        log_logit_scale=model.logit_scale,
        logit_bias=getattr(model, "logit_bias", None),
    )


def has_text_tower(id_or_dir: str | Path, *, revision: str | None = None) -> bool:
    """Whether `load_dual_encoder` finds two towers there; reads the config and the names of files alone.

    Raises:
        BackboneError: it cannot be found or reached, or its family is not supported.
    """
    source = locate(id_or_dir, revision, tokenizer=True)
    if (source.directory / PAIR).is_file():
        return True
    joint = FAMILIES[model_type(source.directory, str(id_or_dir))].joint
    return joint is not None and any((source.directory / file).is_file() for file in VOCABULARIES)


def pair(
    image: PretrainedBackbone, text: TextTower, *, dim: int = 256, kind: Kind = "softmax", seed: int = 0
) -> DualEncoder:
    """Two independent towers as one dual encoder to be trained: copies of both, each under a new linear projection.

    The scale begins at 1/0.07 (Radford et al., ICML 2021, section 2.5); of sigmoid models at 10 with the bias at -10
    (Zhai et al., ICCV 2023, section 3.2), both in place of whatever the towers may have had.

    Args:
        dim: of the shared space.
        seed: of the two projections (uniform in ±1/√D).
    """
    if isinstance(text.tower, JointText):
        raise InputError(f"{text.name} is one side of a joint checkpoint already; load it with load_dual_encoder")
    if dim < 1:
        raise InputError(f"dim must be at least 1, got {dim}")
    image, text = copy.deepcopy(image), copy.deepcopy(text)
    image = PretrainedBackbone(
        image.model,
        name=image.name,
        revision=image.revision,
        processor=image.processor,
        preprocessing=image.preprocessing,
        projection=projection_of(random_head(image.feature_dim, dim, seed=seed).weight),
    )
    width = text.tower(text.tokenise(["a"]).inputs).shape[1]
    text.projection = projection_of(random_head(width, dim, seed=seed + 1).weight)
    text.feature_dim = dim
    scale, bias = (1 / 0.07, None) if kind == "softmax" else (10.0, nn.Parameter(torch.tensor(-10.0)))
    return DualEncoder(
        image,
        text,
        name=f"{image.name} + {text.name}",
        log_logit_scale=nn.Parameter(torch.tensor(math.log(scale))),
        logit_bias=bias,
    )


def _read_pair(directory: Path, name: str) -> DualEncoder:
    try:
        about = json.loads((directory / PAIR).read_text(encoding="utf-8"))
        scale, bias = float(about["log_logit_scale"]), about["logit_bias"]
    except (ValueError, KeyError, TypeError) as error:
        raise BackboneError(f"{name}: {PAIR} is not understood ({error}); copy the folder again") from error
    if about.get("format") != _FORMAT:
        raise BackboneError(f"{name}: {PAIR} is of format {about.get('format')!r}; this version reads {_FORMAT}")
    image = load_backbone(image_tower(directory))
    image.name = name
    return DualEncoder(
        image,
        read_sentence_tower(directory / "text", name),
        name=name,
        log_logit_scale=nn.Parameter(torch.tensor(scale)),
        logit_bias=None if bias is None else nn.Parameter(torch.tensor(float(bias))),
    )

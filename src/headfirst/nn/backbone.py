"""A pretrained backbone: normalised images in, features out, through stages that can be frozen and saved."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headfirst.errors import BackboneError, InputError
from headfirst.nn.families import FAMILIES, channels_last, composed
from headfirst.nn.quiet import quiet_transformers
from headfirst.nn.storage import staged, weights_sha256, write_projection
from headfirst.types import Preprocessing


class PretrainedBackbone(nn.Module):
    """Images to features; the stages composed in order are the whole map.

    Made by `load_backbone`; a deep copy is independent of the original.

    Attributes:
        name: the hub id, directory or `builtin/…` it was loaded by.
        revision: the hub commit; None for local files.
        model_type: transformers' name of the family.
        config: the transformers config.
        preprocessing: how an image becomes its input.
        feature_dim: D.
        stages: stem or embeddings | each block or stage | final norm and pooling (and projection).
        processor: the entries of preprocessor_config.json.
        projection: a last linear stage that the checkpoint itself does not have (see `headfirst.nn.pair`), or None.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        processor: dict[str, Any],
        preprocessing: Preprocessing,
        revision: str | None = None,
        projection: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.revision = revision
        self.config: Any = model.config
        self.model_type: str = self.config.model_type
        self.preprocessing = preprocessing
        family = FAMILIES[self.model_type]
        if family.convolutional:
            channels_last(model)
        self.stages = nn.ModuleList(family.stages(model))
        if projection is not None:
            self.stages.append(projection)
        # Kept for saving, past nn.Module's registration: its parameters are the stages' own, counted once.
        self.__dict__["_model"] = model
        self.processor = processor
        self._convolutional = family.convolutional
        self._projected = projection is not None
        self.eval()
        self.feature_dim = self._probe_feature_dim()

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Features of normalised images (see `headfirst.data.normalise`), not normalised.

        float32; float64 of a backbone in float64.
        """
        if self._convolutional:
            images = images.contiguous(memory_format=torch.channels_last)
        features = composed(self.stages, images)
        return features if features.dtype == torch.float64 else features.float()

    @property
    def model(self) -> Any:
        """The transformers model whose modules the stages share."""
        return self.__dict__["_model"]

    @property
    def projection(self) -> nn.Linear | None:
        """The appended projection, if there is one."""
        last = self.stages[-1]
        return last if self._projected and isinstance(last, nn.Linear) else None

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of every weight and persistent buffer, by name, and of the preprocessing."""
        return weights_sha256(self.stages, json.dumps(asdict(self.preprocessing), sort_keys=True))

    def save(self, directory: str | Path) -> None:
        """Writes config.json, model.safetensors and preprocessor_config.json, as transformers lays them out.

        `load_backbone(directory)` gives the same backbone bit for bit, and so does transformers' AutoModel.
        An appended projection is `projection.safetensors` beside them. Each file appears whole or not at all.
        """
        with staged(Path(directory)) as staging:
            self.write(staging)

    def write(self, directory: Path) -> None:
        """Writes the files of `save` straight into a folder that is there."""
        with quiet_transformers():
            self.model.save_pretrained(directory, max_shard_size="1TB")
        text = json.dumps(self.processor, indent=1, sort_keys=True) + "\n"
        (directory / "preprocessor_config.json").write_text(text, encoding="utf-8")
        write_projection(self.projection, directory)

    def _probe_feature_dim(self) -> int:
        height, width = self.preprocessing.size
        try:
            with torch.inference_mode():
                return self(torch.zeros(1, 3, height, width)).shape[1]
        except (ValueError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            raise BackboneError(
                f"{self.name}: config.json and preprocessor_config.json do not fit together: an image of "
                f"{height}x{width} is refused ({error}); correct the size"
            ) from error

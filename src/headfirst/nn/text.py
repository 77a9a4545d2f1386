"""A text tower: texts in, embeddings out, and nothing is cut without being said.

Two kinds: the text side of a joint image-text checkpoint, and a sentence encoder of its own.

Shape letters: N texts, T tokens, D features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headfirst.errors import InputError
from headfirst.nn.quiet import quiet_transformers
from headfirst.nn.storage import staged, weights_sha256, write_projection
from headfirst.types import Progress, silent

Pooling = Literal["mean", "cls"]
POOLING_KEYS: dict[str, Pooling] = {"mean_tokens": "mean", "cls_token": "cls"}
"""How `1_Pooling/config.json` names them, after `pooling_mode_`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """Tokenised texts.

    Attributes:
        inputs: what the tower takes: `input_ids` (N, T) int64, and `attention_mask` where it reads one.
        lengths: tokens of each text, special ones included, before any was cut.
        cut: by the number of a text that was too long, the words that were cut off.
    """

    inputs: Mapping[str, Tensor]
    lengths: tuple[int, ...]
    cut: Mapping[int, str]


class JointText(nn.Module):
    """The text side of a joint checkpoint, its projection included.

    It registers the text modules alone; the model around them is kept past registration.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        for name, child in model.named_children():
            if name.startswith("text_"):
                self.add_module(name, child)
        self.__dict__["_model"] = model

    def forward(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "n d"]:
        return self.__dict__["_model"].get_text_features(**inputs).pooler_output


class SentenceText(nn.Module):
    """A sentence encoder: the mean of the last hidden states over the text's tokens, or the first of them."""

    def __init__(self, model: Any, pooling: Pooling) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling

    def forward(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "n d"]:
        hidden = self.model(**inputs).last_hidden_state
        if self.pooling == "cls":
            return hidden[:, 0]
        mask = inputs["attention_mask"][:, :, None].to(hidden.dtype)
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1)


class TextTower(nn.Module):
    """Texts to embeddings; made by `load_text_tower` or as part of `load_dual_encoder`.

    Attributes:
        name: what it was loaded by.
        context_length: most tokens a text may have, special ones included.
        projection: a last linear map that the checkpoint itself does not have (see `headfirst.nn.pair`), or None.
        feature_dim: D.
    """

    def __init__(
        self,
        tower: JointText | SentenceText,
        tokenizer: Any,
        *,
        name: str,
        context_length: int,
        fixed_length: bool = False,
        projection: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.tower = tower
        self.projection = projection
        self.context_length = context_length
        self._tokenizer = tokenizer
        self._fixed_length = fixed_length
        self.eval()
        self.feature_dim = self.embed(["a"]).shape[1]

    def tokenise(self, texts: Sequence[str]) -> Tokens:
        """Token ids, padded to the longest text (SigLIP: to the whole context, as it was trained).

        Raises:
            InputError: no text, or an empty one.
        """
        texts = list(texts)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise InputError("a text must have at least one visible character, and there must be at least one text")
        whole = self._tokenizer(texts, padding=False, truncation=False, verbose=False)["input_ids"]
        inputs = self._tokenizer(
            texts,
            padding="max_length" if self._fixed_length else True,
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
        )
        # SigLIP was trained without a mask: its padding counts.
        names = ("input_ids",) if self._fixed_length else ("input_ids", "attention_mask")
        return Tokens(
            inputs={name: inputs[name] for name in names},
            lengths=tuple(map(len, whole)),
            cut={i: self._beyond(texts[i]) for i, ids in enumerate(whole) if len(ids) > self.context_length},
        )

    def _beyond(self, text: str) -> str:
        """The end of a text that the context has no room for."""
        special = self._tokenizer.num_special_tokens_to_add(pair=False)
        ids = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return self._tokenizer.decode(ids[self.context_length - special :], skip_special_tokens=True).strip()

    def forward(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "n d"]:
        """Embeddings of tokenised texts (`Tokens.inputs`), not normalised, with gradients."""
        embeddings = self.tower(inputs)
        return embeddings if self.projection is None else self.projection(embeddings)

    def embed(self, texts: Sequence[str], *, batch_size: int = 64, progress: Progress = silent) -> Float[Tensor, "n d"]:
        """(N, D) float32 embeddings, not normalised, in eval mode and without gradients; each distinct text once.

        What a text embeds to does not depend on its batch, but for rounding.

        Raises:
            InputError: an empty text, or one that is longer than the context.
        """
        distinct = list(dict.fromkeys(texts))
        tokens = self.tokenise(distinct)
        for i, lost in tokens.cut.items():
            raise InputError(
                f"{_shown(distinct[i])} has {tokens.lengths[i]} tokens, but {self.name} reads {self.context_length}: "
                f"{_shown(lost)} would be cut off; shorten it"
            )
        was_training, device = self.training, next(self.parameters()).device
        self.eval()
        rows = []
        try:
            with torch.inference_mode():
                for start in range(0, len(distinct), batch_size):
                    batch = self.tokenise(distinct[start : start + batch_size]).inputs
                    rows.append(self({k: v.to(device) for k, v in batch.items()}).float().cpu())
                    progress("embedding texts", min(start + batch_size, len(distinct)), len(distinct))
        finally:
            self.train(was_training)
        place = {text: i for i, text in enumerate(distinct)}
        return torch.cat(rows)[[place[text] for text in texts]].clone()

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of every weight, by name, and of the tokenizer."""
        entries = json.loads(self._tokenizer.backend_tokenizer.to_str())
        # How the last texts were cut and padded stands in there too, and says nothing of the tokenizer.
        lasting = {key: value for key, value in entries.items() if key not in ("truncation", "padding")}
        return weights_sha256(self, json.dumps(lasting, sort_keys=True))

    def write(self, directory: Path) -> None:
        """Writes the tokenizer into a folder and, of a sentence encoder, the model, its pooling and its projection."""
        with quiet_transformers():
            self._tokenizer.save_pretrained(directory)
            if isinstance(self.tower, JointText):
                return
            self.tower.model.save_pretrained(directory, max_shard_size="1TB")
        modes = {f"pooling_mode_{key}": self.tower.pooling == mode for key, mode in POOLING_KEYS.items()}
        (directory / "1_Pooling").mkdir()
        (directory / "1_Pooling" / "config.json").write_text(json.dumps(modes, indent=1) + "\n", encoding="utf-8")
        length = {"max_seq_length": self.context_length}
        (directory / "sentence_bert_config.json").write_text(json.dumps(length) + "\n", encoding="utf-8")
        write_projection(self.projection, directory)

    def save(self, directory: str | Path) -> None:
        """Writes a sentence encoder; `load_text_tower` reads it back bit for bit."""
        if isinstance(self.tower, JointText):
            raise InputError(f"{self.name} is one side of a joint checkpoint; save the dual encoder")
        with staged(Path(directory)) as staging:
            self.write(staging)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:40] + "…" + text[-18:])

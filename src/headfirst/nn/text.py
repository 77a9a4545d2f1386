"""A text tower: texts in, embeddings out, and nothing is cut without being said.

Two kinds: the text side of a joint image-text checkpoint, and a sentence encoder of its own.

Shape letters: N texts, T tokens, D features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headfirst.errors import BackboneError, InputError
from headfirst.nn.loading import read_config, read_model
from headfirst.nn.quiet import quiet_transformers
from headfirst.nn.sources import PAIR, VOCABULARIES, locate
from headfirst.nn.storage import read_projection, staged, write_projection
from headfirst.types import Progress, silent

Pooling = Literal["mean", "cls"]
SENTENCE_ENCODERS = ("albert", "bert", "distilbert", "electra", "modernbert", "mpnet", "roberta", "xlm-roberta")


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
        digest = hashlib.sha256(self._tokenizer.backend_tokenizer.to_str().encode())
        for key, value in sorted(self.state_dict().items()):
            array = value.detach().cpu().contiguous()
            digest.update(f"{key} {array.dtype} {tuple(array.shape)}".encode())
            digest.update(array.reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def write(self, directory: Path) -> None:
        """Writes the tokenizer into a folder and, of a sentence encoder, the model, its pooling and its projection."""
        with quiet_transformers():
            self._tokenizer.save_pretrained(directory)
            if isinstance(self.tower, JointText):
                return
            self.tower.model.save_pretrained(directory, max_shard_size="1TB")
        modes = {f"pooling_mode_{key}": self.tower.pooling == mode for key, mode in _MODES.items()}
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


_MODES: dict[str, Pooling] = {"mean_tokens": "mean", "cls_token": "cls"}


def load_text_tower(id_or_dir: str | Path, *, revision: str | None = None, pooling: Pooling | None = None) -> TextTower:
    """A sentence encoder (BERT and relatives), float32, on the CPU, in eval mode.

    Args:
        id_or_dir: a hub id or a local directory, or paired towers' folder, of which the text tower is taken.
        pooling: "mean" or "cls"; None reads it from `1_Pooling/config.json`, and never assumes it.

    Raises:
        BackboneError: it cannot be found or read, is of another family, or does not say how it pools.
    """
    name = str(id_or_dir)
    directory = locate(id_or_dir, revision, tokenizer=True).directory
    directory = directory / "text" if (directory / PAIR).is_file() else directory
    return read_sentence_tower(directory, name, pooling)


def read_sentence_tower(directory: Path, name: str, pooling: Pooling | None = None) -> TextTower:
    """The sentence encoder in a local folder; see `load_text_tower`."""
    config = read_config(directory, name)
    kind = config.get("model_type")
    if kind not in SENTENCE_ENCODERS:
        raise BackboneError(
            f"{name}: model_type {kind!r} is no sentence encoder that is supported ({', '.join(SENTENCE_ENCODERS)}); "
            "a joint image-text checkpoint is loaded by load_dual_encoder"
        )
    tokenizer = read_tokenizer(directory, name)
    model = read_model("AutoModel", directory, name, optional=("pooler.",))
    return TextTower(
        SentenceText(model, pooling or _stated_pooling(directory, name)),
        tokenizer,
        name=name,
        context_length=_context_length(directory, tokenizer, model.config),
        projection=read_projection(directory, name),
    )


def joint_tower(model: Any, directory: Path, name: str, *, fixed_length: bool) -> TextTower:
    """The text side of a loaded joint checkpoint."""
    tokenizer = read_tokenizer(directory, name)
    length = _context_length(directory, tokenizer, model.config.text_config)
    return TextTower(JointText(model), tokenizer, name=name, context_length=length, fixed_length=fixed_length)


def read_tokenizer(directory: Path, name: str) -> Any:
    """The fast tokenizer of a folder; no code of it is run."""
    from transformers import AutoTokenizer

    # Without a vocabulary transformers makes an empty tokenizer and says nothing.
    if not any((directory / file).is_file() for file in VOCABULARIES):
        raise BackboneError(
            f"{name} has no vocabulary, so it reads no text; copy its tokenizer.json beside config.json"
        )
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # OSError, ValueError, ImportError and the tokenizers' own
        reason = " ".join(str(error).split())[:200]
        raise BackboneError(
            f"{name}: its tokenizer cannot be read ({reason}); copy its tokenizer.json beside config.json again"
        ) from error
    if not getattr(tokenizer, "is_fast", False) or tokenizer.pad_token is None:
        raise BackboneError(f"{name}: its tokenizer must be a fast one with a padding token; convert it first")
    return tokenizer


def _stated_pooling(directory: Path, name: str) -> Pooling:
    path = directory / "1_Pooling" / "config.json"
    stated = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    modes: list[Pooling] = [mode for key, mode in _MODES.items() if stated.get(f"pooling_mode_{key}")]
    others = [key for key, value in stated.items() if key.startswith("pooling_mode_") and value is True]
    if len(modes) != 1 or len(others) != 1:
        raise BackboneError(
            f"{name} does not say how it pools tokens into one embedding (1_Pooling/config.json, one of mean and cls), "
            'and that is never assumed; pass pooling="mean" or pooling="cls"'
        )
    return modes[0]


def _context_length(directory: Path, tokenizer: Any, config: Any) -> int:
    """The least of what the positions hold, what the tokenizer says, and what the sentence encoder was trained with."""
    positions = config.max_position_embeddings
    if "roberta" in config.model_type or config.model_type.startswith(("altclip", "mpnet")):
        positions -= config.pad_token_id + 1  # their positions begin behind the padding's
    limits = [positions, tokenizer.model_max_length]
    path = directory / "sentence_bert_config.json"
    if path.is_file():
        limits.append(json.loads(path.read_text(encoding="utf-8")).get("max_seq_length") or positions)
    return int(min(limits))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:40] + "…" + text[-18:])

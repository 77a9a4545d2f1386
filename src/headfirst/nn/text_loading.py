"""Where text towers come from: a sentence encoder's folder, or the text side of a joint checkpoint.

What is not stated there (how it pools, which words it knows) is refused by name, never assumed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from headfirst.errors import BackboneError
from headfirst.nn.loading import read_config, read_model
from headfirst.nn.quiet import quiet_transformers
from headfirst.nn.sources import PAIR, VOCABULARIES, locate
from headfirst.nn.storage import read_projection
from headfirst.nn.text import POOLING_KEYS, JointText, Pooling, SentenceText, TextTower

SENTENCE_ENCODERS = ("albert", "bert", "distilbert", "electra", "modernbert", "mpnet", "roberta", "xlm-roberta")


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
    modes: list[Pooling] = [mode for key, mode in POOLING_KEYS.items() if stated.get(f"pooling_mode_{key}")]
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

"""Pairs to train on, and a sentence encoder to train."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from colour_pairs import make_pairs

from checkpoints import write_tokenizer
from headfirst.data import Pairs


@pytest.fixture(scope="session")
def pairs() -> Pairs:
    return make_pairs("train", 24, seed=0)


@pytest.fixture(scope="session")
def val() -> Pairs:
    return make_pairs("val", 12, seed=1)


@pytest.fixture(scope="session")
def sentence_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with dropout that pools by the mean."""
    directory = tmp_path_factory.mktemp("bert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=40, pad_token_id=0,
        )  # fmt: skip
        transformers.BertModel(config).save_pretrained(directory)
    write_tokenizer(directory, context_length=12)
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    return directory

"""Random small checkpoints of every family, written as transformers writes them. No network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from transformers.utils import logging

torch.set_num_threads(1)

_VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_PATCHES = {"image_size": 32, "patch_size": 8}
_CLIP = {**_VIT, **_PATCHES, "projection_dim": 12}
_TEXT = {**_VIT, "vocab_size": 20, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_MAPS = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 2, 1]}
_SWIN = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [1, 2],
    "num_heads": [2, 2],
    "window_size": 4,
}

# model_type: (config class, its arguments, the class that writes the checkpoint)
TINY = {
    "altclip": (
        "AltCLIPConfig",
        {"vision_config": {**_VIT, **_PATCHES}, "text_config": {**_TEXT, "project_dim": 16}, "projection_dim": 12},
        "AltCLIPModel",
    ),
    "bit": (
        "BitConfig",
        {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 2], "num_groups": 4, "output_stride": 16},
        "BitForImageClassification",
    ),
    "chinese_clip": (
        "ChineseCLIPConfig",
        {"vision_config": {**_VIT, **_PATCHES}, "text_config": _TEXT, "projection_dim": 12},
        "ChineseCLIPModel",
    ),
    "clip": (
        "CLIPConfig",
        {"vision_config": _CLIP, "text_config": {**_TEXT, "projection_dim": 12}, "projection_dim": 12},
        "CLIPModel",
    ),
    "clip_vision_model": ("CLIPVisionConfig", _CLIP, "CLIPVisionModelWithProjection"),
    "convnext": ("ConvNextConfig", {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 2, 1]}, "ConvNextModel"),
    "convnextv2": (
        "ConvNextV2Config",
        {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 2, 1]},
        "ConvNextV2Model",
    ),
    "deit": ("DeiTConfig", {**_VIT, **_PATCHES}, "DeiTModel"),
    "dinov2": ("Dinov2Config", {**_VIT, **_PATCHES, "image_size": 40}, "Dinov2Model"),
    "dinov2_with_registers": ("Dinov2WithRegistersConfig", {**_VIT, **_PATCHES}, "Dinov2WithRegistersModel"),
    "dinov3_vit": ("DINOv3ViTConfig", {**_VIT, **_PATCHES, "num_register_tokens": 2}, "DINOv3ViTModel"),
    "metaclip_2": (
        "MetaClip2Config",
        {"vision_config": _CLIP, "text_config": {**_TEXT, "projection_dim": 12}, "projection_dim": 12},
        "MetaClip2Model",
    ),
    "metaclip_2_vision_model": ("MetaClip2VisionConfig", _CLIP, "MetaClip2VisionModelWithProjection"),
    "mobilenet_v1": ("MobileNetV1Config", {"depth_multiplier": 0.25}, "MobileNetV1Model"),
    "mobilenet_v2": ("MobileNetV2Config", {"depth_multiplier": 0.25}, "MobileNetV2ForImageClassification"),
    "regnet": ("RegNetConfig", {**_MAPS, "groups_width": 4, "layer_type": "y"}, "RegNetModel"),
    "resnet": ("ResNetConfig", {**_MAPS, "layer_type": "basic"}, "ResNetForImageClassification"),
    "siglip": ("SiglipConfig", {"vision_config": {**_VIT, **_PATCHES}, "text_config": _TEXT}, "SiglipModel"),
    "siglip_vision_model": ("SiglipVisionConfig", {**_VIT, **_PATCHES}, "SiglipVisionModel"),
    "swin": ("SwinConfig", _SWIN, "SwinModel"),
    "swinv2": ("Swinv2Config", _SWIN, "Swinv2Model"),
    "ijepa": ("IJepaConfig", {**_VIT, **_PATCHES}, "IJepaForImageClassification"),
    "vit": ("ViTConfig", {**_VIT, **_PATCHES}, "ViTForImageClassification"),
    "vit_msn": ("ViTMSNConfig", {**_VIT, **_PATCHES}, "ViTMSNModel"),
}

PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 32, "width": 32},
    "resample": 2,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}


def write_checkpoint(model_type: str, directory: Path) -> Path:
    """A random checkpoint in which every parameter and every statistic differs from its initial value."""
    config_class, arguments, model_class = TINY[model_type]
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**arguments))
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                # Scales and variances stay near one, so that every family's features vary with the image.
                positive = value.ndim == 1 and name.endswith(("weight", "running_var", "lambda1", "scale_parameter"))
                value.copy_(torch.rand_like(value) + 0.5 if positive else torch.randn_like(value) * 0.3)
    logging.disable_progress_bar()
    model.save_pretrained(directory)
    logging.enable_progress_bar()
    (directory / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    if "text_config" in arguments:
        write_tokenizer(directory)
    return directory


WORDS = (
    "<pad>", "<s>", "</s>", "<unk>", "a", "photo", "of", "the", "cat", "dog", "red", "green", "blue", "thing",
    "drawing", ".",
)  # fmt: skip


def write_tokenizer(directory: Path, *, context_length: int = 12) -> None:
    """A word-level tokenizer of `WORDS`, between <s> and </s>."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        model_max_length=context_length,
    ).save_pretrained(directory)  # fmt: skip


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """model_type → directory of its tiny checkpoint, written on first use."""
    written: dict[str, Path] = {}

    def get(model_type: str) -> Path:
        if model_type not in written:
            written[model_type] = write_checkpoint(model_type, tmp_path_factory.mktemp(model_type))
        return written[model_type]

    return get


@pytest.fixture(scope="session")
def sentence_encoder(tmp_path_factory):
    """A random BERT that pools by the mean, as sentence encoders are saved."""
    directory = tmp_path_factory.mktemp("bert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=40, pad_token_id=0,
        )  # fmt: skip
        transformers.BertModel(config).save_pretrained(directory)
    write_tokenizer(directory, context_length=30)
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False})
    )
    return directory

"""Pixels equal the checkpoint's own image processor's; what is not understood is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from headfirst.data import normalise, preprocess
from headfirst.errors import BackboneError
from headfirst.nn import parse_processor
from headfirst.nn.preprocessing import read_processor

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
SQUARE = {"height": 224, "width": 224}

# As published checkpoints of each family state them; the older ones with bare integers and other class names.
PROCESSORS = {
    "clip": {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "size": 224,
        "do_center_crop": True,
        "crop_size": 224,
        "do_resize": True,
        "do_normalize": True,
        "resample": 3,
        **CLIP,
    },
    "dinov2": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 256},
        "do_center_crop": True,
        "crop_size": SQUARE,
        "do_convert_rgb": True,
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        **IMAGENET,
    },
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": SQUARE, "resample": 3, **HALF},
    "vit": {"feature_extractor_type": "ViTFeatureExtractor", "size": 224, "resample": 2, **HALF},
    "vit-lanczos": {"image_processor_type": "ViTImageProcessorFast", "size": SQUARE, "resample": 1, **HALF},
    "vit-unnormalised": {
        "image_processor_type": "ViTImageProcessor",
        "size": SQUARE,
        "resample": 2,
        "do_normalize": False,
        **HALF,
    },
    "deit": {
        "feature_extractor_type": "DeiTFeatureExtractor",
        "size": 256,
        "do_center_crop": True,
        "crop_size": 224,
        "resample": 3,
        **IMAGENET,
    },
    "convnext-224": {
        "feature_extractor_type": "ConvNextFeatureExtractor",
        "size": 224,
        "crop_pct": 0.875,
        "resample": 3,
        **IMAGENET,
    },
    "convnext-384": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 384},
        "crop_pct": None,
        "resample": 3,
        **IMAGENET,
    },
    "resnet-0.95": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 224},
        "crop_pct": 0.95,
        "resample": 3,
        **IMAGENET,
    },
    "mobilenet_v1": {
        "image_processor_type": "MobileNetV1ImageProcessor",
        "size": {"shortest_edge": 256},
        "crop_size": SQUARE,
        "resample": 2,
        **HALF,
    },
    "mobilenet_v2": {
        "image_processor_type": "MobileNetV2ImageProcessor",
        "size": {"shortest_edge": 256},
        "crop_size": SQUARE,
        "do_reduce_labels": False,
        "resample": 2,
        **IMAGENET,
    },
    "crop-larger-than-the-image": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 150},
        "crop_size": {"height": 161, "width": 224},
        "resample": 3,
        **CLIP,
    },
}

# (height, width): landscape, portrait, square, odd, tiny, and the size itself.
SIZES = [(300, 401), (401, 300), (256, 256), (227, 227), (233, 512), (9, 14), (224, 224)]


def assert_within_one_grey_level(image: np.ndarray, entries: dict, processor) -> None:
    preprocessing = parse_processor(entries, "test")
    expected = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    pixels = torch.from_numpy(preprocess(image, preprocessing).copy()).permute(2, 0, 1)[None]
    ours = normalise(pixels, preprocessing)
    assert ours.shape == expected.shape
    grey_levels = (ours - expected).abs() * torch.tensor(preprocessing.std).view(3, 1, 1) * 255
    assert grey_levels.max() <= 1


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_the_image_processors_own(tmp_path, name):
    entries = PROCESSORS[name]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(entries))
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    generator = np.random.default_rng(0)
    for size in SIZES:
        noise = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        assert_within_one_grey_level(noise, read_processor(tmp_path, name), processor)
        # What transformers 5 writes itself, every key included.
        assert_within_one_grey_level(noise, json.loads(processor.to_json_string()), processor)


@pytest.mark.real
@pytest.mark.parametrize("split", ["train", "shift-art", "shift-sketch"])
def test_pixels_of_photographs_are_the_image_processors_own(split):
    shared = Path(__file__).parents[3] / "shared"
    weights, photographs = shared / "weights" / "mobilenet-v2-imagenet", shared / "data" / "pacs" / split
    if not weights.is_dir() or not photographs.is_dir():
        pytest.skip("the real photographs and weights are not here")
    from headfirst.data.decode import read_image

    paths = sorted(photographs.rglob("*.*"))[::50]
    assert len(paths) >= 5
    processor = AutoImageProcessor.from_pretrained(weights)
    for path in paths:
        image = read_image(path)
        # The decoder is part of the path: the processor sees Pillow's pixels of the same file.
        assert np.abs(image.astype(int) - np.asarray(Image.open(path).convert("RGB"))).max() <= 1
        assert_within_one_grey_level(image, read_processor(weights, "mobilenet"), processor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_processor_type": "LlavaImageProcessor"}, "'LlavaImageProcessor' is not supported"),
        ({"image_processor_type": "ViTImageProcesor"}, "did you mean 'ViTImageProcessor'"),
        ({"image_processor_type": None}, "does not say its image_processor_type"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order=True, which is not supported"),
        ({"rescale_offset": True}, "rescale_offset=True"),
        ({"do_pad": True}, "do_pad=True"),
        ({"size_divisor": 32}, "size_divisor=32"),
        ({"image_mean": None}, "has no image_mean, and it is never assumed"),
        ({"image_std": None}, "has no image_std"),
        ({"image_mean": [0.5]}, r"must be three numbers, one a channel, received \[0.5\]"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std must be positive"),
        ({"resample": None}, "has no resample"),
        ({"resample": 9}, "must be one of Pillow's numbers"),
        ({"size": None}, "has no size"),
        ({"size": {"longest_edge": 224}}, "'longest_edge': 224} is not supported"),
        ({"size": {"shortest_edge": 224}}, "must end in one size"),
        ({"rescale_factor": 1 / 127.5}, "must be rescaled by 1/255"),
        ({"do_rescale": False}, "do_rescale=False"),
        ({"do_center_crop": True}, "has no crop_size"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": 224}, "has no crop_pct"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(change, message):
    entries = {"image_processor_type": "ViTImageProcessor", "size": SQUARE, "resample": 2, **HALF}
    with pytest.raises(BackboneError, match=message):
        parse_processor({**entries, **change}, "test")


def test_newer_checkpoints_keep_the_processor_in_processor_config(tmp_path):
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": PROCESSORS["clip"]}))
    assert read_processor(tmp_path, "test") == PROCESSORS["clip"]


def test_a_missing_processor_says_what_to_do(tmp_path):
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    with pytest.raises(BackboneError, match=r"preprocessor_config.json is missing.*save_pretrained"):
        read_processor(tmp_path, "test")

"""A checkpoint's preprocessor_config.json → `Preprocessing`.

What is not understood is refused by name, never assumed. The rules are those of the transformers image
processors (PIL backend); `tests/nn/test_preprocessing.py` compares the pixels for every one of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headfirst.errors import BackboneError, did_you_mean
from headfirst.types import Preprocessing

_Channels = tuple[float, float, float]

# Pillow's numbers, as the files hold them.
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


@dataclass(frozen=True, kw_only=True)
class _Processor:
    """What a processor class means where its file says nothing.

    square: whether a bare integer `size` is both sides (else the shortest edge).
    crops: whether it centre-crops unless told otherwise.
    crop_pct: ConvNeXt's rule: below 384 resize the shortest edge to size / crop_pct, then crop to size.
    """

    square: bool
    crops: bool
    crop_pct: bool = False


_PROCESSORS = {
    "BitImageProcessor": _Processor(square=False, crops=True),
    "ChineseCLIPImageProcessor": _Processor(square=False, crops=True),
    "CLIPImageProcessor": _Processor(square=False, crops=True),
    "ConvNextImageProcessor": _Processor(square=False, crops=False, crop_pct=True),
    "DeiTImageProcessor": _Processor(square=True, crops=True),
    "DINOv3ViTImageProcessor": _Processor(square=True, crops=False),
    "MobileNetV1ImageProcessor": _Processor(square=False, crops=True),
    "MobileNetV2ImageProcessor": _Processor(square=False, crops=True),
    "SiglipImageProcessor": _Processor(square=False, crops=False),
    "ViTImageProcessor": _Processor(square=True, crops=False),
}

_UNDERSTOOD = {
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "crop_pct",
    "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std",
}  # fmt: skip

# Entries that do not touch the pixels of an RGB image.
_HARMLESS = {
    "image_processor_type", "feature_extractor_type", "processor_class", "auto_map", "_valid_processor_keys",
    "do_convert_rgb", "data_format", "input_data_format", "return_tensors", "device", "disable_grouping",
    "default_to_square", "do_reduce_labels",
}  # fmt: skip


def read_processor(directory: Path, name: str) -> dict[str, Any]:
    """The image processor's entries, from preprocessor_config.json or the newer processor_config.json."""
    for file in ("processor_config.json", "preprocessor_config.json"):
        path = directory / file
        if not path.is_file():
            continue
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise BackboneError(f"{name}: {file} is not JSON ({error}); fetch the checkpoint again") from error
        if file == "processor_config.json":
            entries = entries.get("image_processor") if isinstance(entries, dict) else None
        if isinstance(entries, dict):
            return entries
    raise BackboneError(
        f"{name}: preprocessor_config.json is missing, and size, mean and deviation are never assumed; "
        "copy it from the original checkpoint, or write it with AutoImageProcessor(...).save_pretrained"
    )


def parse_processor(entries: Mapping[str, Any], name: str) -> Preprocessing:
    """`Preprocessing` of a processor's entries.

    Args:
        entries: what preprocessor_config.json holds.
        name: of the backbone, for messages.

    Raises:
        BackboneError: an unknown processor, an entry that is not understood, or a missing one.

    >>> parse_processor({"image_processor_type": "ViTImageProcessor", "size": 224, "resample": 2,
    ...                  "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}, "vit").resize
    (224, 224)
    """
    processor = _PROCESSORS[_processor_type(entries, name)]
    _refuse_unknown(entries, name)
    mean, std = _mean_and_std(entries, name)
    resize, crop = _geometry(entries, processor, name)
    number = _required(entries, "resample", name) if resize is not None else 2
    if number not in _RESAMPLE:
        raise BackboneError(
            f"{name}: resample must be one of Pillow's numbers {sorted(_RESAMPLE)}, received {number!r}"
        )
    return Preprocessing(resize=resize, resample=_RESAMPLE[number], crop=crop, mean=mean, std=std)  # type: ignore[arg-type]


def _processor_type(entries: Mapping[str, Any], name: str) -> str:
    stated = entries.get("image_processor_type") or entries.get("feature_extractor_type")
    if stated is None:
        raise BackboneError(
            f"{name}: preprocessor_config.json does not say its image_processor_type; "
            f"add one of {', '.join(_PROCESSORS)}"
        )
    kind = str(stated).removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    if kind not in _PROCESSORS:
        raise BackboneError(
            f"{name}: image processor {stated!r} is not supported{did_you_mean(kind, _PROCESSORS)} "
            f"(supported: {', '.join(_PROCESSORS)})"
        )
    return kind


def _refuse_unknown(entries: Mapping[str, Any], name: str) -> None:
    for key, value in entries.items():
        if key in _UNDERSTOOD or key in _HARMLESS or value is None or value is False:
            continue
        raise BackboneError(
            f"{name}: preprocessor_config.json asks for {key}={value!r}, which is not supported, and leaving "
            "it out would change the pixels"
        )


def _required(entries: Mapping[str, Any], key: str, name: str) -> Any:
    value = entries.get(key)
    if value is None:
        raise BackboneError(
            f"{name}: preprocessor_config.json has no {key}, and it is never assumed; "
            f"add the {key} that the checkpoint was trained with"
        )
    return value


def _flag(entries: Mapping[str, Any], key: str, default: bool) -> bool:
    value = entries.get(key)
    return default if value is None else bool(value)


def _mean_and_std(entries: Mapping[str, Any], name: str) -> tuple[_Channels, _Channels]:
    factor = entries.get("rescale_factor")
    rescales = _flag(entries, "do_rescale", True)
    if not rescales or (factor is not None and not math.isclose(factor, 1 / 255, rel_tol=1e-5)):
        raise BackboneError(
            f"{name}: pixels must be rescaled by 1/255, but preprocessor_config.json says "
            f"do_rescale={rescales}, rescale_factor={factor}; such a checkpoint is not supported"
        )
    if not _flag(entries, "do_normalize", True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    mean, std = _channels(entries, "image_mean", name), _channels(entries, "image_std", name)
    if min(std) <= 0:
        raise BackboneError(f"{name}: image_std must be positive, received {list(std)}")
    return mean, std


def _channels(entries: Mapping[str, Any], key: str, name: str) -> _Channels:
    value = _required(entries, key, name)
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(v, int | float) for v in value):
        raise BackboneError(f"{name}: {key} must be three numbers, one a channel, received {value!r}")
    red, green, blue = (float(v) for v in value)
    return red, green, blue


def _geometry(
    entries: Mapping[str, Any], processor: _Processor, name: str
) -> tuple[tuple[int, int] | int | None, tuple[int, int] | None]:
    """`(resize, crop)` as `Preprocessing` holds them."""
    resize: tuple[int, int] | int | None = None
    crop: tuple[int, int] | None = None
    if _flag(entries, "do_resize", True):
        resize = _size(_required(entries, "size", name), processor, name)
    if processor.crop_pct and resize is not None:
        if not isinstance(resize, int):
            raise BackboneError(f"{name}: size must be a shortest_edge for this processor, received {resize}")
        resize, crop = _crop_pct_rule(resize, entries, name)
    if _flag(entries, "do_center_crop", processor.crops):
        if crop is not None:
            raise BackboneError(f"{name}: do_center_crop after crop_pct crops twice, which is not supported")
        crop = _height_width(_required(entries, "crop_size", name), name)
    if crop is None and not isinstance(resize, tuple):
        raise BackboneError(
            f"{name}: images must end in one size, but preprocessor_config.json gives "
            f"size={entries.get('size')!r} without a centre crop; give it height and width, or a crop_size"
        )
    return resize, crop


def _crop_pct_rule(
    edge: int, entries: Mapping[str, Any], name: str
) -> tuple[tuple[int, int] | int, tuple[int, int] | None]:
    if edge >= 384:
        return (edge, edge), None
    return int(edge / _required(entries, "crop_pct", name)), (edge, edge)


def _size(size: Any, processor: _Processor, name: str) -> tuple[int, int] | int:
    if isinstance(size, int) and not processor.square:
        return size
    if isinstance(size, dict) and _keys(size) == {"shortest_edge"}:
        return int(size["shortest_edge"])
    return _height_width(size, name)


def _height_width(size: Any, name: str) -> tuple[int, int]:
    """`(height, width)`; a bare integer is both."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, list) and len(size) == 2:
        return int(size[0]), int(size[1])
    if isinstance(size, dict) and _keys(size) == {"height", "width"}:
        return int(size["height"]), int(size["width"])
    raise BackboneError(f"{name}: size {size!r} is not supported; expected a shortest_edge, or height and width")


def _keys(size: dict[str, Any]) -> set[str]:
    """The keys that are set; newer files list all of them, null where they do not apply."""
    return {key for key, value in size.items() if value is not None}

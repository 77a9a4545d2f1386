"""Backbones with random weights, to be pre-trained: two small ones for a CPU, or any checkpoint's architecture.

Both small ones normalise every sample alone (group norm, layer norm), so that a batch gives the numbers of its
samples whatever it is cut into: micro-batches, workers, views.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headfirst.errors import BackboneError, InputError, did_you_mean
from headfirst.nn.allocator import keep_freed_memory
from headfirst.nn.backbone import PretrainedBackbone
from headfirst.nn.families import FAMILIES
from headfirst.nn.loading import image_class, image_config, model_type
from headfirst.nn.positions import sine_cosine
from headfirst.nn.preprocessing import parse_processor, read_processor
from headfirst.nn.quiet import quiet_transformers
from headfirst.nn.sources import image_tower, locate

_Channels = tuple[float, float, float]

SMALL = ("small-resnet", "small-vit")
_HALF = (0.5, 0.5, 0.5)
_SIZE = 32
_PATCHES_A_SIDE = 8
_HEAD_DIM = 32
_GROUPS = 8


def untrained_backbone(
    source: str | Path,
    *,
    seed: int,
    size: int | None = None,
    width: int | None = None,
    mean: _Channels | None = None,
    std: _Channels | None = None,
) -> PretrainedBackbone:
    """A backbone whose every weight is drawn at random: the same seed, the same bits.

    Args:
        source: "small-resnet", "small-vit", or a hub id or local directory whose config.json and
            preprocessor_config.json say the rest (of joint models the image tower; no weights are read or fetched).
        seed: of the weights; the global random state is neither read nor moved.
        size: side of the images in pixels, of the small ones: 32 unless given; for the ViT a multiple of 8.
        width: of the small ones: channels of the first stage (64 unless given, a multiple of 32), or features of a
            token (96 unless given, a multiple of 32).
        mean, std: per RGB channel, of images in [0, 1], of the small ones: 0.5 unless given, as nothing is known of the
            images; they are resized to the size, bicubic.

    Returns:
        The backbone in eval mode; `save` and `load_backbone` work as ever.

    Raises:
        InputError: a size, width, mean or deviation that cannot be, or is the checkpoint's to say.
        BackboneError: the checkpoint's files cannot be found, read or built.
    """
    keep_freed_memory()
    name = f"{source} (untrained, seed {seed})"
    if source in SMALL:
        processor = _processor(_SIZE if size is None else size, mean or _HALF, std or _HALF)
        side = processor["size"]["height"]
        build = _small_resnet if source == "small-resnet" else _small_vit
        model_class, config = build(side, width)
        return _drawn(
            model_class,
            config,
            dict(FAMILIES[config.model_type].options),
            name=name,
            processor=processor,
            revision=None,
            seed=seed,
        )
    nearest = did_you_mean(str(source), SMALL)
    if nearest and "/" not in str(source) and not Path(source).is_dir():
        raise InputError(f"there is no {source}{nearest} (ours are {' and '.join(SMALL)})")
    _refuse_own_choice(source, size=size, width=width, mean=mean, std=std)
    return _of_checkpoint(source, name, seed)


def is_untrained(backbone: PretrainedBackbone) -> bool:
    """Whether its weights are those that were drawn; it says so itself, in its name."""
    return bool(re.search(r" \(untrained, seed \d+\)$", backbone.name))


def untrained_like(backbone: PretrainedBackbone, *, seed: int) -> PretrainedBackbone:
    """The same architecture and preprocessing with random weights; an appended projection is left out."""
    return _drawn(
        type(backbone.model).__name__,
        copy.deepcopy(backbone.config),
        dict(FAMILIES[backbone.model_type].options),
        name=f"{backbone.name} (untrained, seed {seed})",
        processor=backbone.processor,
        revision=None,
        seed=seed,
    )


def _of_checkpoint(source: str | Path, name: str, seed: int) -> PretrainedBackbone:
    import transformers

    found = locate(source, None, weights=False)
    directory = image_tower(found.directory)
    family = FAMILIES[model_type(directory, str(source))]
    try:
        with quiet_transformers():
            config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
        if family.joint is not None:
            config = image_config(config)
    except Exception as error:  # transformers lets many kinds through
        raise BackboneError(
            f"{source}: config.json cannot be read ({' '.join(str(error).split())[:200]}); fetch the checkpoint again"
        ) from error
    processor = read_processor(directory, str(source))
    model_class = image_class(directory, family)
    return _drawn(
        model_class, config, dict(family.options), name=name, processor=processor, revision=found.revision, seed=seed
    )


def _drawn(
    model_class: str,
    config: Any,
    options: dict[str, Any],
    *,
    name: str,
    processor: dict[str, Any],
    revision: str | None,
    seed: int,
) -> PretrainedBackbone:
    import transformers

    preprocessing = parse_processor(processor, name)
    try:
        with torch.random.fork_rng(devices=[]), quiet_transformers():
            torch.default_generator.manual_seed(seed)
            model: nn.Module = getattr(transformers, model_class)(config, **options).float()
            if model_class == "IJepaModel":
                _give_places(model.embeddings)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise BackboneError(f"{name} cannot be built ({reason}); correct its config.json") from error
    return PretrainedBackbone(model, name=name, revision=revision, processor=processor, preprocessing=preprocessing)


def _small_resnet(size: int, width: int | None) -> tuple[str, Any]:
    """BiT (Kolesnikov et al., ECCV 2020): pre-activation bottlenecks, group norm, standardised convolutions.

    A stem that quarters the sides, then three stages of w, 2w and 4w channels, each halving them but the first.
    """
    from transformers import BitConfig

    w = _multiple(64 if width is None else width, 4 * _GROUPS, "small-resnet: width")
    if size < 16:
        raise InputError(f"small-resnet: size must be at least 16 pixels, received {size}")
    return "BitModel", BitConfig(
        embedding_size=w // 2, hidden_sizes=[w, 2 * w, 4 * w], depths=[1, 1, 1], num_groups=_GROUPS
    )


def _small_vit(size: int, width: int | None) -> tuple[str, Any]:
    """I-JEPA's ViT (Assran et al., CVPR 2023): 8×8 patches at every size, no class token, features the patches' mean.

    What a masked autoencoder learns is in its patches; a class token that no loss asks stays nearly empty. Weights are
    drawn about as wide as Glorot & Bengio (AISTATS 2010): at transformers' 0.02, meant for 768 features, so narrow a
    network says next to nothing.
    """
    from transformers import IJepaConfig

    w = _multiple(96 if width is None else width, _HEAD_DIM, "small-vit: width")
    return "IJepaModel", IJepaConfig(
        hidden_size=w,
        num_hidden_layers=3,
        num_attention_heads=w // _HEAD_DIM,
        intermediate_size=2 * w,
        layer_norm_eps=1e-6,
        initializer_range=w**-0.5,
        image_size=size,
        patch_size=_multiple(size, _PATCHES_A_SIDE, "small-vit: size") // _PATCHES_A_SIDE,
    )


def _give_places(embeddings: Any) -> None:
    """Sines and cosines, as I-JEPA's authors begin: transformers draws positions too small to be told apart."""
    image, patch = embeddings.image_size, embeddings.patch_embeddings.patch_size
    grid = (image[0] // patch[0], image[1] // patch[1])
    with torch.no_grad():
        places = embeddings.position_embeddings
        places.copy_(sine_cosine(grid, places.shape[2]))


def _multiple(value: int, of: int, what: str) -> int:
    if value < of or value % of:
        raise InputError(f"{what} must be a multiple of {of}, received {value}; take {max(1, round(value / of)) * of}")
    return value


def _processor(size: int, mean: _Channels, std: _Channels) -> dict[str, Any]:
    if size < 1 or len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise InputError(
            "size must be positive, mean and std three numbers, one a channel, and std positive; "
            f"received {size}, {mean} and {std}"
        )
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [float(v) for v in mean],
        "image_std": [float(v) for v in std],
    }


def _refuse_own_choice(source: str | Path, **choices: Any) -> None:
    chosen = [name for name, value in choices.items() if value is not None]
    if chosen:
        raise InputError(
            f"{' and '.join(chosen)} cannot be chosen for {source}, whose files say them; only "
            f"{' and '.join(SMALL)} take them"
        )

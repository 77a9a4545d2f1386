"""Features at every depth of a backbone in one pass, for probes: the middle is often better than the end.

After pre-training on a task of its own (rotation, jigsaw, masked patches) the last stages serve that task: Zhang, Isola
& Efros, "Colorful Image Colorization" (ECCV 2016), section 3.2, and Chen et al., "Generative Pretraining from Pixels"
(ICML 2020), section 4.1, probe every layer.

Shape letters: N B images, T tokens, P prefix tokens, C D features, H W pixels of a map.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headfirst.data import ImageSplit, cache_dir, normalise
from headfirst.errors import BackboneError, InputError
from headfirst.features.extract import evaluating, prepared
from headfirst.features.threads import free_threads, torch_threads
from headfirst.nn import PretrainedBackbone, num_prefix_tokens
from headfirst.nn.families import GridStage, PatchGrid
from headfirst.types import Features, Progress, silent


def embed_depths(
    backbone: PretrainedBackbone,
    split: ImageSplit,
    *,
    cache: Path | None = None,
    batch_size: int = 32,
    device: str = "cpu",
    progress: Progress = silent,
) -> tuple[Features, ...]:
    """One `Features` for each of the backbone's stages, in order, all from one pass; computed anew at every call.

    Of a map the mean over its pixels, of tokens the mean over the patches (class and register tokens left out), of the
    last stage the backbone's own features.

    Args:
        backbone: runs in eval mode without gradients and comes back as it was, buffers and device included.
        split: prepared (`headfirst.data.prepare`) or not; an unprepared one is prepared first.
        cache: where prepared pixels are kept (`cache_dir()` if None); features are not stored.
        batch_size: images a forward pass.
        device: where the forward passes run, "cpu" or "cuda".
        progress: told of decoding and embedding.

    Returns:
        As many as `len(backbone.stages)`, (N, D of that stage) float32, not normalised; the source of each names its
        stage.

    Raises:
        InputError: `batch_size` below 1, no images, or pixels that were prepared for another backbone.
        DataError: an unprepared split with images that cannot be read.
        BackboneError: features are not finite.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, received {batch_size}")
    if not len(split):
        raise InputError(f"split {split.name!r} has no images; there is nothing to embed")
    split = prepared(split, backbone, cache or cache_dir(), progress)
    batches: list[tuple[Tensor, ...]] = []
    with evaluating(backbone, device), torch.inference_mode(), torch_threads(free_threads()):
        for begin in range(0, len(split), batch_size):
            rows = range(begin, min(begin + batch_size, len(split)))
            images = normalise(split.batch(rows).to(device), backbone.preprocessing)
            batches.append(tuple(means.cpu() for means in stage_means(backbone, images)))
            progress(f"embedding {split.name} at every depth", rows.stop, len(split))
    values = [torch.cat(depth) for depth in zip(*batches, strict=True)]
    if not all(depth.isfinite().all() for depth in values):
        raise BackboneError(f"{backbone.name} gives features that are not finite; its weights are bad")
    fingerprint = backbone.fingerprint
    last = len(values) - 1
    return tuple(
        Features(
            values=depth,
            labels=torch.from_numpy(split.labels.copy()),
            classes=split.classes,
            ids=split.ids,
            split=split.name,
            source=fingerprint if number == last else f"{fingerprint}:stage-{number}",
        )
        for number, depth in enumerate(values)
    )


def stage_means(backbone: PretrainedBackbone, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _"], ...]:
    """What every stage gives of normalised images, averaged over places; the last as it is: `backbone(images)`."""
    hooked: list[Tensor] = []
    handles = [
        stage.register_forward_hook(lambda stage, _, output: hooked.append(_mean(backbone, stage, output)))
        for stage in backbone.stages
    ]
    try:
        backbone(images)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(hooked)


def _mean(backbone: PretrainedBackbone, stage: nn.Module, output: Tensor) -> Tensor:
    if output.ndim == 4:
        channels_last = isinstance(stage, PatchGrid | GridStage)  # Swin's (B, H, W, D); maps are (B, C, H, W)
        return output.float().mean((1, 2) if channels_last else (2, 3))
    if output.ndim == 3:
        return output[:, num_prefix_tokens(backbone) :].float().mean(1)
    return output.float()

"""The most confident mistakes, as thumbnails."""

from __future__ import annotations

import base64
import io

import torch
from PIL import Image

from headfirst.data import ImageSplit
from headfirst.types import Mistake, Predictions

THUMBNAIL = 96  # pixels, longer side


def mistakes(predictions: Predictions, images: ImageSplit, *, most: int = 12) -> tuple[Mistake, ...]:
    """The `most` wrong predictions with the highest confidence, the surest first.

    Args:
        predictions: of one method on one split.
        images: that split, prepared, in the same order.
    """
    confidence, predicted = predictions.probabilities().max(dim=1)
    wrong = torch.nonzero(predicted != predictions.labels)[:, 0]
    surest = wrong[confidence[wrong].argsort(descending=True, stable=True)][:most].tolist()
    return tuple(
        Mistake(
            split=predictions.split,
            id=predictions.ids[i],
            label=predictions.classes[predictions.labels[i]],
            predicted=predictions.classes[predicted[i]],
            confidence=confidence[i].item(),
            thumbnail=thumbnail(images, i),
        )
        for i in surest
    )


def thumbnail(images: ImageSplit, index: int) -> str:
    """One image of a prepared split as a `data:image/jpeg;base64,…` address."""
    picture = Image.fromarray(images.batch([index])[0].permute(1, 2, 0).numpy())
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

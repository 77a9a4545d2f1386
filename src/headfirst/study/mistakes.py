"""The most confident mistakes, as thumbnails."""

from __future__ import annotations

import torch

from headfirst.data import ImageSplit
from headfirst.study.thumbnails import thumbnail
from headfirst.types import Mistake, Predictions


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

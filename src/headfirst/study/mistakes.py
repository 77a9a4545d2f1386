"""The most confident mistakes, as thumbnails, and the training images that are most like them to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from headfirst.data import ImageSplit
from headfirst.features import nearest
from headfirst.study.thumbnails import thumbnail
from headfirst.types import Features, Mistake, Neighbour, Predictions

_SMALL = 48  # pixels of a neighbour's thumbnail, longer side


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


def with_neighbours(
    found: Sequence[Mistake], features: Features, train: ImageSplit, train_features: Features, *, most: int = 3
) -> tuple[Mistake, ...]:
    """The same mistakes with the `most` training images whose features have the largest cosine with theirs.

    Args:
        features: of the mistaken images, in their order, by the model that made the mistakes.
        train: the images it was fitted to, prepared.
        train_features: theirs, by the same model.
    """
    # Features that are all zero, of a dead layer, have no direction: such an image is like no other.
    alive, trained = (torch.nonzero(f.values.any(dim=1))[:, 0] for f in (features, train_features))
    if not len(alive) or not len(trained):
        return tuple(found)
    close = nearest(features.values[alive], train_features.values[trained], min(most, len(trained)))
    result = list(found)
    for i, rows, similarities in zip(alive.tolist(), trained[close.indices], close.similarities, strict=True):
        neighbours = tuple(
            Neighbour(
                id=train.ids[row],
                label=train.classes[train.labels[row]],
                similarity=similarity,
                thumbnail=thumbnail(train, row, size=_SMALL),
            )
            for row, similarity in zip(rows.tolist(), similarities.tolist(), strict=True)
        )
        result[i] = replace(found[i], neighbours=neighbours)
    return tuple(result)

"""Can a quarter turn be told from these images, and do traces at the border alone give it away?

Every image is turned by 0°, 90°, 180° and 270°, and a linear probe on simple fixed features says which: once from what
is in the picture (thumbnails of 8×8 colours and how strong edges are in each direction), once from the outermost pixels
alone. What is scored was not fitted: images are dealt to folds, all four turns of one to the same.

Since the four turns of an image are the same images whichever way it came, images without an upright give 25 %, and
neither number needs to know which way is up.

Shape letters: N images, B batch, H W pixels, F features.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from headfirst.adapt import LinearProbe
from headfirst.metrics import Interval, bootstrap_interval
from headfirst.randomness import keyed_permutation
from headfirst.types import Features

TURNS = ("0", "90", "180", "270")
FOLDS = 3
L2 = 1e-4
"""Strength of the probes, for features of unit root-mean-square norm. Fixed, since a search would cost more than the
minute there is. Ten and a hundred times as much tell the turn of 94 and 89 % instead of 96 % of 834 digits, and of 60
and 50 % instead of 62 % of 420 photographs."""

_THUMBNAIL, _EDGES, _DIRECTIONS, _SEGMENTS = 8, 32, 8, 8


def told_turns(features: Float[Tensor, "n 4 f"], *, seed: int) -> Interval:
    """Accuracy of telling an image's turn, by cross-validation over images.

    Args:
        features: (N, 4, F), of every image in its four turns; N ≥ 2 · FOLDS.
        seed: deals images to folds and resamples them.
    """
    n = len(features)
    fold = np.empty(n, dtype=np.int64)
    fold[keyed_permutation(n, seed, 0x7475_726E)] = np.arange(n) % FOLDS
    right = torch.empty(n, 4, dtype=torch.bool)
    turn = torch.arange(4)
    for held_out in range(FOLDS):
        out = torch.from_numpy(fold == held_out)
        x = features[~out].flatten(0, 1)
        if bool((x == x[0]).all()):  # a probe has nothing to go by: it says 0° always
            right[out] = turn == 0
            continue
        model = LinearProbe(l2=L2, seed=seed).fit(_as_features(x, turn.repeat(int((~out).sum()))))
        right[out] = (model.predict(features[out].flatten(0, 1)) == turn.repeat(int(out.sum()))).unflatten(0, (-1, 4))
    return bootstrap_interval(right.double().mean(dim=1)[None], seed=seed, bounds=(0.0, 1.0))


def _as_features(x: Tensor, labels: Tensor) -> Features:
    ids = tuple(map(str, range(len(x))))
    return Features(values=x.float(), labels=labels, classes=TURNS, ids=ids, split="turns", source="")


def content_features(images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 4 f"]:
    """Of each turn: 8×8 colours, then edge strength by direction in the whole and in each quarter; both blocks of a
    comparable norm."""
    x = images.float() / 255
    colours, grey = adaptive_avg_pool2d(x, _THUMBNAIL), adaptive_avg_pool2d(x.mean(dim=1), _EDGES)
    return torch.stack(
        [
            torch.cat([torch.rot90(colours, k, (2, 3)).flatten(1), 4 * _edges(torch.rot90(grey, k, (1, 2)))], dim=1)
            for k in range(4)
        ],
        dim=1,
    )


def _edges(grey: Float[Tensor, "b s s"]) -> Float[Tensor, "b e"]:
    """Share of the gradient's length in each of 8 directions, in the whole and in the quarters; zero where flat."""
    down = grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]
    right = grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]
    strength = (down.square() + right.square()).sqrt()
    # The bins' centres, not their ends, lie on the axes: a turn by 90° moves a direction by two whole bins.
    sector = ((torch.atan2(down, right) / (2 * torch.pi / _DIRECTIONS)).round() % _DIRECTIONS).long()
    by_direction = strength[:, None] * (sector[:, None] == torch.arange(_DIRECTIONS)[:, None, None])
    quarters = adaptive_avg_pool2d(by_direction, 2)
    whole = quarters.mean(dim=(2, 3), keepdim=True)
    shares = torch.cat([whole.flatten(1), quarters.flatten(1)], dim=1)
    return shares / whole.sum(dim=(1, 2, 3)).clamp(min=1e-6)[:, None]


def border_features(images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 4 f"]:
    """Of each turn: colours along the four sides of a frame one pixel wide for each 64 of the shorter side."""
    x = images.float() / 255
    wide = max(1, min(x.shape[2:]) // 64)
    return torch.stack([_frame(torch.rot90(x, k, (2, 3)), wide) for k in range(4)], dim=1)


def _frame(x: Float[Tensor, "b 3 h w"], wide: int) -> Float[Tensor, "b f"]:
    top, bottom = x[:, :, :wide], x[:, :, -wide:]
    left, right = x[:, :, :, :wide], x[:, :, :, -wide:]
    sides = [adaptive_avg_pool2d(side, (1, _SEGMENTS)) for side in (top, bottom)]
    sides += [adaptive_avg_pool2d(side, (_SEGMENTS, 1)) for side in (left, right)]
    return torch.cat([side.flatten(1) for side in sides], dim=1)


def joined(blocks: Iterable[Tensor]) -> Tensor:
    """Batches of features as one tensor."""
    return torch.cat(list(blocks))

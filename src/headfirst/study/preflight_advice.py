"""What the pre-flight's numbers say, in plain sentences. Every threshold is here, with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headfirst.metrics import Interval
from headfirst.study.tile_check import CHANCE, GRID

if TYPE_CHECKING:
    from headfirst.study.preflight import Preflight

FEW_IMAGES = 1000
"""Fewer are at most four batches of 256 an epoch: a judgement, not a measurement."""

MANY_COPIES = 0.05
"""Share of (near-)copies at which a batch of 256 holds about a dozen: a contrastive loss pushes them apart."""

TURN = 0.25
"""Chance of telling a quarter turn."""

ANSWERABLE = 0.35
"""Accuracy simple features must surely exceed, ten points above chance. What they cannot tell a network still may."""

SOLVED = 0.85
"""Accuracy at which a shortcut leaves too little: the network has one image in seven to learn content from."""

EDGES_FIND = 0.75
"""Share of tile pairs at which matching edges pieces most images together. Photographs (PACS) give 0.61 to 0.63 with
the published gap, paintings and cartoons 0.54 to 0.58, and a jigsaw is known to teach something on photographs;
touching, they all give 0.95 to 0.99."""

SMALL_TILE = 12
"""Pixels of a tile's side below which hardly a part of an object is left in it."""

SMALL_IMAGE = 32
"""Pixels of a side below which a random crop of a fifth of the area is a patch of some 12 pixels."""

MOSTLY, SOME = 0.9, 0.05
"""Shares of grey images from which on colour is no signal, and from which on its absence is one."""

LONG_IMAGES = 0.05
"""Share of images that a square crop halves, from which on it is worth looking at what is cut off."""


def advice(found: Preflight) -> tuple[str, ...]:
    """Sentences in the order a reader needs them: the images, then pretext by pretext."""
    return (
        *_of_number(found),
        *_of_shape(found),
        *_of_rotation(found),
        *_of_jigsaw(found),
        *_of_colour(found),
        *_of_mirrors(found),
    )


def _of_number(found: Preflight) -> list[str]:
    said = []
    if found.num_images < FEW_IMAGES:
        said.append(
            f"{found.num_images:,} images are few for pre-training: start from a pretrained backbone, and expect "
            f"little."
        )
    if found.identical.value >= MANY_COPIES:
        said.append(
            f"{shown(found.identical)} of the images are exact copies of others: take them out, they count "
            f"several times "
            "and a contrastive loss pushes them apart."
        )
    elif found.near_duplicates.value >= MANY_COPIES:
        said.append(
            f"{shown(found.near_duplicates)} of the images have a near-copy: thin them out (frames of a film?); SimCLR "
            "would push them apart, DINO, VICReg and masked images mind less."
        )
    return said


def _of_shape(found: Preflight) -> list[str]:
    said = []
    side = min(found.height, found.width)
    if side < SMALL_IMAGE:
        said.append(
            f"Images of {found.width}×{found.height} pixels leave crops little to show: SimCLR, DINO and VICReg need "
            "crops of at least half the area here."
        )
    if found.extreme_aspect is not None and found.extreme_aspect.value >= LONG_IMAGES:
        said.append(
            f"{shown(found.extreme_aspect)} of the images are more than twice as long as wide: a square crop "
            f"loses half "
            "of them; cut them into squares first if what matters lies at the ends."
        )
    return said


def _of_rotation(found: Preflight) -> list[str]:
    told, border = found.turn_told, found.turn_from_border
    if told is None or border is None:
        return ["Rotation: too few images to see whether a turn can be told."]
    if border.low >= SOLVED:
        return [
            f"Rotation: the pixels at the border alone tell the turn of {shown(border)} of images; the pretext "
            f"will learn "
            "the camera, not the content: don't, or crop the border away."
        ]
    if told.low >= SOLVED:
        return [
            f"Rotation: thumbnails of 8×8 pixels tell the turn of {shown(told)} of images; the pretext may "
            "be too easy to teach much."
        ]
    if told.low < ANSWERABLE and border.low < ANSWERABLE:
        return [
            f"Rotation: simple features tell the turn of {shown(told)} of images, chance being {100 * TURN:.0f} "
            f"%: there is "
            "probably no upright to find here: don't, unless you know there is one."
        ]
    return [
        f"Rotation: answerable. Simple features tell the turn of {shown(told)} of images, the border alone "
        f"{shown(border)}, "
        f"chance being {100 * TURN:.0f} %."
    ]


def _of_jigsaw(found: Preflight) -> list[str]:
    touching, apart = found.tiles_touching, found.tiles_apart
    side = min(found.height, found.width) // GRID - found.gap
    if touching is None or apart is None or side < SMALL_TILE:
        return [f"Jigsaw: 3×3 tiles are {max(side, 0)} pixels a side here, too few to show a part of anything: don't."]
    if apart.low >= EDGES_FIND:
        return [
            f"Jigsaw: even {_pixels(found.gap)} apart, edges alone find {shown(apart)} of neighbouring tiles, "
            f"chance being "
            f"{100 * CHANCE:.1f} %: the pretext will learn edges, not content: don't, or widen the gap and jitter "
            f"the tiles."
        ]
    if touching.low >= EDGES_FIND:
        return [
            f"Jigsaw: keep the gap. Edges find {shown(touching)} of neighbouring tiles that touch, {shown(apart)} "
            f"{_pixels(found.gap)} apart, chance being {100 * CHANCE:.1f} %."
        ]
    return [
        f"Jigsaw: edges give little away, {shown(apart)} of neighbouring tiles {_pixels(found.gap)} apart, "
        f"chance being "
        f"{100 * CHANCE:.1f} %."
    ]


def _of_colour(found: Preflight) -> list[str]:
    if found.grey.value >= MOSTLY:
        return [f"{shown(found.grey)} of the images are grey: jitter brightness and contrast, not colour."]
    if found.grey.value >= SOME:
        return [
            f"{shown(found.grey)} of the images are grey: colour tells them from the rest, so make views grey at "
            f"random."
        ]
    return []


def _of_mirrors(found: Preflight) -> list[str]:
    if found.mirror:
        return []
    return ["A mirrored image means something else here: leave mirror images out of all views."]


def shown(rate: Interval) -> str:
    """A share in per cent with its interval.

    >>> shown(Interval(0.93, 0.906, 0.951))
    '93 % [91, 95]'
    """
    return f"{100 * rate.value:.0f} % [{100 * rate.low:.0f}, {100 * rate.high:.0f}]"


def _pixels(number: int) -> str:
    return "1 pixel" if number == 1 else f"{number} pixels"

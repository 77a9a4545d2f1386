"""Coloured digits: the embedded MNIST digits in eight inks on eight backgrounds, thick or thin, leaning, noisy.

Some combinations are never drawn at home: one ink for each digit (`NEVER_INK`) and the complementary background for
each ink (`NEVER_BACKGROUND`). They make two shifts, which whoever learns from home alone has not met.
`builtin/glyph-clip` learnt from the digits of `train`, drawn anew in every epoch.

Shape letters: N images, H W pixels (28). Ink is a coverage in 0 … 1 (see `headfirst.data.ink`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from headfirst.data.imageset import ImageSet
from headfirst.data.ink import ink_of, sheared_to, stroked_to
from headfirst.randomness import keyed_uniform

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = {
    "red": (215, 35, 40),
    "orange": (245, 135, 25),
    "yellow": (245, 225, 50),
    "green": (30, 150, 60),
    "blue": (35, 75, 215),
    "purple": (140, 45, 165),
    "black": (10, 10, 10),
    "white": (245, 245, 245),
}
THICKNESSES = ("thin", "medium", "thick")
SLANTS = ("left", "upright", "right")
NOISES = ("clean", "noisy")

_BRIGHT = 6
NEVER_INK = tuple(digit % _BRIGHT for digit in range(10))
"""For each digit, the bright ink that it is never drawn in at home."""
NEVER_BACKGROUND = tuple((ink + _BRIGHT // 2) % _BRIGHT for ink in range(_BRIGHT))
"""For each bright ink, the background it is never drawn on at home: red on green, orange on blue, …"""

_STROKES = ((1.2, 1.45), (1.9, 2.2), (3.0, 3.8))
"""Stroke widths of thin, medium and thick, in pixels."""
_SHEARS = ((-0.6, -0.35), (-0.08, 0.08), (0.35, 0.6))
"""Left, upright, right; see `headfirst.data.ink.shear`."""
_SIGMA = (0.06, 0.12)
"""Deviation of a noisy image's pixel noise, of full scale."""
_JITTER = 18
"""How far a channel of a colour may be from its entry in `COLOURS`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Styles:
    """How N digits are drawn, each attribute (N,) int64.

    Attributes:
        digit: 0 … 9.
        ink: index into `COLOURS`.
        background: index into `COLOURS`.
        thickness: index into `THICKNESSES`; -1 is as it was written, whatever that is.
        slant: index into `SLANTS`; -1 is as it was written.
        noise: index into `NOISES`.
    """

    digit: Int64[np.ndarray, " n"]
    ink: Int64[np.ndarray, " n"]
    background: Int64[np.ndarray, " n"]
    thickness: Int64[np.ndarray, " n"]
    slant: Int64[np.ndarray, " n"]
    noise: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.digit)

    def where(self, rows: np.ndarray, other: Styles) -> Styles:
        """These styles where `rows` (N,) is true, the other's elsewhere."""
        names = [field.name for field in fields(self)]
        return Styles(**{name: np.where(rows, getattr(self, name), getattr(other, name)) for name in names})


@dataclass(frozen=True, kw_only=True, eq=False)
class ColouredDigits:
    """What `coloured_digits` drew.

    Attributes:
        images: train, val and test at home; shift-new-ink and shift-new-background drawn from the test digits.
        styles: of each split's images, in their order.
    """

    images: ImageSet
    styles: dict[str, Styles]

    def captions(self, split: str) -> tuple[str, ...]:
        """One full caption an image of the split; see `describe`."""
        return describe(self.styles[split])


def coloured_digits(*, seed: int = 0) -> ColouredDigits:
    """Each of the digits of train, val and test drawn once, and those of test twice more, as two shifts.

    Args:
        seed: of the styles and of the noise; the cut into splits is always that of `ImageSet.digits()`.

    >>> coloured_digits(seed=0).images.shifts()
    ('shift-new-ink', 'shift-new-background')
    """
    digits = ImageSet.digits()
    splits, styles = {}, {}
    kinds = {"train": "home", "val": "home", "test": "home"}
    kinds |= {f"shift-{kind}": kind for kind in KINDS if kind != "home"}
    for number, (name, kind) in enumerate(kinds.items()):
        split = digits["test" if kind != "home" else name]
        samples = np.arange(len(split))
        styles[name] = draw_styles(split.labels, seed, number, samples=samples, kind=kind)
        images = draw(ink_of(split), styles[name], seed, number, samples=samples)
        ids = split.ids if kind == "home" else tuple(f"{kind}/{id_}" for id_ in split.ids)
        splits[name] = replace(split, name=name, ids=ids, sources=tuple(images.permute(0, 2, 3, 1).numpy()))
    images = ImageSet(
        name="coloured digits",
        splits=splits,
        classes=digits.classes,
        rules=(
            "The cut is that of the embedded digits; each digit is drawn once, in an ink on a background.",
            "The two shifts draw the test digits again: in the ink that their digit never has at home, and on the "
            "background that their ink never has at home.",
        ),
        mirror=False,
    )
    return ColouredDigits(images=images, styles=styles)


KINDS: dict[str, Callable[[int, int, int], bool]] = {
    "home": lambda digit, ink, background: NEVER_INK[digit] != ink and not _complementary(ink, background),
    "new-ink": lambda digit, ink, background: NEVER_INK[digit] == ink and not _complementary(ink, background),
    "new-background": lambda digit, ink, background: NEVER_INK[digit] != ink and _complementary(ink, background),
}
"""Which (digit, ink, background) each kind of picture may have; ink and background always differ."""


def _complementary(ink: int, background: int) -> bool:
    return ink < _BRIGHT and NEVER_BACKGROUND[ink] == background


def draw_styles(
    digits: Int64[np.ndarray, " n"], *key: int, samples: Int64[np.ndarray, " n"], kind: str = "home"
) -> Styles:
    """Styles for these digits, uniform over the inks and backgrounds that the kind allows, and over the rest.

    Args:
        digits: (N,) 0 … 9.
        key: of the random numbers, together with `samples`.
        samples: (N,) the number of each digit.
        kind: one of `KINDS`.
    """
    colours = range(len(COLOURS))
    allowed = [
        np.array([(i, b) for i in colours for b in colours if i != b and KINDS[kind](digit, i, b)])
        for digit in range(10)
    ]

    def pick(stream: int, count: int | np.ndarray) -> np.ndarray:
        return (keyed_uniform(*key, samples, stream) * count).astype(np.int64)

    rows = pick(0, np.array([len(allowed[digit]) for digit in digits]))
    colour = np.array([allowed[digit][row] for digit, row in zip(digits, rows, strict=True)]).reshape(-1, 2)
    return Styles(
        digit=digits,
        ink=colour[:, 0],
        background=colour[:, 1],
        thickness=pick(1, len(THICKNESSES) + 1) - 1,
        slant=pick(2, len(SLANTS) + 1) - 1,
        noise=pick(3, len(NOISES)),
    )


def draw(
    ink: Float32[Tensor, "n h w"], styles: Styles, *key: int, samples: Int64[np.ndarray, " n"]
) -> UInt8[Tensor, "n 3 h w"]:
    """Ink as its style says: sheared, then thickened or thinned, coloured, with noise.

    What an image gets depends on its ink, its style, `key` and its number in `samples`, never on its batch.
    """

    def between(stream: int, bounds: Sequence[tuple[float, float]], rows: np.ndarray, which: np.ndarray) -> Tensor:
        low, high = np.array(bounds)[which[rows]].T
        return torch.from_numpy(low + (high - low) * keyed_uniform(*key, samples[rows], stream)).float()

    ink = ink.clone()
    slanted, stroked, noisy = styles.slant >= 0, styles.thickness >= 0, styles.noise > 0
    if slanted.any():
        rows = torch.from_numpy(slanted)
        ink[rows] = sheared_to(ink[rows], between(10, _SHEARS, slanted, styles.slant))
    if stroked.any():
        rows = torch.from_numpy(stroked)
        ink[rows] = stroked_to(ink[rows], between(11, _STROKES, stroked, styles.thickness))
    paints, channels = np.array(list(COLOURS.values())), np.arange(3)
    over, under = (
        paints[which] + _JITTER * (2 * keyed_uniform(*key, samples[:, None], stream, channels) - 1)
        for stream, which in ((12, styles.ink), (13, styles.background))
    )
    over, under = (torch.from_numpy(paint).float().clamp(0, 255)[:, :, None, None] for paint in (over, under))
    image = under + (over - under) * ink[:, None]
    sigma = between(14, [_SIGMA], noisy, np.zeros(len(styles), dtype=np.int64))
    grain = sigma[:, None, None, None] * _noise(ink.shape[1:], *key, samples=samples[noisy])
    image[torch.from_numpy(noisy)] += 255 * grain
    return image.round().clamp(0, 255).to(torch.uint8)


def _noise(size: Sequence[int], *key: int, samples: np.ndarray) -> Tensor:
    """(N, 3, H, W), independent, uniform, with mean 0 and deviation 1."""
    pixels = np.arange(3 * size[0] * size[1]).reshape(3, *size)
    draws = keyed_uniform(*key, samples[:, None, None, None], 15, pixels)
    return torch.from_numpy((2 * draws - 1) * 3**0.5).float()


def describe(styles: Styles) -> tuple[str, ...]:
    """The full caption of each style; what is as it was written, and that an image is clean, is left out.

    >>> one = np.array([1])
    >>> describe(Styles(digit=7 * one, ink=0 * one, background=4 * one, thickness=2 * one, slant=0 * one, noise=one))
    ('a thick red seven on a blue background, slanted left, noisy',)
    """
    colours, captions = tuple(COLOURS), []
    slants = [f", {slant}" if slant == "upright" else f", slanted {slant}" for slant in SLANTS]
    for i in range(len(styles)):
        thickness, slant = styles.thickness[i], styles.slant[i]
        figure = f"{colours[styles.ink[i]]} {DIGITS[styles.digit[i]]}"
        figure = with_article(figure if thickness < 0 else f"{THICKNESSES[thickness]} {figure}")
        ground = with_article(f"{colours[styles.background[i]]} background")
        tail = ("" if slant < 0 else slants[slant]) + (", noisy" if styles.noise[i] else "")
        captions.append(f"{figure} on {ground}{tail}")
    return tuple(captions)


def with_article(words: str) -> str:
    """
    >>> with_article("orange seven"), with_article("red eight")
    ('an orange seven', 'a red eight')
    """
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"

"""What tells, while a generator learns, whether it makes everything or the same few images: no picture is needed.

The same noise against the same real images, the probe, again and again. Shape letters: M generated and N real images
of the probe, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from headfirst.errors import InputError
from headfirst.metrics import density_coverage, duplicate_estimate, modes_covered
from headfirst.metrics.neighbours import in_one_frame, nearest_of
from headfirst.nn import read_discriminator

NEIGHBOURS = 5
FEWEST_PROBES = NEIGHBOURS + 2
"""Real images that generated ones can be compared with."""
RARE = 1e-3
"""Two images are alike where they are as near as the nearest thousandth of all pairs of real images."""
ALIKE = 30.0
"""Collapsed: pairs are alike so many times as often as real ones. A generator of K different images makes 1000 / K …"""
LOST = 0.15
"""… or generated images lie near fewer real ones than this share of what a second set of real images would."""
SETTLED = 0.25
"""No alarm before this share of the training: first, every generator makes one image."""
_THUMB = 8


@dataclass(frozen=True, kw_only=True)
class GameReading:
    """The game after `epoch`.

    Attributes:
        real, fake: mean D on the probe's real images and on what the playing generator makes of the fixed noise: ½ is
            balance. Of a loss that compares pairs, of the difference of their logits. Hinge and least-squares logits
            are read as if the logistic function followed.
        gradient_ratio: of the saturating over the non-saturating loss's gradient, the median.
        coverage: share of the probe's balls (to the fifth neighbour) that hold an averaged generator's image.
        expected_coverage: of a second set of real images.
        alike: share of the pairs of generated images that are as near as the nearest thousandth of real pairs.
        alike_real: that share among the real ones: 0.001, or more where images repeat.
        support: so many different images, all equally likely, would repeat as often; None where none repeat.
        classes: of the nearest real image, how many of the classes occur; None without classes.
        agreement: share of the images whose nearest real image is of the class asked for; None without classes.
    """

    epoch: int
    real: float
    fake: float
    gradient_ratio: float
    coverage: float
    expected_coverage: float
    alike: float
    alike_real: float
    support: float | None
    classes: int | None = None
    agreement: float | None = None


@dataclass(frozen=True, kw_only=True)
class Variety:
    """The part of a reading that looks at images alone; see `GameReading`."""

    coverage: float
    expected_coverage: float
    alike: float
    alike_real: float
    support: float | None
    classes: int | None
    agreement: float | None


def thumbnails(images: Float[Tensor, "n c s s"]) -> Float[Tensor, "n f"]:
    """The default features: pixels averaged to 8 × 8."""
    return F.adaptive_avg_pool2d(images, _THUMB).flatten(1)


def read_variety(
    real: Float[Tensor, "n f"],
    generated: Float[Tensor, "m f"],
    *,
    labels: Int[Tensor, " n"] | None = None,
    asked: Int[Tensor, " m"] | None = None,
    num_classes: int = 0,
) -> Variety:
    """Judge generated features against real ones.

    Args:
        real: (N, F) of the probe, at least 7.
        generated: (M, F), at least 2.
        labels: (N,) of the real ones; None without classes.
        asked: (M,) classes that were asked for; None without.

    Raises:
        InputError: too few, or features that are not finite.
    """
    if len(real) < FEWEST_PROBES:
        raise InputError(f"the probe needs at least {FEWEST_PROBES} real images, got {len(real)}")
    found = density_coverage(real, generated, NEIGHBOURS)
    near = torch.pdist(real.double()).quantile(RARE, interpolation="lower").item()
    among, among_real = duplicate_estimate(generated, near), duplicate_estimate(real, near)
    classes = agreement = None
    if labels is not None and asked is not None:
        x, y, _ = in_one_frame(generated, real)
        seen = labels[nearest_of(x, y).indices]
        classes, agreement = modes_covered(seen, num_classes), (seen == asked).double().mean().item()
    return Variety(
        coverage=found.coverage,
        expected_coverage=found.expected_coverage,
        alike=among.rate,
        alike_real=among_real.rate,
        support=among.support if among.pairs else None,
        classes=classes,
        agreement=agreement,
    )


def game_reading(
    epoch: int, real: Float[Tensor, " n"], fake: Float[Tensor, " n"], variety: Variety, *, compares: bool
) -> GameReading:
    """Both halves of a reading.

    Args:
        real, fake: the discriminator's logits of real images and of as many generated ones.
        compares: whether the loss compares them in pairs.
    """
    if compares:
        real, fake = real - fake, fake - real
    return GameReading(epoch=epoch, **vars(read_discriminator(real, fake)), **vars(variety))


def seen_collapse(reading: GameReading) -> str | None:
    """What speaks for a collapse, with its numbers; None where nothing does.

    The first sign is that images repeat: pairs alike `ALIKE` times as often as real ones. The second that they lie near
    few of the real ones, however much they differ from one another. Samples of the real images themselves raise
    neither: of 512, 131 pairs are alike on average, and 3,900 would be needed.
    """
    signs = []
    if reading.alike >= ALIKE * reading.alike_real:
        signs.append(
            f"two generated images are alike in {100 * reading.alike:.3g} % of all pairs, two real ones in "
            f"{100 * reading.alike_real:.3g} %, as if there were only {1 / reading.alike:.0f} different ones"
        )
    if reading.coverage < LOST * reading.expected_coverage:
        signs.append(
            f"{100 * reading.coverage:.3g} % of the real images have a generated one near, where "
            f"{100 * reading.expected_coverage:.3g} % are expected"
        )
    if not signs:
        return None
    return (
        f"{'; '.join(signs)} (D says {reading.real:.2f} on real and {reading.fake:.2f} on generated images, gradient "
        f"ratio {reading.gradient_ratio:.2g})"
    )


def collapse_events(readings: Sequence[GameReading], epochs: int) -> list[str]:
    """When a collapse began and ended, in words; see `seen_collapse` and `SETTLED`."""
    events, collapsed = [], False
    for reading in readings:
        if reading.epoch < SETTLED * epochs:
            continue
        why = seen_collapse(reading)
        if why is not None and not collapsed:
            events.append(f"epoch {reading.epoch}: mode collapse: {why}")
        elif why is None and collapsed:
            events.append(
                f"epoch {reading.epoch}: recovered: {100 * reading.coverage:.3g} % of the real images covered"
            )
        collapsed = why is not None
    return events

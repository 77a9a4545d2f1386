"""Which generated images may enter training: those that are new, look like their class and are taken for it.

What enters: features of generated and of real training images, and whether the current classifier contradicts the
former. What leaves: a verdict for each, with its nearest real image.

Shape letters: M generated and N real images, n real images of one class, D features, K classes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headfirst.adapt import LinearProbe, LinearProbeModel
from headfirst.adapt.linear_probe import stratified_folds
from headfirst.errors import DataError, InputError
from headfirst.metrics.neighbours import TIE, in_balls, in_one_frame, kth_of_others, nearest_of
from headfirst.types import Features

KEPT, MEMORISED, OFF_MANIFOLD, WRONG_CLASS = "kept", "memorised", "off the manifold", "wrong class"
VERDICTS: tuple[str, ...] = (KEPT, MEMORISED, OFF_MANIFOLD, WRONG_CLASS)

REAL_INSIDE = 0.9
"""Balls reach so far that this share of a class's real images lies in the ball of another of them."""

_FOLDS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Filtered:
    """A verdict for each generated image.

    Attributes:
        verdicts: of `VERDICTS`; the first that applies, in the order memorised, off the manifold, wrong class.
        nearest: (M,) row of the nearest real training image, of any class.
        distances: (M,) float64, how far that is, in features as they are.
    """

    verdicts: tuple[str, ...]
    nearest: Int[Tensor, " m"]
    distances: Float[Tensor, " m"]

    def kept(self) -> list[int]:
        """Rows that may enter training."""
        return [row for row, verdict in enumerate(self.verdicts) if verdict == KEPT]

    def counts(self, samples: Features) -> dict[str, dict[str, int]]:
        """How many of each verdict, by class name."""
        found = Counter(zip(samples.labels.tolist(), self.verdicts, strict=True))
        return {
            name: {verdict: found[label, verdict] for verdict in VERDICTS} for label, name in enumerate(samples.classes)
        }


def filter_samples(
    samples: Features, real: Features, contradicted: Bool[Tensor, " m"], *, quantile: float = 0.1, k: int = 3
) -> Filtered:
    """Judge generated images by their features.

    **Memorised**: the nearest real training image, of any class, is no further than the `quantile` of the distances of
    the class's real images to their nearest fellow. About that share of new images of the same distribution is thrown
    out; of a class with n ≤ 2 / quantile images the least distance counts, and 2 in n + 1 are: so often a new image is
    half of the closest pair. A class of one image borrows the least distance of all classes; where no class has two,
    only copies are thrown out.

    **Off the manifold**: in no ball of a real image. Balls reach to the k-th nearest fellow of the same class, or
    further: until 90 % of the class's own images lie in the ball of another one. In many dimensions few images are
    anybody's near neighbour, and with a small k most new real images would be thrown out. A class of one image has no
    ball, and its generated images pass.

    **Wrong class**: in balls of other classes alone, or contradicted by the classifier (`contradicted_by`).

    Args:
        samples: (M, D), labelled; M may be 0.
        real: (N, D) the training images, labelled, of the same classes and backbone.
        contradicted: (M,) whether the current classifier, fitted to `real`, says they are of another class.
        quantile: in (0, 1).
        k: at least 1.

    Raises:
        InputError: other classes or backbones, no labels, numbers outside their range.
        DataError: a class with samples but without real images.

    Source: the balls are those of Kynkäänniemi et al., NeurIPS 2019, eq. 1, by class; the rest is ours.

    >>> def some(*at: float) -> Features:
    ...     values = torch.tensor(at)[:, None]
    ...     ids = tuple(map(str, at))
    ...     return Features(
    ...         values=values, labels=torch.zeros(len(at)).long(), classes=("a",), ids=ids, split="", source=""
    ...     )
    >>> real, samples = some(0.0, 1.0, 2.0, 3.0, 4.5), some(1.01, 2.0, 9.0)
    >>> filter_samples(samples, real, torch.zeros(3).bool(), k=1).verdicts
    ('memorised', 'memorised', 'off the manifold')
    """
    _check(samples, real, contradicted, quantile, k)
    if not len(samples):
        nothing = torch.zeros(0, dtype=torch.float64)
        return Filtered(verdicts=(), nearest=nothing.long(), distances=nothing)
    x, y, scale = in_one_frame(real.values, samples.values)
    near = nearest_of(y, x)
    spacing = [nearest_fellow(x[real.labels == label]) for label in range(len(real.classes))]
    least = _too_near(spacing, quantile)[samples.labels]
    memorised = near.squared <= least.square() * (1 + TIE)
    inside, in_own = _inside(y, samples.labels, x, real.labels, k)
    wrong = contradicted | ~in_own
    return Filtered(
        verdicts=tuple(
            MEMORISED if copied else OFF_MANIFOLD if not within else WRONG_CLASS if other else KEPT
            for copied, within, other in zip(memorised.tolist(), inside.tolist(), wrong.tolist(), strict=True)
        ),
        nearest=near.indices,
        distances=near.squared.sqrt() * scale,
    )


def contradicted_by(
    model: LinearProbeModel, samples: Features, real: Features, *, quantile: float = 0.1
) -> Bool[Tensor, " m"]:
    """Whether the classifier calls a generated image something else, as surely as it seldom does of real ones.

    That is: another class is likelier, and its own less likely than that of all but a share `quantile` of the real
    images, each judged by a probe of the same strength that did not see it. A poor classifier, which doubts real images
    too, throws out little: what it would throw out is what it has to learn. Where nothing can be held out, any other
    call counts.

    Args:
        model: fitted to `real`.
        quantile: in (0, 1).
    """
    if not len(samples):
        return torch.zeros(0, dtype=torch.bool)
    said = model.predict_proba(samples)
    own = said.gather(1, samples.labels[:, None])[:, 0]
    return (said.argmax(dim=1) != samples.labels) & (own < _seldom(model, real, quantile))


def _seldom(model: LinearProbeModel, real: Features, quantile: float) -> float:
    """Probability of the own class below which a share `quantile` of the real images lies, held out."""
    fold, found = stratified_folds(real.labels.numpy(), folds=_FOLDS, seed=0), []
    for f in range(int(fold.max()) + 1):
        rest = real.take(np.flatnonzero(fold == f).tolist())
        part = LinearProbe(l2=model.l2).fit(real.take(np.flatnonzero(fold != f).tolist()))
        found.append(part.predict_proba(rest).gather(1, rest.labels[:, None])[:, 0])
    if not found:
        return 1.0
    held_out = torch.cat(found).sort().values
    return held_out[math.ceil(quantile * len(held_out)) - 1].item()


def nearest_fellow(x: Float[Tensor, "n d"]) -> Float[Tensor, " _"]:
    """(n,) distance of each row to its nearest other row; none for fewer than two rows."""
    return kth_of_others(x, 1).sqrt() if len(x) > 1 else x.new_zeros(0)


def summed(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Counts by verdict over all classes."""
    return {verdict: sum(of_class[verdict] for of_class in counts.values()) for verdict in VERDICTS}


def _too_near(spacing: list[Tensor], quantile: float) -> Float[Tensor, " k"]:
    """(K,) distance up to which an image is a copy: the ⌈q·n⌉-th least of a class's spacing."""
    everywhere = min((of_class.min().item() for of_class in spacing if len(of_class)), default=0.0)
    return torch.tensor(
        [
            of_class.sort().values[max(1, math.ceil(quantile * len(of_class))) - 1].item()
            if len(of_class)
            else everywhere
            for of_class in spacing
        ],
        dtype=torch.float64,
    )


def _inside(
    y: Float[Tensor, "m d"], y_labels: Int[Tensor, " m"], x: Float[Tensor, "n d"], x_labels: Int[Tensor, " n"], k: int
) -> tuple[Bool[Tensor, " m"], Bool[Tensor, " m"]]:
    """Whether each row of y lies in a ball of x at all, and in one of its own class."""
    radii, alone = x.new_full((len(x),), -1.0), torch.zeros(len(y), dtype=torch.bool)
    for label in x_labels.unique().tolist():
        ours = x_labels == label
        if int(ours.sum()) > 1:
            radii[ours] = kth_of_others(x[ours], reach(x[ours], k))
        else:
            alone |= y_labels == label
    anywhere, own = [], []
    for rows, inside in in_balls(y, x, radii):
        anywhere.append(inside.any(dim=1))
        own.append((inside & (y_labels[rows][:, None] == x_labels)).any(dim=1))
    return torch.cat(anywhere) | alone, torch.cat(own) | alone


def reach(x: Float[Tensor, "n d"], k: int) -> int:
    """The least number of neighbours, from k on, with which 90 % of the rows lie in the ball of another row; n ≥ 2.

    A row lies in the ball of another if it is among that one's nearest so many: balls as they would be without it.
    """
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(torch.inf)
    rank = distances.argsort(dim=1, stable=True).argsort(dim=1, stable=True) + 1
    rank.fill_diagonal_(len(x))
    needed = rank.min(dim=0).values.sort().values[math.ceil(REAL_INSIDE * len(x)) - 1]
    return max(min(k, len(x) - 1), int(needed))


def _check(samples: Features, real: Features, contradicted: Tensor, quantile: float, k: int) -> None:
    if not 0 < quantile < 1 or k < 1:
        raise InputError(f"quantile must lie strictly between 0 and 1 and k be at least 1, got {quantile} and {k}")
    if samples.classes != real.classes or samples.source != real.source:
        raise InputError(
            "generated and real images need the same classes and the same backbone, got "
            f"{', '.join(samples.classes) or 'none'} of {samples.source[:12]!r} and {', '.join(real.classes)} "
            f"of {real.source[:12]!r}"
        )
    if bool((samples.labels < 0).any()) or bool((real.labels < 0).any()):
        raise InputError("every image needs a label to be judged by its class; sample by class, with labelled images")
    if len(contradicted) != len(samples):
        raise InputError(f"need what the classifier says of each of {len(samples)} images, got {len(contradicted)}")
    if absent := sorted(set(samples.labels.tolist()) - set(real.labels.tolist())):
        raise DataError(
            f"class {real.classes[absent[0]]!r} has generated images but no real ones to judge them by; add real ones"
        )

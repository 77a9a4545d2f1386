"""Where each generated image comes from, and what became of it.

What enters: `Samples` and their verdicts. What leaves: one row an image, enough to make it again and to see what it may
have copied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from headfirst.augment.filter import Filtered
from headfirst.augment.mix import as_split
from headfirst.errors import InputError
from headfirst.types import Samples


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """`generator.sample(1, seed=seed, label=…, start=index)` of the generator with that hash is this image.

    Attributes:
        generator: hash of its weights.
        nearest: id of the nearest real training image.
        distance: to it, in the backbone's features.
        verdict: kept, memorised, off the manifold or wrong class.
        used: how often it is in the training set; 0 where it is not.
    """

    id: str
    class_name: str
    seed: int
    index: int
    generator: str
    nearest: str
    distance: float
    verdict: str
    used: int


def provenance(
    samples: Samples, filtered: Filtered, real_ids: Sequence[str], used: Sequence[int] = ()
) -> tuple[Provenance, ...]:
    """One row a sample.

    Args:
        filtered: the verdicts on these samples.
        real_ids: of the training images they were compared with.
        used: rows of the samples in the training set, as often as each is in it.

    Raises:
        InputError: verdicts of other samples; a sample is used that was not kept.
    """
    if len(filtered.verdicts) != len(samples):
        raise InputError(f"need a verdict for each of {len(samples)} samples, got {len(filtered.verdicts)}")
    times = Counter(int(row) for row in used)
    if wrong := sorted(set(times) - set(filtered.kept())):
        raise InputError(f"only samples that were kept may be used, but row {wrong[0]} is not one of them")
    split = as_split(samples)
    return tuple(
        Provenance(
            id=split.ids[row],
            class_name=samples.classes[int(samples.labels[row])],
            seed=samples.seed,
            index=int(samples.indices[row]),
            generator=samples.source,
            nearest=real_ids[int(filtered.nearest[row])],
            distance=filtered.distances[row].item(),
            verdict=filtered.verdicts[row],
            used=times[row],
        )
        for row in range(len(samples))
    )

"""What to label next: what further labels are worth, class by class, and which images to begin with.

What enters: images with few labels or none, and a backbone. What leaves: a `LabelPlan`. `train` makes the learning
curves, `val` scores them, `unlabelled` is chosen from; `test` and the shifts are never asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from headfirst.adapt import LinearProbe
from headfirst.data import ImageSet, audit, cap_per_class, few_shot, prepare
from headfirst.errors import InputError
from headfirst.evaluation import versions
from headfirst.features import embed
from headfirst.nn import PretrainedBackbone
from headfirst.study.learning_curve import LEAST_SIZES
from headfirst.study.thumbnails import thumbnail
from headfirst.study.typical import most_typical
from headfirst.study.worth import Curve, Valuation, Worth, sentence
from headfirst.types import Features, Progress, silent


@dataclass(frozen=True, kw_only=True)
class LabelBudget:
    """What `headfirst plan` is asked.

    Attributes:
        budget: how many images to list.
        more: how many further labels are to be valued.
        shots: labelled images a class to go by, and the most validation images a class; None: all.
        seeds: random orders of the labels behind a curve.
        seed: of everything drawn.
        most_classes: classes whose own labels are valued, those with the lowest recall first.
    """

    budget: int = 20
    more: int = 20
    shots: int | None = None
    seeds: int = 10
    seed: int = 0
    most_classes: int = 10

    def __post_init__(self) -> None:
        leasts = {"budget": 1, "more": 1, "shots": 1, "seeds": 2, "seed": 0, "most_classes": 0}
        for name, least in leasts.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")


@dataclass(frozen=True, kw_only=True)
class Pick:
    """An image to label; `thumbnail` is a `data:image/jpeg;base64,…` address.

    Attributes:
        cluster_size, cluster_labels: images like it, and how many of them are labelled.
        distance: mean distance to its nearest neighbours; the less, the more typical.
    """

    rank: int
    id: str
    cluster: int
    cluster_size: int
    cluster_labels: int
    distance: float
    thumbnail: str


@dataclass(frozen=True, kw_only=True)
class LabelPlan:
    """What the plan's page shows.

    Attributes:
        sentences: what further labels are worth, the most valuable first.
        notes: what could not be said, or was left out, and why.
    """

    name: str
    curve: Curve | None
    classes: tuple[Worth, ...]
    picks: tuple[Pick, ...]
    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def plan_labels(
    images: ImageSet,
    backbone: PretrainedBackbone,
    recipe: LabelBudget,
    *,
    device: str = "cpu",
    progress: Progress = silent,
) -> LabelPlan:
    """The plan.

    Args:
        images: with `train` and `val`, or with `unlabelled`, or with all three.

    Raises:
        DataError: a class with fewer than `shots` training images, or the like.
    """
    images = audit(prepare(images, backbone.preprocessing, progress=progress))
    curve, classes, notes, train, l2 = None, (), [], None, None
    if "train" in images:
        split, val = images["train"], images["val"]
        if recipe.shots is not None:
            split = few_shot(split, recipe.shots, seed=recipe.seed)
            val = cap_per_class(val, recipe.shots, seed=recipe.seed)
        train = embed(backbone, split, device=device, progress=progress)
        l2 = LinearProbe(seed=recipe.seed).fit(train, progress=progress).l2
        valuation = Valuation(
            train=train,
            val=embed(backbone, val, device=device, progress=progress),
            l2=l2,
            more=recipe.more,
            seeds=range(recipe.seed, recipe.seed + recipe.seeds),
        )
        curve = valuation.overall()
        classes, notes = valuation.by_class(recipe.most_classes, progress=progress)
        if curve is None:
            notes.insert(0, f"A learning curve needs {LEAST_SIZES} labels a class.")
    else:
        notes.append("There are no labels, so no learning curve; label the images listed and ask again.")
    picks = ()
    if "unlabelled" in images:
        picks = _picks(images, backbone, train, recipe, device, progress)
        if len(picks) < recipe.budget:
            notes.append(f"unlabelled/ holds {len(picks)} images, fewer than asked for: all are listed.")
    else:
        notes.append(
            "There is no unlabelled/ folder: put images without labels there, and the plan says which to label."
        )
    return LabelPlan(
        name=images.name,
        curve=curve,
        classes=classes,
        picks=picks,
        sentences=tuple(map(sentence, ([curve.worth] if curve else []) + list(classes))),
        notes=tuple(notes),
        recipe={"backbone": backbone.name, "backbone_sha256": backbone.fingerprint, **asdict(recipe), "l2": l2},
        versions=versions(),
    )


def _picks(
    images: ImageSet,
    backbone: PretrainedBackbone,
    train: Features | None,
    recipe: LabelBudget,
    device: str,
    progress: Progress,
) -> tuple[Pick, ...]:
    split = images["unlabelled"]
    x = embed(backbone, split, device=device, progress=progress).values
    labelled = x.new_zeros(0, x.shape[1]) if train is None else train.values
    progress("clustering", 0, 1)
    chosen = most_typical(x, labelled, budget=recipe.budget, seed=recipe.seed)
    progress("clustering", 1, 1)
    return tuple(
        Pick(
            rank=rank,
            id=split.ids[choice.row],
            cluster=choice.cluster,
            cluster_size=choice.size,
            cluster_labels=choice.labels,
            distance=choice.distance,
            thumbnail=thumbnail(split, choice.row),
        )
        for rank, choice in enumerate(chosen, start=1)
    )

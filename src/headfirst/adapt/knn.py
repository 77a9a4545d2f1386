"""Nearest neighbours by cosine, exact: the vote of the k training images most alike.

Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination (CVPR 2018), section 3.4: each of
the k neighbours votes for its class with weight exp(similarity / temperature).

Shape letters: N queries, M training images, D features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.adapt.refusals import require_classes, require_finite, require_labelled
from headfirst.errors import DataError, InputError
from headfirst.types import Features, Predictions, Progress, silent

SMOOTHING = 0.01
"""Share of the vote spread evenly over all classes, so that no class is impossible and log-loss stays finite."""

_SIMILARITIES_TOGETHER = 2**22  # queries × training images at a time: 16 MB


@dataclass(frozen=True, kw_only=True)
class KNN:
    """Weighted vote of the `k` nearest training features by cosine.

    P(c) = (1 - s) · Σ_{j among the k nearest, y_j = c} exp(cos_j / T) / Σ_{j among them} exp(cos_j / T) + s / K, with
    s = `SMOOTHING`, the deviation from the source that keeps log-loss finite.

    Attributes:
        k: neighbours, or None to take, among 1, 3, 5, 10, 20, 50, 100, … the least leave-one-out log-loss on the
            training features (ties to the smaller).
        temperature: T > 0, in units of cosine.
    """

    k: int | None = None
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise InputError(f"k must be at least 1, got {self.k}; None has it chosen")
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"temperature must be positive and finite, got {self.temperature}")

    def fit(self, features: Features, *, progress: Progress = silent) -> KNNModel:
        """Keep the training features; choose `k` on them where it is None.

        Raises:
            DataError: an unlabelled image, or a feature that is zero or not finite.
            InputError: more neighbours asked for than there are training images.
        """
        require_labelled(features)
        directions = _directions(features)
        if self.k is not None and self.k > len(features):
            raise InputError(
                f"k must be at most the number of training images, {len(features)} in {features.split!r}, got {self.k}"
            )
        k = self.k
        if k is None:
            losses = leave_one_out_log_losses(
                directions,
                features.labels,
                neighbour_counts(len(features)),
                num_classes=len(features.classes),
                temperature=self.temperature,
                progress=progress,
            )
            k = min(losses, key=lambda k: (losses[k], k))
        return KNNModel(
            recipe=self,
            classes=features.classes,
            directions=directions,
            labels=features.labels,
            k=k,
            temperature=self.temperature,
            chosen_on="train" if self.k is None else "fixed",
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class KNNModel:
    """Training features that vote.

    Attributes:
        recipe: what made it.
        classes: class names, in label order.
        directions: (M, D) float32 training features of unit norm.
        labels: (M,) their labels.
        k: neighbours in use.
        temperature: in units of cosine.
        chosen_on: "train" where `k` was chosen there, "fixed" where it was given.
    """

    recipe: KNN
    classes: tuple[str, ...]
    directions: Float[Tensor, "m d"]
    labels: Int[Tensor, " m"]
    k: int
    temperature: float
    chosen_on: str

    @property
    def classes_(self) -> tuple[str, ...]:
        """Class names in label order (scikit-learn's name for them)."""
        return self.classes

    def predict(self, features: Features) -> Int[Tensor, " n"]:
        """(N,) index into `classes_` of the class with most of the vote."""
        return self.predict_proba(features).argmax(dim=1)

    def predict_proba(self, features: Features) -> Float[Tensor, "n k"]:
        """(N, K) float32 shares of the vote; rows sum to one; uncalibrated."""
        require_classes(features, self.classes)
        queries = _directions(features)
        blocks = []
        for block in queries.split(_block_size(len(self.labels))):
            nearest, rows = (block @ self.directions.T).topk(self.k, dim=1)
            blocks.append(vote(nearest, self.labels[rows], num_classes=len(self.classes), temperature=self.temperature))
        return torch.cat(blocks)

    def score(self, features: Features) -> float:
        """Accuracy on labelled features."""
        require_labelled(features)
        return (self.predict(features) == features.labels).double().mean().item()

    def predictions(self, features: Features, *, seed: int = 0) -> Predictions:
        """Probabilities of a split, labelled or not."""
        return Predictions(
            values=self.predict_proba(features),
            kind="probabilities",
            labels=features.labels,
            classes=self.classes,
            ids=features.ids,
            split=features.split,
            method="knn",
            seed=seed,
            chosen_on=self.chosen_on,
        )


def vote(
    similarities: Float[Tensor, "n k"], labels: Int[Tensor, "n k"], *, num_classes: int, temperature: float
) -> Float[Tensor, "n c"]:
    """Smoothed, weighted vote of each query's neighbours; rows sum to one.

    Args:
        similarities: (N, k) cosines.
        labels: (N, k) the neighbours' classes.

    >>> vote(torch.tensor([[0.9, 0.9]]), torch.tensor([[0, 1]]), num_classes=2, temperature=0.07)
    tensor([[0.5000, 0.5000]])
    """
    weights = (similarities / temperature).softmax(dim=1)
    votes = weights.new_zeros(weights.shape[0], num_classes).scatter_add(1, labels, weights)
    return (1 - SMOOTHING) * votes + SMOOTHING / num_classes


def neighbour_counts(num_images: int) -> list[int]:
    """The `k` tried by leave-one-out: 1, 3, 5, then 10, 20, 50, 100, … below `num_images`.

    >>> neighbour_counts(60)
    [1, 3, 5, 10, 20, 50]
    """
    counts = [1, 3, 5] + [step * 10**power for power in range(1, 10) for step in (1, 2, 5)]
    return [k for k in counts if k < num_images]


def leave_one_out_log_losses(
    directions: Float[Tensor, "m d"],
    labels: Int[Tensor, " m"],
    counts: list[int],
    *,
    num_classes: int,
    temperature: float,
    progress: Progress = silent,
) -> dict[int, float]:
    """Mean log-loss in nats, for each k of `counts`, of each image's class by the vote of the others.

    Raises:
        DataError: there are no others.
    """
    if not counts:
        raise DataError("choosing k needs at least two training images, got 1; give k=1 or add images")
    totals = dict.fromkeys(counts, 0.0)
    block = _block_size(len(labels))
    for start in range(0, len(labels), block):
        rows = torch.arange(start, min(start + block, len(labels)))
        similarities = directions[rows] @ directions.T
        similarities[torch.arange(len(rows)), rows] = -torch.inf  # no image votes for itself
        nearest, neighbours = similarities.topk(counts[-1], dim=1)
        for k in counts:
            shares = vote(nearest[:, :k], labels[neighbours[:, :k]], num_classes=num_classes, temperature=temperature)
            totals[k] -= shares.gather(1, labels[rows, None]).double().log().sum().item()
        progress("choosing k", int(rows[-1]) + 1, len(labels))
    return {k: total / len(labels) for k, total in totals.items()}


def _directions(features: Features) -> Tensor:
    """(N, D) float32 features of unit norm."""
    require_finite(features)
    values = features.values.double()
    norms = values.norm(dim=1, keepdim=True)
    zero = torch.nonzero(norms.flatten() == 0).flatten()
    if len(zero):
        raise DataError(
            f"cosine similarity needs features of positive norm, but {len(zero)} of {len(features)} in "
            f"{features.split!r} are zero, first {features.ids[int(zero[0])]!r}; check that image and the backbone"
        )
    return (values / norms).float()


def _block_size(num_training: int) -> int:
    return max(1, _SIMILARITIES_TOGETHER // num_training)

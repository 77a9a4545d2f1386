"""The linear probe: logistic regression on frozen features, its L2 strength chosen by cross-validation.

Features are centred by the training mean and divided by one number, the root-mean-square norm of what is left, so
rotating, shifting or scaling all features changes nothing. The head returned acts on raw features.

Shape letters: N images (H of them held out once), D features, K classes, S strengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, log10
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from headfirst.adapt.anchored import departures
from headfirst.adapt.feature_models import accuracy_of, answer
from headfirst.adapt.logistic import Solution, logistic_path
from headfirst.adapt.refusals import raw_values, require_finite, require_labelled, require_two_classes, require_unlike
from headfirst.errors import InputError
from headfirst.randomness import keyed_permutation
from headfirst.types import Features, Predictions, Progress, silent

if TYPE_CHECKING:
    from headfirst.adapt.zero_shot import ZeroShotModel

STRONGEST, WEAKEST = 1.0, 1e-8
"""Ends of the path, for features of unit root-mean-square norm: weights near zero; classes all but separated."""

FEW_SHOT_L2 = 1e-4
"""Strength where too few classes have three images for anything to be held out."""

ABSENT_BIAS = -1e9
"""Bias of a class without training images. The other logits sum to zero, so their largest is never below 0."""

_ELEMENTS_TOGETHER = 2**22  # images × folds × classes solved side by side: 32 MB an array


@dataclass(frozen=True, kw_only=True)
class PathPoint:
    """One strength of the path.

    Attributes:
        l2: λ, for features of unit root-mean-square norm.
        cv_log_loss: mean log-loss (nats) of held-out images; None where nothing was held out.
        cv_se: its standard error over images; None likewise.
        gradient_ratio: gradient norm of the fit to all images, relative to its norm at zero weights; None with a prior.
    """

    l2: float
    cv_log_loss: float | None
    cv_se: float | None
    gradient_ratio: float | None


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """Multinomial logistic regression: mean cross-entropy + l2/2 · ‖W‖², the bias unpenalised.

    Without `l2`, `num_strengths` strengths from 1 down to 1e-8 are each solved to their optimum, and the
    one-standard-error rule (Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, 2nd ed., section
    7.10) takes the strongest whose cross-validated log-loss is within one standard error of the least. Deviation: the
    error is taken over images, since a handful of folds estimates it poorly. Classes of one or two images stay in
    every training part; where they hold more than half of the images, the strength is `FEW_SHOT_L2`.

    With a `prior`, features are scaled to unit norm and the penalty pulls weight and bias towards those of the
    zero-shot head, which is itself among the candidates (see `headfirst.adapt.anchored`).

    Attributes:
        l2: strength for features of unit root-mean-square norm, at least 1e-8; None to choose it.
        num_strengths: length of the path, at least 50.
        folds: stratified folds; fewer where a class that is held out has fewer images.
        seed: deals images to folds.
        prior: what `ZeroShot(…).fit(encoder)` gave, for the same classes; None pulls towards zero.

    >>> train = Features(
    ...     values=torch.tensor([[-1.0], [-0.9], [0.9], [1.0]]),
    ...     labels=torch.tensor([0, 0, 1, 1]),
    ...     classes=("cat", "dog"),
    ...     ids=("a", "b", "c", "d"),
    ...     split="train",
    ...     source="",
    ... )
    >>> LinearProbe(l2=0.1).fit(train).predict(torch.tensor([[-2.0], [3.0]])).tolist()
    [0, 1]
    """

    l2: float | None = None
    num_strengths: int = 50
    folds: int = 5
    seed: int = 0
    prior: ZeroShotModel | None = None

    def __post_init__(self) -> None:
        if self.l2 is not None and not WEAKEST <= self.l2 < float("inf"):
            raise InputError(f"l2 must be finite and at least {WEAKEST:g}, got {self.l2}; None has it chosen")
        for name, least in (("num_strengths", 50), ("folds", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def fit(self, features: Features, *, progress: Progress = silent) -> LinearProbeModel:
        """Fit to labelled features; the strength is chosen on these alone.

        Raises:
            DataError: an unlabelled image, a feature that is not finite, fewer than two classes, features all alike.
        """
        if self.prior is not None:
            return self._fit_anchored(features, self.prior, progress)
        x, mean, scale = _standardised(features)
        require_two_classes(features, "a linear probe")
        present, labels = torch.unique(features.labels, return_inverse=True)
        fold = stratified_folds(labels.numpy(), folds=self.folds, seed=self.seed)
        choosing = self.l2 is None and bool((fold >= 0).any())
        if choosing:
            strengths = np.geomspace(STRONGEST, WEAKEST, self.num_strengths).tolist()
            losses = held_out_losses(x, labels, fold, strengths, progress=progress)
            mean_losses, errors = losses.mean(axis=1), losses.std(axis=1, ddof=1) / losses.shape[1] ** 0.5
            chosen = one_standard_error(mean_losses, errors)
        else:
            strengths = _down_to(FEW_SHOT_L2 if self.l2 is None else self.l2)
            mean_losses, errors, chosen = None, None, len(strengths) - 1

        path, head = [], None
        everything = torch.full((1, len(x)), 1 / len(x), dtype=torch.float64)
        for s, solution in enumerate(logistic_path(x, labels, strengths, sample_weights=everything)):
            head = solution if s == chosen else head
            path.append(
                PathPoint(
                    l2=solution.l2,
                    cv_log_loss=None if mean_losses is None else float(mean_losses[s]),
                    cv_se=None if errors is None else float(errors[s]),
                    gradient_ratio=float(solution.gradient_ratio),
                )
            )
            progress("fitting the probe", s + 1, len(strengths))
        assert head is not None
        weight, bias = _on_raw_features(head, mean, scale, present, len(features.classes))
        return LinearProbeModel(
            recipe=self,
            classes=features.classes,
            weight=weight,
            bias=bias,
            l2=head.l2,
            path=tuple(path) if choosing else tuple(path[chosen:]),
            chosen_on="train" if choosing else "fixed",
        )

    def _fit_anchored(self, features: Features, prior: ZeroShotModel, progress: Progress) -> LinearProbeModel:
        if len(features) == 0:
            strengths, departure, chosen, means, errors = [inf], None, 0, None, None
        else:
            path = np.geomspace(STRONGEST, WEAKEST, self.num_strengths).tolist() if self.l2 is None else [self.l2]
            strengths = [inf, *(path if self.l2 is None else _down_to(self.l2))]
            losses, found = departures(features, prior, strengths, self, progress)
            means = errors = None
            if self.l2 is not None:
                chosen = len(strengths) - 1
            elif losses is None:
                chosen = 0
            else:
                means, errors = losses.mean(axis=1), losses.std(axis=1, ddof=1) / losses.shape[1] ** 0.5
                chosen = one_standard_error(means, errors)
            departure = found[chosen]
        weight, bias = prior.weight.double(), prior.bias.double()
        if departure is not None:
            weight, bias = weight + departure[:, :-1], bias + departure[:, -1]
        return LinearProbeModel(
            recipe=self,
            classes=prior.classes,
            weight=weight.float(),
            bias=bias.float(),
            l2=strengths[chosen],
            path=tuple(
                PathPoint(
                    l2=l2,
                    cv_log_loss=None if means is None else float(means[s]),
                    cv_se=None if errors is None else float(errors[s]),
                    gradient_ratio=None,
                )
                for s, l2 in enumerate(strengths)
            ),
            chosen_on="fixed" if means is None else "train",
            unit_norm=True,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearProbeModel:
    """A fitted linear probe.

    Attributes:
        recipe: what made it.
        classes: class names, in label order.
        weight: (K, D) float32, on raw features, or on features of unit norm.
        bias: (K,) float32; -1e9 for a class without training images, which so never wins.
        l2: strength of the fit, for features of unit root-mean-square norm.
        path: every strength that was solved, from strong to weak; only the one in use where none was chosen.
        chosen_on: "train" where `l2` was cross-validated there, "fixed" where it was given.
        unit_norm: whether features are scaled to unit norm first, as with a prior.
    """

    recipe: LinearProbe
    classes: tuple[str, ...]
    weight: Float[Tensor, "k d"]
    bias: Float[Tensor, " k"]
    l2: float
    path: tuple[PathPoint, ...]
    chosen_on: str
    unit_norm: bool = False

    @property
    def method(self) -> str:
        """`probe`, or `anchored-probe` with a prior."""
        return "probe" if self.recipe.prior is None else "anchored-probe"

    @property
    def classes_(self) -> tuple[str, ...]:
        """Class names in label order (scikit-learn's name for them)."""
        return self.classes

    def logits(self, values: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """(N, K) float32 logits of raw features, uncalibrated."""
        values = normalize(values.float(), dim=1) if self.unit_norm else values.float()
        return values @ self.weight.T + self.bias

    def predict(self, inputs: Features | Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """(N,) index into `classes_` of the most likely class."""
        return self.logits(raw_values(inputs, self.classes)).argmax(dim=1)

    def predict_proba(self, inputs: Features | Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """(N, K) softmax probabilities, float64; uncalibrated."""
        return self.logits(raw_values(inputs, self.classes)).double().softmax(dim=1)

    def score(self, features: Features) -> float:
        """Accuracy on labelled features."""
        return accuracy_of(self, features)

    def predictions(self, features: Features, *, seed: int = 0) -> Predictions:
        """Logits of a split, labelled or not."""
        return answer(self, features, seed=seed)


def stratified_folds(labels: Int[np.ndarray, " n"], *, folds: int, seed: int) -> Int[np.ndarray, " n"]:
    """The fold that holds out each row, from 0; -1 for rows of classes of one or two, which are always trained on.

    Each class is dealt out evenly, in an order drawn from (seed, class). There are no more folds than the smallest
    class dealt out has rows, so that every fold holds out, and every training part holds, each of them. All are -1
    where classes of one or two hold more than half of the rows.

    Args:
        labels: (N,) ≥ 0.
    """
    fold = np.full(len(labels), -1)
    counts = np.bincount(labels)
    large = np.flatnonzero(counts >= 3)
    if 2 * counts[large].sum() < len(labels):
        return fold
    num_folds, dealt = min(folds, int(counts[large].min())), 0
    for k in large:
        rows = np.flatnonzero(labels == k)[keyed_permutation(int(counts[k]), seed, int(k))]
        fold[rows] = (dealt + np.arange(len(rows))) % num_folds
        dealt += len(rows)
    return fold


def held_out_losses(
    x: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    fold: Int[np.ndarray, " n"],
    strengths: Sequence[float],
    *,
    progress: Progress = silent,
) -> Float[np.ndarray, "s h"]:
    """(S, H) log-loss, in nats, of each held-out row under the fit that did not see it; in no particular order of rows.

    As many folds as memory allows are solved side by side; their optima do not depend on it.
    """
    num_folds = int(fold.max()) + 1
    together = max(1, _ELEMENTS_TOGETHER // (len(x) * (int(labels.max()) + 1)))
    groups = []
    for first in range(0, num_folds, together):
        members = np.arange(first, min(first + together, num_folds))
        trained_on = torch.from_numpy(fold != members[:, None]).double()
        averages = trained_on / trained_on.sum(dim=1, keepdim=True)
        rows = torch.from_numpy(np.flatnonzero(np.isin(fold, members)))
        column = torch.from_numpy(fold)[rows] - first
        losses = []
        for solution in logistic_path(x, labels, strengths, sample_weights=averages):
            losses.append(cross_entropy(solution.logits[rows, column], labels[rows], reduction="none"))
            done = first * len(strengths) + len(members) * len(losses)
            progress("cross-validating the probe", done, num_folds * len(strengths))
        groups.append(torch.stack(losses))
    return torch.cat(groups, dim=1).numpy()


def one_standard_error(log_loss: Float[np.ndarray, " s"], se: Float[np.ndarray, " s"]) -> int:
    """Index of the strongest penalty whose log-loss is at most the least plus that one's standard error.

    Args:
        log_loss, se: (S,), from the strongest to the weakest.

    >>> one_standard_error(np.array([3.0, 1.2, 1.0, 1.1]), np.array([0.1, 0.1, 0.3, 0.1]))
    1
    """
    best = int(log_loss.argmin())
    return int(np.flatnonzero(log_loss <= log_loss[best] + se[best])[0])


def _standardised(features: Features) -> tuple[Tensor, Tensor, Tensor]:
    """Float64 features less their mean, over the root-mean-square norm of that; the mean (D,) and the norm ()."""
    require_labelled(features)
    require_finite(features)
    values = features.values.double()
    mean = values.mean(dim=0)
    scale = (values - mean).square().sum(dim=1).mean().sqrt()
    require_unlike(features, scale)
    return (values - mean) / scale, mean, scale


def _down_to(l2: float) -> list[float]:
    """Strengths from the strongest down to `l2`, a third of a decade apart or less: each start is then a good one."""
    if l2 >= STRONGEST:
        return [l2]
    return np.geomspace(STRONGEST, l2, ceil(3 * log10(STRONGEST / l2)) + 1).tolist()


def _on_raw_features(
    solution: Solution, mean: Tensor, scale: Tensor, present: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """(K, D) weight and (K,) bias, float32, acting on raw features; classes that are not `present` never win."""
    weight = mean.new_zeros(num_classes, len(mean))
    bias = mean.new_full((num_classes,), ABSENT_BIAS)
    weight[present] = solution.weight[0] / scale
    bias[present] = solution.bias[0] - weight[present] @ mean
    return weight.float(), bias.float()

"""Linear discriminant analysis: one Gaussian a class, one covariance for all, shrunk so that it can be inverted.

    log p(x, y = k) = -½ (x - μ_k)ᵀ Σ⁻¹ (x - μ_k) + log π_k + a term common to the classes, linear in x but for that.

Shape letters: N images, D features, K classes, P of them with training images.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from headfirst.adapt.feature_models import accuracy_of, answer
from headfirst.adapt.gaussians import ClassStatistics, Prior, class_statistics, draw, drawn_features, over_all_classes
from headfirst.adapt.linear_probe import ABSENT_BIAS
from headfirst.adapt.refusals import raw_values
from headfirst.adapt.shared_covariance import SharedCovariance, oracle_shrinkage, principal
from headfirst.errors import InputError
from headfirst.types import Features, Predictions

_SINGULAR = 1e-12
"""Smallest eigenvalue of a covariance that is inverted, relative to the largest."""


@dataclass(frozen=True, kw_only=True)
class LDA:
    """One Gaussian a class with a shared covariance, in closed form.

    Σ = (1 - ρ) S + ρ (tr S / D) I with S = Σ_i (x_i - μ_{y_i})(x_i - μ_{y_i})ᵀ / (N - P), the pooled covariance within
    classes. Source: Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, 2nd ed., section 4.3; ρ as in
    `oracle_shrinkage`. Where every class has one image, S is zero: then Σ is the identity times the mean variance of
    all images, which makes the nearest class mean win.

    Deviations from scikit-learn: it divides by N and not by N - P, its shrinkage "auto" is that of Ledoit & Wolf for
    each class apart, and priors that are given weigh the classes' covariances too.

    Attributes:
        shrinkage: ρ in [0, 1]; None to choose it on the training features.
        prior: "shares" of the training images, or "uniform" over the classes that have any.

    >>> import torch
    >>> train = Features(
    ...     values=torch.tensor([[-1.0], [-0.9], [0.9], [1.0]]),
    ...     labels=torch.tensor([0, 0, 1, 1]),
    ...     classes=("cat", "dog"),
    ...     ids=("a", "b", "c", "d"),
    ...     split="train",
    ...     source="",
    ... )
    >>> LDA().fit(train).predict(torch.tensor([[-2.0], [3.0]])).tolist()
    [0, 1]
    """

    shrinkage: float | None = None
    prior: Prior = "shares"

    def __post_init__(self) -> None:
        if self.shrinkage is not None and not 0 <= self.shrinkage <= 1:
            raise InputError(f"shrinkage is a share in [0, 1], got {self.shrinkage}; None has it chosen")
        if self.prior not in ("shares", "uniform"):
            raise InputError(f"prior is 'shares' or 'uniform', got {self.prior!r}")

    def fit(self, features: Features) -> LDAModel:
        """Fit to labelled features.

        Raises:
            DataError: an unlabelled image, a feature that is not finite, fewer than two classes, features all alike.
            InputError: the covariance is singular under the `shrinkage` that was given.
        """
        statistics = class_statistics(features, prior=self.prior, what="LDA")
        shrinkage, covariance = self._covariance(statistics)
        offsets = statistics.means - statistics.centre
        weight = covariance.power(offsets, -1.0)
        bias = statistics.prior.log() - (weight * offsets).sum(dim=1) / 2 - weight @ statistics.centre
        num_classes = len(features.classes)
        return LDAModel(
            recipe=self,
            classes=features.classes,
            weight=over_all_classes(weight, statistics.present, num_classes),
            bias=over_all_classes(bias, statistics.present, num_classes, absent=ABSENT_BIAS),
            shrinkage=shrinkage,
            present=statistics.present,
            prior=statistics.prior,
            means=statistics.means,
            covariance=covariance,
            chosen_on="train" if self.shrinkage is None else "fixed",
        )

    def _covariance(self, statistics: ClassStatistics) -> tuple[float, SharedCovariance]:
        residuals, num_features = statistics.residuals, statistics.residuals.shape[1]
        eigenvalues, axes = principal(residuals, max(statistics.degrees, 1))
        mean_variance = float(eigenvalues.sum()) / num_features
        if self.shrinkage is not None:
            shrinkage = self.shrinkage
        elif statistics.says_nothing_within:
            shrinkage, mean_variance = 1.0, float(statistics.total_variances.mean())
        else:
            shrinkage = oracle_shrinkage(eigenvalues, num_features=num_features, degrees=statistics.degrees)
        remainder = shrinkage * mean_variance
        covariance = SharedCovariance(axes, (1 - shrinkage) * eigenvalues + remainder, remainder)
        if covariance.least <= _SINGULAR * float(covariance.variances.max()):
            raise InputError(
                f"the covariance within classes of {len(residuals)} images of {len(statistics.present)} classes is "
                f"singular in {num_features} dimensions with shrinkage {shrinkage:g}; give a larger one, or None to "
                "have it chosen"
            )
        return shrinkage, covariance


@dataclass(frozen=True, kw_only=True, eq=False)
class LDAModel:
    """A fitted linear discriminant.

    Attributes:
        recipe: what made it.
        classes: class names, in label order.
        weight: (K, D) float32, on raw features.
        bias: (K,) float32; -1e9 for a class without training images, which so never wins.
        shrinkage: ρ in use.
        present: (P,) the classes with training images.
        prior: (P,) float64, their probabilities.
        means: (P, D) float64.
        covariance: Σ, shared.
        chosen_on: "train" where the shrinkage was chosen there, "fixed" where it was given.
    """

    recipe: LDA
    classes: tuple[str, ...]
    weight: Float[Tensor, "k d"]
    bias: Float[Tensor, " k"]
    shrinkage: float
    present: Int[Tensor, " p"]
    prior: Float[Tensor, " p"]
    means: Float[Tensor, "p d"]
    covariance: SharedCovariance
    chosen_on: str

    @property
    def method(self) -> str:
        """`lda`."""
        return "lda"

    @property
    def classes_(self) -> tuple[str, ...]:
        """Class names in label order (scikit-learn's name for them)."""
        return self.classes

    def logits(self, values: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """(N, K) float32 log p(x, y) up to a term common to the classes with training images, uncalibrated."""
        return values.float() @ self.weight.T + self.bias

    def predict(self, inputs: Features | Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """(N,) index into `classes_` of the most likely class."""
        return self.logits(raw_values(inputs, self.classes)).argmax(dim=1)

    def predict_proba(self, inputs: Features | Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """(N, K) p(y | x), float64; uncalibrated."""
        return self.logits(raw_values(inputs, self.classes)).double().softmax(dim=1)

    def score(self, features: Features) -> float:
        """Accuracy on labelled features."""
        return accuracy_of(self, features)

    def predictions(self, features: Features, *, seed: int = 0) -> Predictions:
        """Logits of a split, labelled or not."""
        return answer(self, features, seed=seed)

    def sample(self, num: int, *, seed: int) -> Features:
        """`num` draws of p(x, y): a class by its prior, then features by its Gaussian.

        Draw i depends on (seed, i) alone.

        Raises:
            InputError: `num` below 1 or `seed` below 0.
        """
        rows, noise = draw(num, self.prior, self.means.shape[1], seed=seed)
        values = self.means[rows] + self.covariance.power(noise, 0.5)
        return drawn_features(values, self.present[rows], self.classes)

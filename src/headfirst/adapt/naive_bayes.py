"""Gaussian naive Bayes: one Gaussian a class in which the features are independent.

    log p(x, y = k) = Σ_d (-½ (x_d - μ_kd)² / v_kd - ½ log v_kd) + log π_k + const, quadratic in x

Shape letters: N images, D features, K classes, P of them with training images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.adapt.feature_models import accuracy_of, answer
from headfirst.adapt.gaussians import ClassStatistics, Prior, class_statistics, draw, drawn_features, over_all_classes
from headfirst.adapt.linear_probe import ABSENT_BIAS
from headfirst.adapt.refusals import raw_values
from headfirst.errors import InputError
from headfirst.types import Features, Predictions


@dataclass(frozen=True, kw_only=True)
class GaussianNaiveBayes:
    """One Gaussian a class with independent features, in closed form.

    v_kd = (Σ_{i of class k} (x_id - μ_kd)² + κ p_d) / (n_k - 1 + κ), at least `floor` · mean_d p_d. Here n_k counts the
    class's images and p_d is the variance of feature d within classes, pooled over them (N - P degrees of freedom).
    Where every class has one image, p_d is the variance of all images.

    Far from all classes, as features can be on a shift, the class of the largest variances wins whatever the means are;
    a large `pooling`, in the limit one variance a feature and a linear boundary, holds out better there.

    Source: Friedman, Regularized Discriminant Analysis, Journal of the American Statistical Association 84 (1989),
    equation 14, on the diagonal. Deviation: the pooled variance counts as κ degrees of freedom, whatever N is, and not
    as a share λ of all, so that it matters less the more images a class has. With κ = 0 this is scikit-learn's
    GaussianNB, but for n_k - 1 in place of n_k and a floor in place of a summand.

    Attributes:
        pooling: κ, degrees of freedom that the pooled variance counts as.
        floor: least variance, relative to the mean of the pooled ones.
        prior: "shares" of the training images, or "uniform" over the classes that have any.

    >>> train = Features(
    ...     values=torch.tensor([[-1.0], [-0.9], [0.9], [1.0]]),
    ...     labels=torch.tensor([0, 0, 1, 1]),
    ...     classes=("cat", "dog"),
    ...     ids=("a", "b", "c", "d"),
    ...     split="train",
    ...     source="",
    ... )
    >>> GaussianNaiveBayes().fit(train).predict(torch.tensor([[-2.0], [3.0]])).tolist()
    [0, 1]
    """

    pooling: float = 10.0
    floor: float = 1e-2
    prior: Prior = "shares"

    def __post_init__(self) -> None:
        if not 0 <= self.pooling < float("inf"):
            raise InputError(f"pooling must be finite and at least 0, got {self.pooling}")
        if not 0 < self.floor < float("inf"):
            raise InputError(f"floor must be positive and finite, got {self.floor}; no variance may be zero")
        if self.prior not in ("shares", "uniform"):
            raise InputError(f"prior is 'shares' or 'uniform', got {self.prior!r}")

    def fit(self, features: Features) -> NaiveBayesModel:
        """Fit to labelled features.

        Raises:
            DataError: an unlabelled image, a feature that is not finite, fewer than two classes, features all alike.
            InputError: without `pooling`, a class of one image.
        """
        statistics = class_statistics(features, prior=self.prior, what="naive Bayes")
        variances = self._variances(statistics, features)
        offsets = statistics.means - statistics.centre
        bias = statistics.prior.log() - (offsets.square() / variances + variances.log()).sum(dim=1) / 2
        present, num_classes = statistics.present, len(features.classes)
        return NaiveBayesModel(
            recipe=self,
            classes=features.classes,
            centre=statistics.centre.float(),
            square=over_all_classes(-0.5 / variances, present, num_classes),
            linear=over_all_classes(offsets / variances, present, num_classes),
            bias=over_all_classes(bias, present, num_classes, absent=ABSENT_BIAS),
            present=present,
            prior=statistics.prior,
            means=statistics.means,
            variances=variances,
        )

    def _variances(self, statistics: ClassStatistics, features: Features) -> Float[Tensor, "p d"]:
        squares, counts = statistics.residuals.square(), statistics.counts
        if self.pooling == 0 and bool((counts == 1).any()):
            alone = features.classes[int(statistics.present[counts == 1][0])]
            raise InputError(
                f"a class of one image has no variance of its own, and {alone!r} has one in {features.split!r}; give "
                "pooling above 0, or more images"
            )
        if statistics.says_nothing_within:
            pooled = statistics.total_variances
        else:
            pooled = squares.sum(dim=0) / statistics.degrees
        rows = torch.searchsorted(statistics.present, features.labels)
        own = squares.new_zeros(statistics.means.shape).index_add(0, rows, squares)
        variances = (own + self.pooling * pooled) / (counts - 1 + self.pooling)[:, None]
        return variances.clamp(min=self.floor * float(pooled.mean()))


@dataclass(frozen=True, kw_only=True, eq=False)
class NaiveBayesModel:
    """Fitted Gaussians of independent features.

    Attributes:
        recipe: what made it.
        classes: class names, in label order.
        centre: (D,) float32, what is subtracted from features first.
        square, linear: (K, D) float32, factors of the squared and of the plain centred features.
        bias: (K,) float32; -1e9 for a class without training images, which so never wins.
        present: (P,) the classes with training images.
        prior: (P,) float64, their probabilities.
        means, variances: (P, D) float64.
        chosen_on: "fixed": nothing is chosen.
    """

    recipe: GaussianNaiveBayes
    classes: tuple[str, ...]
    centre: Float[Tensor, " d"]
    square: Float[Tensor, "k d"]
    linear: Float[Tensor, "k d"]
    bias: Float[Tensor, " k"]
    present: Int[Tensor, " p"]
    prior: Float[Tensor, " p"]
    means: Float[Tensor, "p d"]
    variances: Float[Tensor, "p d"]
    chosen_on: str = "fixed"

    @property
    def method(self) -> str:
        """`naive-bayes`."""
        return "naive-bayes"

    @property
    def classes_(self) -> tuple[str, ...]:
        """Class names in label order (scikit-learn's name for them)."""
        return self.classes

    def logits(self, values: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """(N, K) float32 log p(x, y) up to a term common to the classes with training images, uncalibrated."""
        return quadratic_logits(values.float(), self.centre, self.square, self.linear, self.bias)

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
        """`num` draws of p(x, y): a class by its prior, then each feature by its Gaussian.

        Draw i depends on (seed, i) alone.

        Raises:
            InputError: `num` below 1 or `seed` below 0.
        """
        rows, noise = draw(num, self.prior, self.means.shape[1], seed=seed)
        values = self.means[rows] + self.variances[rows].sqrt() * noise
        return drawn_features(values, self.present[rows], self.classes)


def quadratic_logits(
    features: Float[Tensor, "n d"],
    centre: Float[Tensor, " d"],
    square: Float[Tensor, "k d"],
    linear: Float[Tensor, "k d"],
    bias: Float[Tensor, " k"],
) -> Float[Tensor, "n k"]:
    """Σ_d (square_kd z_d² + linear_kd z_d) + bias_k with z = features - centre.

    >>> one = torch.ones(1, 1)
    >>> quadratic_logits(3 * one, torch.ones(1), -one, 5 * one, torch.zeros(1))
    tensor([[6.]])
    """
    z = features - centre
    return z.square() @ square.T + z @ linear.T + bias

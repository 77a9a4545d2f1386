"""Accuracy as a power law of the number of labels, and what further labels would be worth.

    acc(k) = a - b k^(-c),    a ≤ 1,    b, c ≥ 0

fitted by least squares to accuracies measured at several k, each weighted by its k since their variance falls about
as 1/k. For a given c the best a and b are known in closed form, so the best of a grid of c is the optimum, with no
start to choose and no local one to end in.

An interval has two parts. What the curve is: seeds and validation images are resampled and the law fitted anew. Which
labels the next ones happen to be: with the labels in random order accuracy wanders around its law with a variance of
v / k, so that between j and k > j labels it moves by v (1/j - 1/k) more; the seeds, which all end at the same labels,
show v at every size.

Shape letters: S seeds (orders in which labels arrive), M sizes, N validation images, K classes, B draws, A abscissae.
Source: the law and its weights, Hoiem, Gupta, Li & Shlapentokh-Rothman, Learning Curves for Analysis of Deep Networks
(ICML 2021), section 3; resampling one fewer than there are, Rao & Wu, Resampling Inference with Complex Survey Data
(JASA 1988).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headfirst.errors import InputError
from headfirst.metrics import Interval, binomial_interval

LEAST_SIZES = 4
"""Sizes a curve needs: one more than the law has parameters."""

NUM_DRAWS = 1000

_EXPONENTS = torch.from_numpy(np.geomspace(0.02, 4.0, 640))
_ENTRIES_TOGETHER = 4_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class PowerLaw:
    """acc(k) = a - b (k / unit)^(-c), B of them; `unit` keeps the numbers tame.

    Attributes:
        a, b, c: (B,) float64; a ≤ 1, b ≥ 0, c > 0.
        unit: the largest k it was fitted to.
    """

    a: Float[Tensor, " B"]
    b: Float[Tensor, " B"]
    c: Float[Tensor, " B"]
    unit: float

    def __call__(self, k: Float[Tensor, " A"]) -> Float[Tensor, "B A"]:
        """Accuracies at `k`, rising in k and never above 1; 0 where the law falls below."""
        falling = (k.double() / self.unit) ** -self.c[:, None]
        return (self.a[:, None] - self.b[:, None] * falling).clamp(min=0.0)


def fit_power_law(k: Float[Tensor, " M"], accuracy: Float[Tensor, "B M"]) -> PowerLaw:
    """The least-squares laws of B curves measured at the same k.

    Args:
        k: positive, at least three different ones.
        accuracy: in [0, 1].

    Raises:
        InputError: fewer than three different k, or one that is not positive.

    >>> k = torch.tensor([5.0, 10.0, 20.0, 40.0, 80.0]).double()
    >>> law = fit_power_law(k, (0.9 - 0.8 * k**-0.5)[None])
    >>> law(torch.tensor([160.0])).round(decimals=2)                       # 0.9 - 0.8 / √160
    tensor([[0.8400]], dtype=torch.float64)
    """
    if len(k.unique()) < 3 or bool((k <= 0).any()):
        raise InputError(f"a power law needs at least three different positive sizes, got {k.tolist()}")
    k, y = k.double(), accuracy.double()
    unit = k.max().item()
    w = k / k.sum()
    x = (k / unit) ** -_EXPONENTS[:, None]  # (C, M): acc = a - b x
    mean_x, mean_y = x @ w, y @ w
    spread = (w * (x - mean_x[:, None]).square()).sum(dim=1)  # (C,)
    together = (w * (y - mean_y[:, None])) @ (x - mean_x[:, None]).T  # (B, C)
    b = (-together / spread).clamp(min=0.0)
    a = mean_y[:, None] + b * mean_x
    # Where the bound a ≤ 1 binds, the problem is convex, so its optimum has a = 1.
    bound = a > 1
    b = torch.where(bound, ((1 - y) * w) @ x.T / (w * x.square()).sum(dim=1), b)
    a = a.clamp(max=1.0)
    # Σ w (y - a + b x)², around the means of x and y.
    error = b.square() * spread + 2 * b * together + (mean_y[:, None] - a + b * mean_x).square()
    best = error.argmin(dim=1, keepdim=True)
    return PowerLaw(
        a=a.gather(1, best)[:, 0],
        b=b.gather(1, best)[:, 0],
        c=_EXPONENTS[best[:, 0]],
        unit=unit,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class LearningCurve:
    """Balanced accuracy measured at several sizes, its law, and the laws of the bootstrap draws.

    Attributes:
        k: (M,) labels at each size, ascending.
        accuracy: (M,) measured there, mean over seeds and classes.
        law: the fit (one law).
        draws: the fits to B resampled curves.
        wander: v above.
        resolution: share of all images that could behave otherwise without a validation image showing it (an exact
            binomial bound): half the width of an interval where all draws agree.
        seed: of the draws.
    """

    k: Float[Tensor, " M"]
    accuracy: Float[Tensor, " M"]
    law: PowerLaw
    draws: PowerLaw
    wander: float
    resolution: float
    seed: int

    def at(self, k: float, *, level: float = 0.95) -> Interval:
        """Accuracy with `k` labels, within [0, 1]: beyond the largest size, the labels there are and others."""
        where = torch.tensor([k], dtype=torch.float64)
        return self._around(self.law(where).item(), self.draws(where)[:, 0], k, (0.0, 1.0), level)

    def gain(self, more: float, *, level: float = 0.95) -> Interval:
        """What `more` labels add to those there are, within [-1, 1].

        The law cannot fall, so the value is never negative; the interval may reach below zero.
        """
        ends = torch.tensor([self.law.unit, self.law.unit + more], dtype=torch.float64)
        value, draws = self.law(ends).diff(dim=1), self.draws(ends).diff(dim=1)
        return self._around(value.item(), draws[:, 0], self.law.unit + more, (-1.0, 1.0), level)

    def _around(self, value: float, draws: Tensor, k: float, bounds: tuple[float, float], level: float) -> Interval:
        """value ± the `level` quantile of how far the draws, each gone its own way up to k, lie from it."""
        walk = np.random.default_rng(self.seed).standard_normal(len(draws))
        sd = (self.wander * max(0.0, 1 / self.law.unit - 1 / k)) ** 0.5
        half = torch.quantile((draws + sd * torch.from_numpy(walk) - value).abs(), level).item()
        half = half if half > 1e-9 else self.resolution
        return Interval(value, max(value - half, bounds[0]), min(value + half, bounds[1]))


def learning_curve(
    correct: Bool[Tensor, "S M N"], labels: Int[Tensor, " N"], k: Sequence[float], *, seed: int
) -> LearningCurve:
    """Fit the law to what was right and wrong on validation images.

    Args:
        correct: whether the classifier with k[m] labels, in the order of seed s, is right on image i.
        labels: of the validation images; each class that occurs counts alike.
        k: ascending.
        seed: of the resampling.

    Raises:
        InputError: fewer than four sizes, sizes that do not rise, a single seed.
    """
    sizes = torch.tensor(k, dtype=torch.float64)
    if len(sizes) < LEAST_SIZES or bool((sizes.diff() <= 0).any()):
        raise InputError(f"a learning curve needs at least {LEAST_SIZES} rising sizes, got {list(k)}")
    if len(correct) < 2:
        raise InputError("a learning curve needs at least two seeds, to see how much the choice of labels matters")
    member = labels[:, None] == labels.unique()  # (N, K)
    right = correct.double()
    by_seed = _balanced(right, torch.ones(len(right), len(labels), dtype=torch.float64), member)  # (S, M)
    accuracy = by_seed.mean(dim=0)
    return LearningCurve(
        k=sizes,
        accuracy=accuracy,
        law=fit_power_law(sizes, accuracy[None]),
        draws=fit_power_law(sizes, torch.cat(list(_resampled(right, member, seed)))),
        wander=(by_seed.var(dim=0)[:-1].sum() / (1 / sizes - 1 / sizes[-1])[:-1].sum()).item(),
        resolution=binomial_interval(0, member.shape[1] * int(member.sum(dim=0).min())).high,
        seed=seed,
    )


def _resampled(right: Tensor, member: Tensor, seed: int) -> Iterator[Tensor]:
    """(·, M) curves of drawn images and seeds, one fewer of the latter than there are."""
    s, m, n = right.shape
    random = np.random.default_rng((seed, s, m, n))
    for start in range(0, NUM_DRAWS, together := max(1, _ENTRIES_TOGETHER // (m * n))):
        draws = min(together, NUM_DRAWS - start)
        of_seeds = torch.from_numpy(random.multinomial(s - 1, np.full(s, 1 / s), size=draws)).double()
        of_images = torch.from_numpy(random.multinomial(n, np.full(n, 1 / n), size=draws)).double()
        share = (of_seeds @ right.flatten(1) / (s - 1)).unflatten(1, (m, n))
        yield _balanced(share, of_images, member)


def _balanced(share: Float[Tensor, "b M N"], weights: Float[Tensor, "b N"], member: Bool[Tensor, "N K"]) -> Tensor:
    """(b, M): mean over the classes drawn of the weighted mean of `share` over their images."""
    recalls = [
        (share[:, :, of_class] @ weights[:, of_class, None])[:, :, 0] / weights[:, of_class].sum(dim=1, keepdim=True)
        for of_class in member.T
    ]
    return torch.stack(recalls, dim=2).nanmean(dim=2)

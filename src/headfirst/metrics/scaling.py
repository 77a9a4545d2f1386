"""Calibration after the fact: logits divided by one temperature, or scaled and shifted class by class.

Shape letters: N images, K classes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize, root_scalar
from torch import Tensor

from headfirst.errors import InputError
from headfirst.metrics.checks import as_float64, check_logits, check_scores

RIDGE = 1e-6
"""Pull of vector scaling towards temperature scaling: without it, classes that are separable have no optimum."""

MAX_STEPS = 15_000
"""Of L-BFGS; a hundred are usual."""


def fit_temperature(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """The T > 0 that minimises the mean log-loss of `logits / T`, to float64 rounding.

    The loss is convex in β = 1/T: its slope f'(β) = mean(Σ_k softmax(β z)_k z_k - z_label) rises, and its root is
    bracketed and bisected. Dividing by T never changes a prediction, and T(k · logits) = k · T(logits).

    There is no root where every label's logit is its row's largest (T falls to 0), or where the labels' logits are
    on average no larger than the others' (T rises to infinity). Then T is the one whose mean confidence lies a
    share (N + 1)/(N + 2), or 1/(N + 2), of the way from that of T = ∞ to that of T = 0: as Laplace's rule of
    succession has it, N images right of N do not warrant certainty.

    Args:
        logits: (N, K), finite, of images that did not fit them; log-probabilities are logits.
        labels: (N,) in 0 … K-1.

    Raises:
        InputError: no rows, labels outside the classes, logits not finite, probabilities instead of logits, or
            rows whose logits are all equal.

    Source: Guo et al., ICML 2017, section 4.2.

    >>> z = torch.tensor([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [3.0, 0.0]])      # three of four right:
    >>> T = fit_temperature(z, torch.tensor([0, 0, 0, 1]))
    >>> round(float((z / T).softmax(dim=1)[0, 0]), 6)
    0.75
    """
    check_scores(logits, labels)
    check_logits(logits)
    z = as_float64(logits)
    d = z - z.amax(dim=1, keepdim=True)  # ≤ 0, so that exp(β d) never overflows
    spread = (d - d.mean(dim=1, keepdim=True)).square().mean().sqrt().item()
    if spread == 0:
        raise InputError("every row's logits are equal, so no temperature changes anything; did training collapse?")
    of_label = d.gather(1, labels.long().cpu()[:, None])[:, 0]

    def slope(beta: float) -> float:
        return ((beta * d).softmax(dim=1).mul(d).sum(dim=1) - of_label).mean().item()

    n, k = d.shape
    uniform, certain = 1 / k, (d == 0).sum(dim=1).double().reciprocal().mean().item()

    def confidence_above(share: float) -> Callable[[float], float]:
        target = uniform + share * (certain - uniform)
        return lambda beta: (beta * d).softmax(dim=1).amax(dim=1).mean().item() - target

    if bool((of_label == 0).all()):
        rising = confidence_above((n + 1) / (n + 2))
    elif slope(0.0) >= -1e-12 * spread:
        rising = confidence_above(1 / (n + 2))
    else:
        rising = slope
    return 1 / _root(rising, 1 / spread)


def _root(rising: Callable[[float], float], start: float) -> float:
    """Where a function that rises from below to above zero over (0, ∞) is zero."""
    low = high = start
    while rising(low) > 0:
        low /= 2
    while rising(high) < 0:
        high *= 2
    if low == high:
        return low
    # Brent's method: bisection, hastened by interpolation, to four units in the last place.
    found = root_scalar(
        rising, bracket=(low, high), method="brentq", xtol=sys.float_info.min, rtol=4 * sys.float_info.epsilon
    )
    return found.root


@dataclass(frozen=True, kw_only=True, eq=False)
class VectorScaling:
    """logits · scale + bias, class by class.

    Attributes:
        scale, bias: (K,) float64.
    """

    scale: Float[Tensor, " k"]
    bias: Float[Tensor, " k"]

    def __call__(self, logits: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """(N, K) float64 logits."""
        return as_float64(logits) * self.scale + self.bias


def fit_vector_scaling(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> VectorScaling:
    """A scale and a bias for each class that minimise the mean log-loss.

    Unlike a temperature they may change predictions, since classes are moved against each other: what is shipped
    uses the temperature, and this is for comparison. With T = `fit_temperature`, the loss is
    mean -log softmax(s ∘ z/T + b)[label] + RIDGE/2 (‖s - 1‖² + ‖b‖²); the ridge of 1e-6 makes the optimum unique
    where classes are separable, and moves it by less than images do elsewhere. scale = s/T.

    Args:
        logits: as in `fit_temperature`.
        labels: in [0, K).

    Raises:
        InputError: as `fit_temperature`.

    Source: Guo et al., ICML 2017, section 4.2. Deviation: the ridge.

    >>> z = torch.tensor([[0.0, 2.0], [0.0, 2.0], [0.0, 2.0], [0.0, 2.0]])      # one class only is ever predicted
    >>> scaled = fit_vector_scaling(z, torch.tensor([0, 0, 0, 1]))(z)
    >>> round(float(scaled.softmax(dim=1)[0, 0]), 4)
    0.75
    """
    temperature = fit_temperature(logits, labels)
    z = as_float64(logits) / temperature
    n, k = z.shape
    truth = torch.nn.functional.one_hot(labels.long().cpu(), k).double()

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        s, b = torch.from_numpy(parameters).reshape(2, k)
        log_p = (z * s + b).log_softmax(dim=1)
        error = log_p.exp() - truth
        gradient = torch.stack([(error * z).mean(dim=0) + RIDGE * (s - 1), error.mean(dim=0) + RIDGE * b])
        value = -(log_p * truth).sum() / n + RIDGE / 2 * ((s - 1).square().sum() + b.square().sum())
        return value.item(), gradient.flatten().numpy()

    start = np.concatenate([np.ones(k), np.zeros(k)])
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "ftol": 0, "maxiter": MAX_STEPS, "maxcor": 50}
    )
    if not (gradient := np.abs(found.jac).max()) <= 1e-7:
        raise InputError(
            f"vector scaling did not settle in {found.nit} steps (gradient {gradient:.2g}, not 1e-07); "
            "look for logits of very different sizes"
        )
    s, b = torch.from_numpy(found.x).reshape(2, k)
    return VectorScaling(scale=s / temperature, bias=b)

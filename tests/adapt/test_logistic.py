"""The solver against closed forms, scipy and scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize
from scipy.special import expit, logsumexp
from sklearn.linear_model import LogisticRegression

from headfirst.adapt import logistic
from headfirst.adapt.logistic import Solution, logistic_path
from headfirst.errors import DivergenceError, InputError

STRENGTHS = np.geomspace(1, 1e-8, 50).tolist()


def unit_norm_clusters(n: int, d: int, k: int, *, spread: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Clusters on the sphere around one common direction, standardised as the probe does."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % k
    decay = np.arange(1, d + 1) ** -0.5
    x = 2 * decay[0] + random.normal(size=(k, d))[labels] * decay + spread * random.normal(size=(n, d)) * decay
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    x = x - x.mean(axis=0)
    return torch.from_numpy(x / np.sqrt((x**2).sum(axis=1).mean())), torch.from_numpy(labels)


def uniform(n: int) -> torch.Tensor:
    return torch.full((1, n), 1 / n, dtype=torch.float64)


def objective_and_gradient(
    theta: np.ndarray, x: np.ndarray, labels: np.ndarray, l2: float, a: np.ndarray
) -> tuple[float, np.ndarray]:
    """NumPy, straight from the formula; theta is (K, D + 1) with the bias last."""
    k = labels.max() + 1
    theta = theta.reshape(k, -1)
    logits = x @ theta[:, :-1].T + theta[:, -1]
    logs = logits - logsumexp(logits, axis=1, keepdims=True)
    value = -(a * logs[np.arange(len(x)), labels]).sum() + l2 / 2 * (theta[:, :-1] ** 2).sum()
    residual = a[:, None] * (np.exp(logs) - np.eye(k)[labels])
    gradient = np.hstack([residual.T @ x + l2 * theta[:, :-1], residual.sum(axis=0)[:, None]])
    return float(value), gradient.ravel()


def check_optimum(solution: Solution, x: torch.Tensor, labels: torch.Tensor, a: torch.Tensor, f: int = 0) -> np.ndarray:
    """Objective and gradient recomputed in NumPy agree with what the solution says; returns its theta."""
    theta = torch.cat([solution.weight[f], solution.bias[f][:, None]], dim=1).numpy().ravel()
    problem = (x.numpy(), labels.numpy(), solution.l2, a[f].numpy())
    value, gradient = objective_and_gradient(theta, *problem)
    _, start = objective_and_gradient(np.zeros_like(theta), *problem)
    ratio = np.linalg.norm(gradient) / np.linalg.norm(start)
    assert ratio <= 1e-6
    assert ratio == pytest.approx(float(solution.gradient_ratio[f]), rel=1e-3, abs=1e-9)
    assert value == pytest.approx(float(solution.objective[f]), rel=1e-10)
    return theta


@pytest.mark.parametrize("l2", [10.0, 0.1, 1e-4, 1e-8])
def test_two_symmetric_points(l2: float) -> None:
    # x = -1 and 1: W = (-w, w), b = 0, and setting the derivative of log(1 + exp(-2w)) + λw² to zero leaves one root.
    x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    w = brentq(lambda w: expit(-2 * w) - l2 * w, 0, 100, xtol=1e-14)
    path = np.geomspace(20, l2, 30).tolist()
    *_, solution = logistic_path(x, torch.tensor([0, 1]), path, sample_weights=uniform(2))
    # a gradient of g leaves an error of at most g / λ, and near the optimum far less
    torch.testing.assert_close(solution.weight[0, :, 0], torch.tensor([-w, w], dtype=torch.float64), rtol=1e-4, atol=0)
    torch.testing.assert_close(solution.bias[0], torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-6)
    assert float(solution.objective) == pytest.approx(np.logaddexp(0, -2 * w) + l2 * w**2, rel=1e-6)


def test_without_signal_the_bias_is_the_log_of_the_class_shares() -> None:
    # The same two points under every class: W = 0 and softmax(b) is the share of each class.
    x = torch.tensor([[-1.0], [1.0]] * 10, dtype=torch.float64)
    labels = torch.tensor([0] * 12 + [1] * 6 + [2] * 2)
    *_, solution = logistic_path(x, labels, STRENGTHS, sample_weights=uniform(20))
    assert solution.weight.abs().max() < 1e-4
    shares = solution.bias[0].softmax(dim=0)
    torch.testing.assert_close(shares, torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64), rtol=1e-5, atol=0)


def test_exclusive_or_is_beyond_a_linear_head() -> None:
    # The gradient vanishes at zero weights: that is the optimum, and nothing is divided by its norm.
    x = torch.tensor([[-1, -1], [-1, 1], [1, -1], [1, 1]], dtype=torch.float64) / 2**0.5
    for solution in logistic_path(x, torch.tensor([0, 1, 1, 0]), STRENGTHS, sample_weights=uniform(4)):
        assert float(solution.objective) == pytest.approx(np.log(2))
        assert solution.weight.abs().max() < 1e-6
        assert float(solution.gradient_ratio) <= 1e-6


@pytest.mark.parametrize(("n", "d"), [(90, 12), (24, 60)])
@pytest.mark.parametrize("spread", [0.3, 1.5])
def test_objective_and_gradient_against_scipy(n: int, d: int, spread: float) -> None:
    x, labels = unit_norm_clusters(n, d, 4, spread=spread)
    a = uniform(n)
    for solution in logistic_path(x, labels, STRENGTHS, sample_weights=a):
        theta = check_optimum(solution, x, labels, a)
        if solution.l2 in STRENGTHS[::12]:
            problem = (x.numpy(), labels.numpy(), solution.l2, a[0].numpy())
            options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 0, "gtol": 1e-13, "maxcor": 50}
            best = minimize(
                objective_and_gradient, np.zeros_like(theta), problem, "L-BFGS-B", jac=True, options=options
            )
            # neither below what is possible, nor above it by more than promised
            assert float(solution.objective) == pytest.approx(best.fun, rel=1e-6)


def test_never_above_sklearn_which_stops_short_at_its_default_tolerance() -> None:
    x, labels = unit_norm_clusters(240, 48, 12, spread=0.6)
    a = uniform(240)
    *_, solution = logistic_path(x, labels, STRENGTHS, sample_weights=a)
    excess = []
    for tolerance in (1e-4, 1e-12):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other = LogisticRegression(C=1 / (240 * solution.l2), tol=tolerance, max_iter=10_000)
            other.fit(x.numpy(), labels.numpy())
        theta = np.hstack([other.coef_, other.intercept_[:, None]]).ravel()
        value, _ = objective_and_gradient(theta, x.numpy(), labels.numpy(), solution.l2, a[0].numpy())
        excess.append(value / float(solution.objective) - 1)
    assert excess[0] > 0.1  # the default
    assert abs(excess[1]) < 1e-6  # the same optimum once it is made to converge


def test_weightings_side_by_side_are_those_one_by_one() -> None:
    x, labels = unit_norm_clusters(60, 20, 3, spread=1.0)
    random = torch.Generator().manual_seed(0)
    a = torch.rand(4, 60, generator=random, dtype=torch.float64)
    a[1, :15] = 0
    a[2] = 1
    a = a / a.sum(dim=1, keepdim=True)
    together = logistic_path(x, labels, STRENGTHS, sample_weights=a)
    alone = [logistic_path(x, labels, STRENGTHS, sample_weights=a[f : f + 1]) for f in range(4)]
    for all_of_them, *each in zip(together, *alone, strict=True):
        for f, single in enumerate(each):
            check_optimum(all_of_them, x, labels, a, f)
            assert float(all_of_them.objective[f]) == pytest.approx(float(single.objective), rel=1e-6)
            # predictions too, held-out rows included
            torch.testing.assert_close(
                all_of_them.logits[:, f].softmax(1), single.logits[:, 0].softmax(1), rtol=0, atol=2e-4
            )


def test_rows_of_weight_zero_leave_no_trace() -> None:
    x, labels = unit_norm_clusters(60, 20, 3, spread=1.0)
    a = (torch.arange(60) >= 12).double()[None] / 48
    *_, masked = logistic_path(x, labels, STRENGTHS[:30], sample_weights=a)
    *_, without = logistic_path(x[12:], labels[12:], STRENGTHS[:30], sample_weights=uniform(48))
    torch.testing.assert_close(masked.weight, without.weight, rtol=2e-3, atol=1e-3)


def test_repeating_a_row_is_doubling_its_weight() -> None:
    x, labels = unit_norm_clusters(40, 8, 2, spread=2.0)
    a = torch.ones(1, 40, dtype=torch.float64)
    a[0, :10] = 2
    *_, weighted = logistic_path(x, labels, STRENGTHS[:30], sample_weights=a / 50)
    *_, repeated = logistic_path(
        torch.cat([x, x[:10]]), torch.cat([labels, labels[:10]]), STRENGTHS[:30], sample_weights=uniform(50)
    )
    torch.testing.assert_close(weighted.weight, repeated.weight, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("strengths", [[1e-8], [1.0, 1e-6], [1.0, 0.99, 1e-7], [1e-3, 1e-5, 0.99e-5]])
def test_the_optimum_does_not_depend_on_the_way_there(strengths: list[float]) -> None:
    x, labels = unit_norm_clusters(60, 20, 3, spread=1.0)
    for solution in logistic_path(x, labels, strengths, sample_weights=uniform(60)):
        way = np.geomspace(2, solution.l2, 40).tolist()
        *_, by_the_path = logistic_path(x, labels, way, sample_weights=uniform(60))
        assert float(solution.objective) == pytest.approx(float(by_the_path.objective), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_features_that_were_not_scaled(scale: float) -> None:
    x, labels = unit_norm_clusters(60, 20, 3, spread=1.0)
    x = x * scale + 3 * scale
    a = uniform(60)
    for solution in logistic_path(x, labels, [scale**2 * s for s in STRENGTHS[::3]], sample_weights=a):
        check_optimum(solution, x, labels, a)


def test_classes_sum_to_zero_and_logits_are_those_of_weight_and_bias() -> None:
    x, labels = unit_norm_clusters(30, 50, 3, spread=0.2)
    for solution in logistic_path(x, labels, STRENGTHS, sample_weights=uniform(30)):
        size = solution.weight.abs().max()
        assert solution.weight.sum(dim=1).abs().max() < 1e-12 * size
        assert solution.bias.sum().abs() < 1e-12
        logits = x @ solution.weight[0].T + solution.bias[0]
        torch.testing.assert_close(solution.logits[:, 0].log_softmax(1), logits.log_softmax(1), rtol=0, atol=1e-8)


def test_a_class_on_the_verge_of_being_separable() -> None:
    # One fold of this problem has weights near 1,000 at the end: too ill-conditioned for float32 to propose a step.
    random = torch.Generator().manual_seed(1)
    labels = torch.arange(24) % 3
    x = torch.randn(3, 5, generator=random)[labels] + torch.randn(24, 5, generator=random)
    x = x.double() - x.double().mean(dim=0)
    x = x / x.square().sum(dim=1).mean().sqrt()
    a = uniform(24)
    for solution in logistic_path(x, labels, STRENGTHS, sample_weights=a):
        check_optimum(solution, x, labels, a)


def test_strengths_must_fall() -> None:
    x, labels = unit_norm_clusters(30, 10, 3, spread=1.0)
    with pytest.raises(InputError, match=r"strengths must fall from each to the next, got \[0.1, 1.0\]; sort them"):
        next(logistic_path(x, labels, [0.1, 1.0], sample_weights=uniform(30)))


def test_giving_up_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = unit_norm_clusters(30, 10, 3, spread=1.0)
    monkeypatch.setattr(logistic, "_MAX_NEWTON_STEPS", 1)
    with pytest.raises(DivergenceError, match=r"at l2=1e-08 must reach a gradient of 1e-06 .* use a stronger l2"):
        list(logistic_path(x, labels, [1e-8], sample_weights=uniform(30)))

"""Multinomial logistic regression along a path of L2 strengths, each solved to its optimum.

    f(W, b) = Σ_i a_i · CE(softmax(W x_i + b), y_i) + λ/2 ‖W‖²,    Σ_i a_i = 1, the bias b unpenalised.

With logits o_i that a prior already gives each row, W is the departure from it and there is no free bias:

    f(W) = Σ_i a_i · CE(softmax(o_i + W x_i), y_i) + λ/2 ‖W‖².

Truncated Newton (Nocedal & Wright, Numerical Optimization, 2nd ed., algorithm 7.1): conjugate gradients on the
Hessian, never formed, in the eigenbasis of XᵀX, where one number an eigenvector makes a good preconditioner. Each
strength starts from an extrapolation of the last solutions. Objective and gradient are float64; the products with
the Hessian, which only propose a step, are float32. Several weightings `a` of the same rows (the folds of a
cross-validation: zero for what is held out) are solved side by side, as columns of one matrix.

Shape letters: N rows, D features, K classes, F weightings, R coordinates: min(N, D), and the free bias if there is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.errors import DivergenceError, InputError

GRADIENT_RATIO = 1e-6
"""Largest norm of the gradient at a solution, relative to its norm where all classes are equally probable."""

OBJECTIVE_GAP = 1e-6
"""Largest ‖gradient‖² / (2λf) at a solution: f is λ-strongly convex in W, so this bounds its relative excess."""

_FLOAT32_CONDITION = 1e-5  # λ over the largest curvature, below which float32 rounding (6e-8) would disturb a step
_MAX_NEWTON_STEPS = 100
_MAX_CG_STEPS = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """The optimum at one strength, for every weighting.

    Attributes:
        l2: λ.
        weight: (F, K, D) float64, summing to zero over classes.
        bias: (F, K) float64, likewise; zero where a prior gave logits.
        logits: (N, F, K) float64, of all rows, held-out ones and the prior's share included.
        objective: (F,), `f` above.
        gradient_ratio: (F,), norm of the gradient relative to its norm where all classes are equally probable.
    """

    l2: float
    weight: Float[Tensor, "F K D"]
    bias: Float[Tensor, "F K"]
    logits: Float[Tensor, "N F K"]
    objective: Float[Tensor, " F"]
    gradient_ratio: Float[Tensor, " F"]


def logistic_path(
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    strengths: Sequence[float],
    *,
    sample_weights: Float[Tensor, "F N"],
    prior_logits: Float[Tensor, "N K"] | None = None,
) -> Iterator[Solution]:
    """Solve for each of `strengths` in turn, from strong to weak: each starts from those before it.

    Args:
        x: (N, D) float64, centred, root-mean-square norm near one (for conditioning; any x has its optimum).
        labels: (N,) in 0 … K-1; every class present under every weighting, else its bias has no optimum.
            With a prior any class may be absent.
        strengths: λ > 0, falling, evenly in the logarithm (for good starts; the optimum does not depend on it).
        sample_weights: (F, N) float64, non-negative, each row summing to one.
        prior_logits: (N, K) float64, o above; None for none, and a free bias.

    Yields:
        One `Solution` a strength.

    Raises:
        InputError: the strengths do not fall.
        DivergenceError: a strength did not reach its optimum.
    """
    if any(later >= earlier for earlier, later in pairwise(strengths)):
        raise InputError(f"strengths must fall from each to the next, got {list(strengths)}; sort them")
    z, basis = _eigenbasis(x)
    if prior_logits is None:
        z = torch.cat([z, z.new_ones(len(z), 1)], dim=1)
    problem = _Problem(z, labels, sample_weights, prior_logits, num_penalised=basis.shape[1])
    num_classes = int(labels.max()) + 1 if prior_logits is None else prior_logits.shape[1]
    point = problem.at(z.new_zeros(z.shape[1], len(sample_weights), num_classes))
    # Where labels and features have nothing in common the gradient vanishes at zero, and rounding must not be its unit.
    start = torch.maximum(problem.uninformed(num_classes), 1e-8 * problem.scatter.sum(dim=(0, 2)).sqrt())
    solved: list[tuple[float, _Point]] = []
    for l2 in strengths:
        if len(solved) > 1:
            ahead = problem.at(*_extrapolate(solved, l2))
            point = ahead if bool((ahead.objective(l2) < point.objective(l2)).all()) else point
        point = _minimise(problem, point, l2, start)
        solved = [*solved, (l2, point)][-3:]
        yield Solution(
            l2=l2,
            weight=_columns(basis, point.theta[: problem.num_penalised]).permute(1, 2, 0),
            bias=point.theta[problem.num_penalised :].sum(dim=0),
            logits=point.moved if prior_logits is None else point.moved + prior_logits[:, None],
            objective=point.objective(l2),
            gradient_ratio=_norm(point.gradient(l2)) / start,
        )


def _eigenbasis(x: Tensor) -> tuple[Tensor, Tensor]:
    """The rows in the eigenbasis of XᵀX within their span, and that basis, (D, min(N, D))."""
    basis = torch.linalg.qr(x.T).Q if x.shape[0] < x.shape[1] else torch.eye(x.shape[1], dtype=x.dtype)
    z = x @ basis
    rotation = torch.linalg.eigh(z.T @ z).eigenvectors
    return z @ rotation, basis @ rotation


@dataclass(frozen=True, eq=False)
class _Point:
    """A point, and what is known of it whatever λ is."""

    theta: Tensor  # (R, F, K): Wᵀ in the eigenbasis, the free bias below it
    moved: Tensor  # (N, F, K): logits, less the prior's
    probabilities: Tensor  # (N, F, K)
    loss: Tensor  # (F,)
    data_gradient: Tensor  # (R, F, K)
    num_penalised: int

    def objective(self, l2: float) -> Tensor:
        return self.loss + l2 / 2 * self.theta[: self.num_penalised].square().sum(dim=(0, 2))

    def gradient(self, l2: float) -> Tensor:
        return _add_penalty(self.data_gradient.clone(), l2, self.theta, self.num_penalised)


class _Problem:
    """Rows, labels and weightings: loss and gradient `at` a point, and the `rows` the Hessian is made of."""

    def __init__(
        self, z: Tensor, labels: Tensor, sample_weights: Tensor, prior_logits: Tensor | None, *, num_penalised: int
    ) -> None:
        self.num_penalised = num_penalised
        self.prior = None if prior_logits is None else prior_logits[:, None]  # (N, 1, K)
        self.z, self.z_transposed = z, z.T.contiguous()
        self.rounded = self.z.float(), self.z_transposed.float()
        self.labels = labels[:, None, None].expand(-1, len(sample_weights), 1)  # (N, F, 1)
        self.a = sample_weights.T[:, :, None]  # (N, F, 1)
        self.scatter = _columns(self.z_transposed.square(), self.a)  # (R, F, 1): diagonal of Σ a_i z_i z_iᵀ

    def at(self, theta: Tensor, moved: Tensor | None = None) -> _Point:
        moved = _columns(self.z, theta) if moved is None else moved
        log_probabilities = (moved if self.prior is None else moved + self.prior).log_softmax(dim=2)
        loss = -(self.a * log_probabilities.gather(2, self.labels)).sum(dim=(0, 2))
        probabilities = log_probabilities.exp()
        residual = self.a * probabilities.scatter_add(2, self.labels, -torch.ones_like(self.a))
        gradient = _columns(self.z_transposed, residual)
        return _Point(theta, moved, probabilities, loss, gradient, self.num_penalised)

    def uninformed(self, num_classes: int) -> Tensor:
        """(F,) norm of the loss's gradient where every class is equally probable, whatever a prior says."""
        residual = (self.a / num_classes).expand(-1, -1, num_classes).scatter_add(2, self.labels, -self.a)
        return _norm(_columns(self.z_transposed, residual))

    def rows(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return self.rounded if dtype == torch.float32 else (self.z, self.z_transposed)


def _minimise(problem: _Problem, point: _Point, l2: float, start: Tensor) -> _Point:
    """Newton steps until gradient and objective gap are as small as promised, for every weighting."""
    for _ in range(_MAX_NEWTON_STEPS):
        gradient = point.gradient(l2)
        size = _norm(gradient)
        wanted = torch.minimum(GRADIENT_RATIO * start, (2 * OBJECTIVE_GAP * l2 * point.objective(l2)).sqrt())
        if bool((size <= wanted).all()):
            return point
        # The square root makes the steps converge superlinearly; the floor spares accuracy nobody asked for.
        accuracy = torch.maximum((size / start).sqrt().clamp(max=0.1), wanted / (2 * size))
        step = _newton_step(problem, point, gradient, l2, accuracy)
        point = _line_search(problem, point, step, (gradient * step).sum(dim=(0, 2)), l2)
    ratio = float((_norm(point.gradient(l2)) / start).max())
    raise DivergenceError(
        f"logistic regression at l2={l2:.3g} must reach a gradient of {GRADIENT_RATIO:.0e} of its start, but is at "
        f"{ratio:.1e} after {_MAX_NEWTON_STEPS} Newton steps; use a stronger l2"
    )


def _newton_step(problem: _Problem, point: _Point, gradient: Tensor, l2: float, accuracy: Tensor) -> Tensor:
    """Conjugate gradients until the residual is `accuracy` (F,) of the gradient; a descent direction at any length."""
    # The Hessian's diagonal, averaged over classes so that Σ_k W_k = 0 is kept.
    curvature = (problem.a * point.probabilities * (1 - point.probabilities)).sum(dim=0).mean(dim=1, keepdim=True)
    count = problem.num_penalised
    diagonal = _add_penalty(problem.scatter * curvature, l2, torch.ones_like(problem.scatter), count)
    dtype = torch.float32 if l2 > _FLOAT32_CONDITION * float(diagonal.max()) else torch.float64
    z, z_transposed = problem.rows(dtype)
    p, ap, diagonal = point.probabilities.to(dtype), (problem.a * point.probabilities).to(dtype), diagonal.to(dtype)
    scale = _norm(gradient).clamp(min=1e-300)[:, None]  # keeps squares within float32's range
    residual = -(gradient / scale).to(dtype)
    step = torch.zeros_like(residual)
    direction = preconditioned = residual / diagonal
    energy = (residual * preconditioned).sum(dim=(0, 2))
    for _ in range(_MAX_CG_STEPS):
        active = _norm(residual) > accuracy
        if not bool(active.any()):
            break
        along = _columns(z, direction)
        along = ap * (along - torch.linalg.vecdot(p, along)[:, :, None])
        product = _add_penalty(_columns(z_transposed, along), l2, direction, count)
        length = torch.where(active, energy / (direction * product).sum(dim=(0, 2)), 0)[:, None]
        step += length * direction
        residual -= length * product
        preconditioned = residual / diagonal
        before, energy = energy, (residual * preconditioned).sum(dim=(0, 2))
        direction = preconditioned + torch.where(active, energy / before, 0)[:, None] * direction
    step = scale * step.double()
    return step - step.mean(dim=2, keepdim=True)  # the softmax ignores a constant over classes; so did all but rounding


def _line_search(problem: _Problem, point: _Point, step: Tensor, slope: Tensor, l2: float) -> _Point:
    """Halve each weighting's step until Armijo's rule holds, up to rounding."""
    objective = point.objective(l2)
    length = torch.ones_like(objective)
    while True:
        ahead = problem.at(point.theta + length[:, None] * step)
        enough = ahead.objective(l2) <= objective * (1 + 1e-14) + 1e-4 * length * slope
        if bool((enough | (length < 1e-12)).all()):
            return ahead
        length = torch.where(enough, length, length / 2)


def _extrapolate(solved: Sequence[tuple[float, _Point]], l2: float) -> tuple[Tensor, Tensor]:
    """θ at `l2` and what it moves the logits by: the polynomial in log λ through the last θ, of λθ while θ ∝ 1/λ."""
    (before, first), (last, second) = solved[-2:]
    power = int(second.theta.norm() > (before / last) ** 0.5 * first.theta.norm())
    signs = (-1, 2) if len(solved) == 2 else (1, -3, 3)
    factors = [sign * (strength / l2) ** power for sign, (strength, _) in zip(signs, solved, strict=True)]
    theta, moved = torch.zeros_like(second.theta), torch.zeros_like(second.moved)
    for factor, (_, point) in zip(factors, solved, strict=True):
        theta.add_(point.theta, alpha=factor)
        moved.add_(point.moved, alpha=factor)
    return theta, moved


def _columns(matrix: Tensor, columns: Tensor) -> Tensor:
    """`matrix` times each of the (·, F, K) columns."""
    return (matrix @ columns.flatten(1)).unflatten(1, columns.shape[1:])


def _add_penalty(gradient: Tensor, l2: float, theta: Tensor, count: int) -> Tensor:
    """Adds λW to a data term, in place, in the first `count` coordinates; a free bias has no penalty."""
    gradient[:count] += l2 * theta[:count]
    return gradient


def _norm(theta: Tensor) -> Tensor:
    """(F,) norms of (R, F, K)."""
    return torch.linalg.vector_norm(theta, dim=(0, 2))

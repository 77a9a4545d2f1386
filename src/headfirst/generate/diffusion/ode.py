"""Ordinary differential equations with a step of its own length wherever the error asks for it.

What enters: dy/dt = f(y, t), y at the beginning, a tolerance. What leaves: y at the end, how often f was asked, and how
wrong the steps believe they were.

Dormand & Prince's pair of orders five and four ("A family of embedded Runge-Kutta formulae", J. Comp. Appl. Math. 6,
1980), the fifth carried on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from headfirst.errors import DivergenceError

_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""Weights of the fifth order less those of the fourth."""

SHORTEST = 1e-7
"""Share of the way: shorter steps are asked for by rounding alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """y at the end; `error`: the sum of what each step estimates of its own, as `norm` measures it."""

    y: Tensor
    num_evaluations: int
    error: float


def dormand_prince(
    f: Callable[[Tensor, float], Tensor],
    y: Tensor,
    begin: float,
    end: float,
    *,
    tolerance: float,
    norm: Callable[[Tensor, Tensor], float],
    most: int,
) -> Solution:
    """Integrate from `begin` to `end`, each step allowed its share of the tolerance by its length.

    No step is longer than the share 0.8 ε^(1/5) of the way, within 1/6 and 1/2, the first half as long: over longer
    ones the two orders may agree, and both be wrong.

    Args:
        f: of y and t.
        tolerance: of the sum of all steps' errors.
        norm: of (error, y): how large an error is.
        most: evaluations after which it is given up, as it is with steps shorter than `SHORTEST`.

    Raises:
        DivergenceError: more evaluations, or numbers that are not finite; says how far it came.
    """
    whole = end - begin
    longest = whole * min(1 / 2, max(1 / 6, 0.8 * tolerance**0.2))
    t, step = begin, longest / 2
    slopes = [f(y, t)]
    asked, error = 1, 0.0
    while t != end:
        if abs(step) >= abs(end - t) * (1 - 1e-12):
            step = end - t
        ahead = y
        for node, weights in zip(_NODES[1:], _STAGES[1:], strict=True):
            ahead = y
            for slope, weight in zip(slopes, weights, strict=True):
                if weight:
                    ahead = ahead.add(slope, alpha=step * weight)
            slopes.append(f(ahead, t + node * step))
        asked += 6
        wrong = sum(slope * (step * weight) for slope, weight in zip(slopes, _ERROR, strict=True) if weight)
        assert isinstance(wrong, Tensor)
        found = norm(wrong, ahead)
        ratio = found / (tolerance * abs(step / whole))
        if ratio <= 1:
            t = end if step == end - t else t + step
            y, slopes, error = ahead, [slopes[-1]], error + found
        else:
            slopes = slopes[:1]
        step *= min(2.0, longest / step, max(0.2, 0.9 * max(ratio, 1e-10) ** -0.25))
        if t != end and (asked >= most or ratio != ratio or abs(step) < SHORTEST * abs(whole)):
            raise DivergenceError(
                f"the tolerance {tolerance:g} was not met in {asked} evaluations: {abs((t - begin) / whole):.0%} of "
                f"the way was covered with an error of {error:.2g}; ask for less, or for more precision (float64)"
            )
    return Solution(y=y, num_evaluations=asked, error=error)

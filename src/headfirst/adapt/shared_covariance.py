"""A covariance shared by Gaussian classes: by its eigenvectors, and shrunk so that it can be inverted.

Shape letters: N rows, D features, R eigenvectors: min(N, D).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class SharedCovariance:
    """A covariance by its eigenvectors; of those that are not listed, all have one eigenvalue.

    Attributes:
        axes: (D, R) orthonormal.
        variances: (R,) along them.
        remainder: variance along every direction orthogonal to them.
    """

    axes: Float[Tensor, "d r"]
    variances: Float[Tensor, " r"]
    remainder: float

    @property
    def least(self) -> float:
        """The smallest eigenvalue."""
        least = float(self.variances.min())
        return least if self._complete else min(least, self.remainder)

    @property
    def _complete(self) -> bool:
        return self.axes.shape[0] == self.axes.shape[1]

    def power(self, rows: Float[Tensor, "n d"], exponent: float) -> Float[Tensor, "n d"]:
        """(N, D) each row times Σ to the power: -1 solves, ½ colours white noise.

        >>> SharedCovariance(torch.tensor([[1.0], [0.0]]), torch.tensor([4.0]), 9.0).power(torch.ones(1, 2), 0.5)
        tensor([[2., 3.]])
        """
        along = rows @ self.axes
        inside = (along * self.variances**exponent) @ self.axes.T
        if self._complete:
            return inside
        return inside + self.remainder**exponent * (rows - along @ self.axes.T)


def oracle_shrinkage(eigenvalues: Float[Tensor, " r"], *, num_features: int, degrees: int) -> float:
    """Oracle approximating shrinkage of a covariance S of Gaussian draws towards (tr S / p) I, in [0, 1].

    ρ = ((1 - 2/p) tr S² + tr² S) / ((n + 1 - 2/p) (tr S² - tr² S / p)), at most 1

    Args:
        eigenvalues: those of S that are not zero, p of them or fewer.
        num_features: p.
        degrees: n, S being a Wishart matrix of n degrees of freedom over n.

    Source: Chen, Wiesel, Eldar & Hero, Shrinkage Algorithms for MMSE Covariance Estimation, IEEE Transactions on Signal
    Processing 58 (2010), equation 23, where n draws have a known mean. About estimated means of P classes the residuals
    of N draws have N - P degrees of freedom, so that is what n is here. scikit-learn's `oas` leaves out the two 2/p and
    counts N.

    >>> oracle_shrinkage(torch.tensor([3.0, 1.0]), num_features=2, degrees=7)
    1.0
    >>> oracle_shrinkage(torch.tensor([9.0, 1.0]), num_features=2, degrees=24)
    0.13020833333333334
    """
    p = num_features
    trace, trace_of_square = float(eigenvalues.sum()), float(eigenvalues.square().sum())
    above = (1 - 2 / p) * trace_of_square + trace**2
    below = (degrees + 1 - 2 / p) * (trace_of_square - trace**2 / p)
    return 1.0 if above >= below else above / below


def principal(residuals: Tensor, degrees: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues (R,) and eigenvectors (D, R) of residualsᵀ residuals / degrees; all others are zero."""
    if residuals.shape[0] < residuals.shape[1]:
        _, singular, axes = torch.linalg.svd(residuals, full_matrices=False)
        return singular.square() / degrees, axes.T
    eigenvalues, axes = torch.linalg.eigh(residuals.T @ residuals / degrees)
    return eigenvalues.clamp(min=0), axes

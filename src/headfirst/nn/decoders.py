"""What the numbers that a decoder network gives for each pixel mean: a distribution of grey values.

What enters: the network's output, (N, O, S, S), any finite numbers. What leaves: nats, or the mean image.

Shape letters: N images, C channels, O outputs a pixel, S pixels a side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from headfirst.errors import InputError
from headfirst.nn.likelihoods import (
    bernoulli_log_likelihood,
    discretised_logistic_log_likelihood,
    gaussian_log_likelihood,
)

_BEGIN = -2.0
"""Log-scale, and log-variance, where the network gives 0: pixels of (0, 1) before anything is learned."""
_LOG_SCALES = (-7.0, 4.0)
_LOG_VARIANCES = (-2 * math.log(255), 4.0)


@runtime_checkable
class Decoder(Protocol):
    """A distribution of images, given what a network says of each pixel."""

    name: ClassVar[str]

    def num_outputs(self, channels: int) -> int:
        """O for C channels."""
        ...

    def log_likelihood(self, output: Tensor, target: Tensor) -> Float[Tensor, " n"]:
        """log p(x | output) in nats; `target` (N, C, S, S) in [0, 1]."""
        ...

    def mean(self, output: Tensor) -> Float[Tensor, "n c s s"]:
        """E[x | output], in [0, 1]."""
        ...


@dataclass(frozen=True, kw_only=True)
class BernoulliDecoder:
    """Logits. A likelihood of black and white pixels; of grey ones a score (`bernoulli_log_likelihood`)."""

    name: ClassVar[str] = "bernoulli"

    def num_outputs(self, channels: int) -> int:
        """See `Decoder`."""
        return channels

    def log_likelihood(self, output: Tensor, target: Tensor) -> Float[Tensor, " n"]:
        """See `Decoder`."""
        return bernoulli_log_likelihood(output, target)

    def mean(self, output: Tensor) -> Float[Tensor, "n c s s"]:
        """See `Decoder`."""
        return output.sigmoid()


@dataclass(frozen=True, kw_only=True)
class GaussianDecoder:
    """Means, and log-variances unless `variance` fixes them.

    Attributes:
        variance: σ² of every pixel, grey values in [0, 1]; None learns each pixel's, down to the square of one grey
            step, (1/255)²: below it the density of images in steps grows without bound.
    """

    variance: float | None = None

    name: ClassVar[str] = "gaussian"

    def __post_init__(self) -> None:
        if self.variance is not None and not 0 < self.variance < float("inf"):
            raise InputError(f"variance must be positive and finite, or None to learn it, got {self.variance}")

    def num_outputs(self, channels: int) -> int:
        """See `Decoder`."""
        return channels if self.variance is not None else 2 * channels

    def log_likelihood(self, output: Tensor, target: Tensor) -> Float[Tensor, " n"]:
        """See `Decoder`. A density: comparable with no discrete decoder's nats."""
        if self.variance is not None:
            return gaussian_log_likelihood(output, output.new_tensor(math.log(self.variance)), target)
        mean, log_variance = output.chunk(2, dim=1)
        return gaussian_log_likelihood(mean, (log_variance + _BEGIN).clamp(*_LOG_VARIANCES), target)

    def mean(self, output: Tensor) -> Float[Tensor, "n c s s"]:
        """See `Decoder`; means outside [0, 1] are cut."""
        return (output if self.variance is not None else output.chunk(2, dim=1)[0]).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class DiscretisedLogisticDecoder:
    """Location and log-scale of a logistic variable, rounded to 256 grey values: a probability of real images.

    The location may lie outside [0, 1], so that black and white can be certain; log-scales are cut to [-7, 4].
    """

    name: ClassVar[str] = "discretised-logistic"

    def num_outputs(self, channels: int) -> int:
        """See `Decoder`."""
        return 2 * channels

    def log_likelihood(self, output: Tensor, target: Tensor) -> Float[Tensor, " n"]:
        """See `Decoder`; targets are grey values k/255."""
        location, log_scale = self._parameters(output)
        return discretised_logistic_log_likelihood(location, log_scale, target)

    def mean(self, output: Tensor) -> Float[Tensor, "n c s s"]:
        """See `Decoder`: s (log(1 + e^(μ/s)) - log(1 + e^((μ-1)/s))), the mean before it is rounded."""
        location, log_scale = self._parameters(output)
        scale = log_scale.exp()
        return (scale * (F.softplus(location / scale) - F.softplus((location - 1) / scale))).clamp(0, 1)

    def _parameters(self, output: Tensor) -> tuple[Tensor, Tensor]:
        location, log_scale = output.chunk(2, dim=1)
        return location, (log_scale + _BEGIN).clamp(*_LOG_SCALES)

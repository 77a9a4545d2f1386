"""A step of the average is that of `lerp_`, bit for bit, and refuses lists that do not belong together."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from headfirst.errors import InputError
from headfirst.train import update_average


def lists(dtype: torch.dtype) -> tuple[list[torch.Tensor], list[nn.Parameter]]:
    random = torch.Generator().manual_seed(0)
    shapes = [(), (1,), (3, 5), (257,), (0, 4), (8, 3, 5, 5)]
    averages, parameters = ([torch.randn(shape, generator=random).to(dtype) for shape in shapes] for _ in range(2))
    parameters[-1] = parameters[-1].to(memory_format=torch.channels_last)
    averages[2] = averages[2].T.contiguous().T
    return averages, [nn.Parameter(parameter) for parameter in parameters]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.5, 0.999, 1 - 1e-9, 1.0])
def test_bits_are_those_of_lerp(dtype: torch.dtype, decay: float):
    averages, parameters = lists(dtype)
    expected = [average.clone().lerp_(parameter.detach(), 1 - decay) for average, parameter in zip(*lists(dtype))]  # noqa: B905
    update_average(averages, parameters, decay)
    for found, wanted in zip(averages, expected, strict=True):
        assert torch.equal(found, wanted)
        assert not found.requires_grad
    for parameter, before in zip(parameters, lists(dtype)[1], strict=True):
        assert torch.equal(parameter, before)
        assert parameter.grad_fn is None


def test_forgets_where_it_began_at_the_rate_of_the_decay():
    """Towards a parameter that stays, what is left of the beginning after t steps is decayᵗ of it."""
    average, parameter = torch.tensor([5.0, -3.0]).double(), torch.tensor([1.0, 2.0]).double()
    start = average.clone()
    for _ in range(50):
        update_average([average], [parameter], 0.9)
    assert average.tolist() == pytest.approx((parameter + 0.9**50 * (start - parameter)).tolist(), rel=1e-12)


def test_nothing_to_average():
    update_average([], [], 0.9)


ONE, TWO = torch.zeros(1), torch.zeros(2)


@pytest.mark.parametrize(
    ("averages", "parameters", "decay", "message"),
    [
        ([ONE], [ONE], 1.1, "decay must lie in \\[0, 1\\], got 1.1"),
        ([ONE], [ONE], -0.1, "got -0.1"),
        ([ONE], [ONE], math.nan, "got nan"),
        ([ONE], [ONE, TWO], 0.9, "an average for every parameter, got 1 for 2"),
        ([ONE, TWO], [ONE, ONE], 0.9, "got \\(2,\\) for \\(1,\\) at tensor 1"),  # lerp_ would broadcast
    ],
)
def test_refuses(averages, parameters, decay, message):
    with pytest.raises(InputError, match=message):
        update_average(averages, parameters, decay)

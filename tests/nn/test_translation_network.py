"""Networks of a paired translation: every size, what reaches what, rows that do not mix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from headfirst.errors import InputError
from headfirst.nn.seeds import seeded
from headfirst.nn.translation_network import PatchDiscriminator, UNet


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", range(8, 65, 4))
def test_every_size_has_its_networks(size: int):
    with seeded(0):
        net = UNet(size=size, source_channels=3, channels=1, width=2)
        judge = PatchDiscriminator(source_channels=3, channels=1, width=2)
    source = uniform(2, 3, size, size)
    images = net(None, source)
    assert images.shape == (2, 1, size, size)
    assert 0 < images.min() < images.max() < 1
    logits = judge(images, source)
    assert logits.shape == (2, size // 4, size // 4)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in (*net.parameters(), *judge.parameters()))


def test_config_builds_the_network_again():
    with seeded(1):
        one = UNet(size=12, source_channels=1, channels=3, width=3)
    again = UNet(**one.config)
    again.load_state_dict(one.state_dict())
    source = uniform(3, 1, 12, 12)
    assert torch.equal(one(None, source), again(None, source))
    assert torch.allclose(one(None, source[1:2]), one(None, source)[1:2], atol=1e-6)


def test_detail_passes_by_the_smallest_stage():
    with seeded(2):
        net = UNet(size=16, width=4)
    source = uniform(1, 1, 16, 16).requires_grad_()
    with torch.no_grad():
        for way_down in net.widen:
            way_down.weight.zero_()
    net(None, source)[0, 0, 8, 8].backward()
    assert source.grad is not None
    assert source.grad[0, 0, 8, 8] != 0
    assert source.grad[0, 0, 0, 0] == 0  # nothing went by the stages that see everything


def test_a_logit_is_of_18_pixels_of_both_images():
    with seeded(3):
        judge = PatchDiscriminator(width=4)
    both = [uniform(1, 1, 32, 32, seed=i).requires_grad_() for i in range(2)]
    for place in (3, 4):
        gradients = torch.autograd.grad(judge(*both)[0, place, place], both)
        for gradient in gradients:
            seen = gradient[0, 0].abs().sum(dim=0).nonzero().flatten()
            first = 4 * place - 7
            assert seen.tolist() == list(range(first, first + 18))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UNet(size=10), "multiple of 4 in 8 … 64, got 10"),
        (lambda: UNet(size=8, source_channels=2), r"1 channel \(grey\) or 3 \(colour\), got 2"),
        (lambda: UNet(size=8, channels=4), "got 4"),
        (lambda: PatchDiscriminator(channels=4), "got 4"),
        (lambda: PatchDiscriminator(width=0), "width must be at least 1, got 0"),
    ],
)
def test_refusals(make, message: str):
    with pytest.raises(InputError, match=message):
        make()

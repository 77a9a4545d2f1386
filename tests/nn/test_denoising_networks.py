"""The UNet and the DiT: nothing at first, no row sees another, and each thing they are told is heard."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from headfirst.errors import InputError
from headfirst.nn import DiTShape, UNetShape

SHAPES = [
    UNetShape(widths=(8, 16), head_dim=8),
    UNetShape(widths=(8, 8, 16), patch=1, head_dim=8, blocks=2),
    DiTShape(dim=16, depth=2, heads=2),
]


def built(shape: UNetShape | DiTShape, *, awake: bool = True, channels: int = 3) -> nn.Module:
    """With random numbers where training begins at zero, if awake."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = shape.build(size=12, channels=channels, num_classes=2, num_augmentation=3)
        if awake:
            for parameter in network.parameters():
                if not parameter.any():
                    nn.init.normal_(parameter, std=0.3)
    return network.requires_grad_(False).double()


def asked(n: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    x = torch.randn(n, 3, 12, 12, generator=random, dtype=torch.float64)
    return x, torch.linspace(-1, 1, n, dtype=torch.float64), torch.arange(n) % 3


@pytest.mark.parametrize("shape", SHAPES)
def test_untrained_it_returns_zeros(shape):
    assert not built(shape, awake=False)(*asked()).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_no_row_sees_another(shape):
    network, (x, c, y) = built(shape), asked()
    whole = network(x, c, y)
    assert whole.shape == x.shape
    for i in range(3):
        alone = network(x[i : i + 1], c[i : i + 1], y[i : i + 1])
        assert torch.allclose(alone[0], whole[i], atol=1e-12)
    assert not torch.allclose(whole[0], whole[1], atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_pixel_and_all_it_is_told_is_heard(shape):
    network, (x, c, y) = built(shape), asked(1)
    plain = network(x, c, y)
    moved = x.clone()
    moved[0, 0, 0, 0] += 1
    assert (network(moved, c, y) - plain)[0, :, -1, -1].abs().min() > 1e-9  # from one corner to the other
    told = {
        "level": network(x, c + 0.5, y),
        "class": network(x, c, y + 1),
        "none": network(x, c, None),
        "extra": network(x, c, y, torch.tensor([2.0])),
        "augmentation": network(x, c, y, None, torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)),
    }
    for name, found in told.items():
        assert (found - plain).abs().max() > 1e-4, name
    assert torch.equal(network(x, c, y, None, torch.zeros(1, 3, dtype=torch.float64)), plain)
    assert torch.equal(network(x, c, torch.tensor([2])), told["none"])


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="multiples of 8, got 28"):
        UNetShape(widths=(8, 8, 8), patch=2, head_dim=8).build(size=28, channels=1, num_classes=0)
    with pytest.raises(InputError, match="do not tile a side of 28"):
        DiTShape(patch=8).build(size=28, channels=1, num_classes=0)
    with pytest.raises(InputError, match=r"positive multiples of 8, got \(8, 12\)"):
        UNetShape(widths=(8, 12))
    with pytest.raises(InputError, match="head_dim divide the last width"):
        UNetShape(widths=(8, 24), head_dim=16)
    with pytest.raises(InputError, match="multiple of 4 and of heads"):
        DiTShape(dim=20, heads=3)
    network = UNetShape(widths=(8,), head_dim=8).build(size=8, channels=1, num_classes=0)
    with pytest.raises(InputError, match="built without augmentation"):
        network(torch.zeros(1, 1, 8, 8), torch.zeros(1), None, None, torch.zeros(1, 3))

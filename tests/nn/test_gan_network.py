"""Networks of the adversarial game: shapes that fit every size, logits that are the formula, rows that do not mix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from headfirst.errors import InputError
from headfirst.nn.gan_network import (
    PointDiscriminator,
    PointGenerator,
    ResidualBlock,
    ResidualDiscriminator,
    ResidualGenerator,
)
from headfirst.nn.seeds import seeded


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def discriminator(**options: object) -> ResidualDiscriminator:
    with seeded(0):
        return ResidualDiscriminator(size=12, width=4, **options)  # type: ignore[arg-type]


def test_a_black_image_still_feels_a_pull():
    with seeded(0):
        generator = ResidualGenerator(size=8, noise_dim=5, width=2)
    torch.nn.init.constant_(generator.end.bias, -40.0)
    images = generator(normal(2, 5))
    assert images.max() < 0.1
    images.mean().backward()
    assert generator.end.bias.grad.sum().item() == pytest.approx(0.02 / 4, rel=1e-4)


@pytest.mark.parametrize("size", range(8, 65, 4))
def test_every_size_has_its_networks(size: int):
    with seeded(0):
        generator = ResidualGenerator(size=size, channels=3, noise_dim=5, width=2)
        judge = ResidualDiscriminator(size=size, channels=3, width=2)
    images = generator(normal(2, 5))
    assert images.shape == (2, 3, size, size)
    assert -0.05 < images.min() < 0.5 < images.max() < 1.05
    assert judge(images).shape == (2,)
    images.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in generator.parameters())


def test_config_builds_the_network_again():
    with seeded(3):
        one = ResidualGenerator(size=16, channels=1, noise_dim=4, width=3, num_classes=2)
    again = ResidualGenerator(**one.config)
    again.load_state_dict(one.state_dict())
    labels = torch.tensor([0, 1])
    assert torch.equal(one(normal(2, 4), labels), again(normal(2, 4), labels))
    assert not torch.equal(one(normal(2, 4), labels), one(normal(2, 4), 1 - labels))


def test_the_logit_is_the_features_weighted_and_the_class_projected_on_them():
    judge = discriminator(num_classes=3)
    images, labels = torch.rand(5, 1, 12, 12), torch.tensor([2, 0, 1, 1, 2])
    features = judge.features(images)
    assert judge.classes is not None
    expected = [
        judge.end.weight[0] @ features[i] + judge.end.bias[0] + judge.classes.weight[y] @ features[i]
        for i, y in enumerate(labels)
    ]
    assert torch.allclose(judge(images, labels), torch.stack(expected), atol=1e-5)
    with pytest.raises(InputError, match="the network has 3 classes; give labels"):
        judge(images)


@pytest.mark.parametrize("spectral", [False, True])
def test_rows_do_not_mix(spectral: bool):
    judge = discriminator(spectral=spectral).train()
    images = torch.rand(4, 1, 12, 12).requires_grad_()
    (gradient,) = torch.autograd.grad(judge(images)[1], images)
    assert gradient[1].abs().max() > 0
    assert gradient[[0, 2, 3]].abs().max() == 0


def test_spectral_normalisation_leaves_no_weight_above_one():
    judge = discriminator(spectral=True, num_classes=3)
    layers = [m for m in judge.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Embedding)]
    assert len(layers) == 9
    with torch.no_grad():  # weights far from normalised
        for layer in layers:
            layer.parametrizations.weight.original.mul_(7)
    for _ in range(100):
        judge(torch.rand(2, 1, 12, 12), torch.tensor([0, 1]))
    judge.eval()
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3)
    plain = discriminator()
    assert max(torch.linalg.matrix_norm(p.flatten(1), 2) for p in plain.parameters() if p.ndim > 1) > 1.1


def test_blocks_begin_as_the_identity():
    with seeded(0):
        block, other = ResidualBlock(4, depth=3), ResidualBlock(4, depth=3, zero=False)
    x = normal(2, 4, 5, 5)
    assert torch.equal(block(x), x)
    assert not torch.allclose(other(x), x, atol=0.1)


def test_points():
    with seeded(0):
        generator, judge = PointGenerator(dim=3, noise_dim=2, hidden=8, layers=2), PointDiscriminator(dim=3, hidden=8)
    assert generator(normal(6, 2)).shape == (6, 3)
    assert judge(generator(normal(6, 2))).shape == (6,)
    assert PointGenerator(**generator.config).config == generator.config


def test_points_have_a_scale():
    with seeded(0):
        generator = PointGenerator(scale=1.0)
    wide = PointGenerator(scale=3.0)
    wide.load_state_dict(generator.state_dict())
    points = generator(normal(4000, 2))
    assert torch.equal(wide(normal(4000, 2)), 3 * points)
    assert 0.5 < points.std() < 2  # before training
    with seeded(0):
        judge = PointDiscriminator(waves=3)
    wide_judge = PointDiscriminator(waves=3, scale=3.0)
    wide_judge.load_state_dict(judge.state_dict())
    assert torch.allclose(wide_judge(3 * points), judge(points), atol=1e-4)
    angles = points @ judge.waves
    x = torch.cat([points, angles.sin(), angles.cos()], dim=1)
    assert torch.equal(judge(points), judge.layers(x).squeeze(1))


def test_a_generators_noise_is_made_uniform_and_its_waves_are_a_buffer():
    with seeded(0):
        one = PointGenerator(waves=5, hidden=8, scale=3.0)
    noise = normal(9, 2)
    uniform = 12**0.5 * (torch.special.ndtr(noise) - 0.5)  # variance 1
    angles = uniform @ one.waves
    x = torch.cat([uniform, angles.sin(), angles.cos()], dim=1)
    assert torch.allclose(one(noise), 3 * one.layers(x), atol=1e-5)
    again = PointGenerator(**one.config)
    again.load_state_dict(one.state_dict())
    assert torch.equal(again(noise), one(noise))


@pytest.mark.parametrize("fastest", [8.0, 64.0])
def test_waves_rise_to_the_fastest(fastest: float):
    with seeded(0):
        waves = PointDiscriminator(waves=4000, hidden=2, fastest=fastest).waves
    assert waves[:, :200].std() == pytest.approx(2, rel=0.2)
    assert waves[:, -200:].std() == pytest.approx(fastest, rel=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 30}, r"size must be a multiple of 4 in 8 … 64, got 30"),
        ({"size": 68}, "got 68"),
        ({"size": 28, "channels": 2}, r"channels must be 1 \(grey\) or 3 \(colour\), got 2"),
        ({"size": 28, "width": 0}, "width must be at least 1, got 0"),
        ({"size": 28, "noise_dim": 0}, "noise_dim must be at least 1, got 0"),
    ],
)
def test_refusals(options: dict[str, int], message: str):
    with pytest.raises(InputError, match=message):
        ResidualGenerator(**options)

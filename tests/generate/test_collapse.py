"""The alarm, on planted generators: it fires on those that make the same few, and not on real images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from headfirst.errors import InputError
from headfirst.generate.collapse import GameReading, collapse_events, read_variety, seen_collapse, thumbnails

N, CLASSES = 400, 10


def images(n: int, seed: int, modes: int = CLASSES) -> tuple[Tensor, Tensor]:
    """Smooth 16 × 16 images of `modes` of ten classes, and their classes."""
    middles = torch.rand(CLASSES, 1, 4, 4, generator=torch.Generator().manual_seed(99))
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(modes, (n,), generator=random)
    small = middles[labels] + 0.15 * torch.randn(n, 1, 4, 4, generator=random)
    return torch.nn.functional.interpolate(small, size=16, mode="bilinear").clamp(0, 1), labels


def reading(generated: Tensor, asked: Tensor | None = None, epoch: int = 10) -> GameReading:
    real, labels = images(N, 0)
    variety = read_variety(
        thumbnails(real),
        thumbnails(generated),
        labels=None if asked is None else labels,
        asked=asked,
        num_classes=CLASSES if asked is not None else 0,
    )
    return GameReading(epoch=epoch, real=0.9, fake=0.2, gradient_ratio=0.3, **vars(variety))


def test_features_are_the_means_of_patches():
    real = torch.rand(3, 2, 16, 16)
    expected = real[:, :, :2, :2].mean(dim=(2, 3))
    found = thumbnails(real).unflatten(1, (2, 8, 8))
    assert torch.allclose(found[:, :, 0, 0], expected)


def test_real_images_raise_no_alarm():
    for seed in range(1, 9):
        generated, asked = images(N, seed)
        found = reading(generated, asked)
        assert seen_collapse(found) is None
        assert found.coverage == pytest.approx(found.expected_coverage, abs=0.05)
        assert found.alike < 5 * found.alike_real
        assert found.alike_real == pytest.approx(1e-3, rel=0.02)
        assert found.classes == CLASSES
        assert found.agreement is not None
        assert found.agreement > 0.9


def test_a_poor_generator_of_everything_raises_none():
    """Blurred, and half again as near to its class's mean: no photograph, but no collapse."""
    generated, _ = images(N, 1)
    blurred = torch.nn.functional.avg_pool2d(generated, 5, stride=1, padding=2, count_include_pad=False)
    assert seen_collapse(reading(blurred)) is None


def test_a_constant_generator_raises_it():
    one = images(1, 1)[0].expand(N, -1, -1, -1)
    found = reading(one)
    assert found.alike == 1.0
    assert found.support == 1.0
    why = seen_collapse(found)
    assert why is not None
    assert "alike in 1e+02 % of all pairs, two real ones in 0.1 %, as if there were only 1 different ones" in why
    assert "D says 0.90 on real and 0.20 on generated images, gradient ratio 0.3" in why


def test_few_images_raise_it_and_many_do_not():
    ten = images(10, 1)[0].repeat(N // 10, 1, 1, 1)
    assert "as if there were only 1" in (seen_collapse(reading(ten)) or "")
    many = images(200, 1)[0].repeat(N // 200, 1, 1, 1)
    assert seen_collapse(reading(many)) is None


def test_one_class_in_all_its_variety_raises_it():
    found = reading(*images(N, 1, modes=1))
    assert found.classes is not None
    assert found.classes <= 2
    assert "of the real images have a generated one near" in (seen_collapse(found) or "")


def test_images_far_from_real_ones_raise_it():
    noise = torch.rand(N, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    found = reading(noise)
    assert found.coverage < 0.02
    assert seen_collapse(found) is not None


def test_identical_real_images_are_no_collapse():
    same = thumbnails(images(1, 0)[0]).expand(50, -1)
    found = read_variety(same, same)
    assert found.alike == found.alike_real == 1.0
    whole = GameReading(epoch=1, real=0.5, fake=0.5, gradient_ratio=1.0, **vars(found))
    assert seen_collapse(whole) is None


def test_events_say_when_it_began_and_ended_and_nothing_of_the_beginning():
    good, bad = reading(images(N, 1)[0]), reading(images(1, 1)[0].expand(N, -1, -1, -1))
    said = [bad, bad, good, bad, bad, good]
    readings = [GameReading(**{**vars(r), "epoch": 10 * (i + 1)}) for i, r in enumerate(said)]
    events = collapse_events(readings, epochs=60)
    assert [int(event.split()[1].rstrip(":")) for event in events] == [20, 30, 40, 60]
    assert ["collapse" in event for event in events] == [True, False, True, False]


def test_refuses():
    with pytest.raises(InputError, match="the probe needs at least 7 real images, got 6"):
        read_variety(torch.rand(6, 3), torch.rand(9, 3))

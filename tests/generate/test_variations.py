"""Variations: what the samplers make of a noised image, each with its class and its own noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from headfirst.errors import InputError
from headfirst.generate import Generator, Sampling, vary
from headfirst.generate.diffusion import DiffusionNetwork, from_image, level_of_strength, streams
from headfirst.generate.variations import _NOISE
from headfirst.nn import UNetShape
from tiny import make_split

SAMPLING = Sampling(method="ddpm", num_steps=4, guidance=1.5)


def split(num: int = 20):
    whole = make_split("test", num, seed=0)
    return replace(whole, sources=tuple(np.ascontiguousarray(np.asarray(s)[::2, ::2]) for s in whole.sources))


@pytest.fixture(scope="module")
def generator() -> Generator:
    """Its weights are random, and classes differ."""
    torch.manual_seed(0)
    network = DiffusionNetwork(size=8, channels=3, num_classes=3, shape=UNetShape(widths=(8, 8), head_dim=8),
                               sampling=SAMPLING)  # fmt: skip
    for parameter in network.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    return Generator(kind="diffusion", network=network.eval(), classes=split().classes, shares=(0.4, 0.3, 0.3),
                     trained_on="", recipe="none")  # fmt: skip


def pixels(made) -> torch.Tensor:
    return torch.from_numpy(np.stack(made.images.sources))


def test_an_image_is_noised_and_sampled_as_its_class(generator: Generator):
    images = split()
    made = vary(generator, images, strength=0.5, seed=3)
    assert (made.images.ids, made.made_by) == (images.ids, generator.fingerprint)
    network = generator.network
    begin = level_of_strength(0.5, network.sigma_min, network.sigma_max)
    sigmas = replace(SAMPLING, num_steps=2).sigmas(network.sigma_min, begin)
    for i in (0, 18):
        x = 2 * made.originals.batch(np.array([i])).double() - 1
        denoiser = network.denoiser(torch.tensor([images.labels[i]]), guidance=1.5)
        by_hand = from_image(denoiser, x, sigmas, sampler=SAMPLING.run, generator=streams(3, [i], _NOISE))[0]
        levels = ((by_hand + 1) / 2).clamp(0, 1).mul(255).permute(1, 2, 0)
        assert (levels - pixels(made)[i]).abs().max() < 0.51


def test_more_strength_keeps_less_and_other_seeds_are_others(generator: Generator):
    images = split(6)
    original = vary(generator, images, strength=1e-3).originals.batch().permute(0, 2, 3, 1) * 255
    far = [(pixels(vary(generator, images, strength=s)) - original).abs().mean().item() for s in (1e-3, 0.3, 1.0)]
    assert far[0] < 3 < far[1] < far[2]
    few, many = pixels(vary(generator, images.take(range(3)))), pixels(vary(generator, images))
    assert torch.equal(few, many[:3])
    assert not torch.equal(many, pixels(vary(generator, images, seed=1)))


def test_classes_go_by_name_and_without_one_by_any(generator: Generator, monkeypatch: pytest.MonkeyPatch):
    asked, plain = [], DiffusionNetwork.denoiser
    monkeypatch.setattr(DiffusionNetwork, "denoiser", lambda self, labels, **how: asked.append(labels) or
                        plain(self, labels, **how))  # fmt: skip
    images = split(6)
    other = replace(images, classes=(images.classes[2], "violet", images.classes[0]),
                    labels=np.array([0, 1, 2, -1, 0, 2]))  # fmt: skip
    vary(generator, other)
    assert asked[0].tolist()[:6] == [2, 3, 0, 3, 2, 0]


def test_refuses(generator: Generator):
    with pytest.raises(InputError, match=r"which a vae cannot; train --model diffusion"):
        vary(replace(generator, kind="vae"), split(6))
    with pytest.raises(InputError, match=r"strength must lie in \(0, 1\], got 0"):
        vary(generator, split(6), strength=0.0)

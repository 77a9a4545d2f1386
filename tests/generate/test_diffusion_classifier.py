"""Bayes' rule with a diffusion model's errors: on normal data, whose likelihood is known, and by its definition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from exact import F64
from headfirst.errors import InputError
from headfirst.generate import Diffusion, DiffusionClassifier, Sampling, denoising_evidence
from headfirst.generate.diffusion import GaussianMixture, log_snr_uniform_sigmas
from headfirst.generate.pictures import as_pictures
from headfirst.nn import UNetShape
from headfirst.randomness import keyed_normal
from tiny import make_split

LITTLE: dict[str, Any] = {"shape": UNetShape(widths=(8, 8), head_dim=8), "batch_size": 16, "fewest": 10,
                          "sampling": Sampling(num_steps=1), "lr": 0.01}  # fmt: skip


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


class TestOfExactDenoisers:
    CLASSES = tuple(
        GaussianMixture(means=torch.tensor([mean], dtype=F64), stds=torch.tensor([std], dtype=F64))
        for mean, std in (([0.0, 0.4], 0.5), ([0.6, -0.2], 0.4), ([-0.3, -0.3], 0.8))
    )
    X = torch.cat([c.sample(20, generator=torch.Generator().manual_seed(k)) for k, c in enumerate(CLASSES)])

    def wrong(self, num_draws: int, num_levels: int = 24) -> float:
        """Root mean square of how far differences of classes are from those of log p(x | y)."""
        levels = log_snr_uniform_sigmas(num_levels, 0.004, 300.0)
        found = denoising_evidence(self.CLASSES, self.X, levels, draws(num_draws, num_levels, 2, seed=7))
        exact = torch.stack([c.log_density(self.X) for c in self.CLASSES], dim=1)
        off = (found - exact) - (found - exact).mean(dim=1, keepdim=True)
        return off.square().mean().sqrt().item()

    def test_it_is_bayes_rule_as_draws_grow(self):
        few, many = self.wrong(2), self.wrong(128)
        assert many < 0.15
        assert 3 < few / many < 21  # √64 is 8

    def test_levels_are_weighed_by_their_distance(self):
        """Of one class and the noise 0, each level's error is known."""
        sigmas = torch.tensor([8.0, 1.0, 0.25], dtype=F64)
        found = denoising_evidence(self.CLASSES[:1], self.X, sigmas, torch.zeros(1, 3, 2, dtype=F64))
        away = (self.X - self.CLASSES[0].means).square().sum(1)  # of which D keeps s² / (s² + σ²)
        errors = away[:, None] * (sigmas / (0.25 + sigmas**2)) ** 2
        widths = torch.tensor([8.0, 32.0, 4.0], dtype=F64).log() / 2
        torch.testing.assert_close(found[:, 0], -(errors * widths).sum(1), rtol=1e-10, atol=1e-10)

    def test_a_row_depends_on_no_other_and_refusals(self):
        levels, noise = log_snr_uniform_sigmas(3, 0.1, 5.0), draws(2, 3, 2)
        whole = denoising_evidence(self.CLASSES, self.X, levels, noise)
        torch.testing.assert_close(denoising_evidence(self.CLASSES, self.X[5:6], levels, noise), whole[5:6])
        with pytest.raises(InputError, match=r"noise must be \(R, 3, …\) with … an image's \(2,\), got \(2, 4, 2\)"):
            denoising_evidence(self.CLASSES, self.X, levels, draws(2, 4, 2))
        with pytest.raises(InputError, match="a denoiser and levels above 0, got 3 and 0"):
            denoising_evidence(self.CLASSES, self.X, torch.tensor([1.0, 0.5, 0.0]), noise)
        with pytest.raises(InputError, match=r"a denoiser and levels above 0, got 0 and 0\.1"):
            denoising_evidence([], self.X, levels, noise)


def test_the_rows_are_the_evidence_and_the_shares():
    def little(name: str, num: int, seed: int):
        split = make_split(name, num, seed=seed)
        return replace(split, sources=tuple(np.ascontiguousarray(np.asarray(s)[::2, ::2]) for s in split.sources))

    train, val = little("train", 60, 0).take(range(59)), little("val", 18, 1)
    recipe = DiffusionClassifier(diffusion=Diffusion(epochs=2, **LITTLE), num_levels=2, fewest_steps=41)
    model = recipe.fit(train, seed=2)
    assert len(model.generator.record["losses"]) == 11  # of 4 steps each, where the recipe asks for 2
    found = model.predictions(val)
    assert (found.kind, found.method, found.seed, found.split) == ("logits", "diffusion", 2, "val")
    network = model.generator.network
    x = 2 * as_pictures(val, size=8, channels=3).batch(np.arange(18)) - 1
    by_hand = torch.full((18,), np.log(19 / 59), dtype=torch.float64)
    for j, sigma in enumerate((10.0, 1.0)):
        noise = keyed_normal(81, 2, 0, j, np.arange(192)).astype(np.float32).reshape(3, 8, 8)
        guess = network.denoise(x + sigma * torch.from_numpy(noise), torch.full((18,), sigma), torch.full((18,), 2))
        by_hand -= (x - guess).double().square().sum((1, 2, 3)) / sigma**2 * np.log(10) / 2
    torch.testing.assert_close(found.values[:, 2].double(), by_hand, rtol=1e-4, atol=1e-2)
    few = model.predictions(val.take([7, 3]))
    torch.testing.assert_close(few.values, found.values[[7, 3]], rtol=1e-4, atol=1e-2)
    by_shares = replace(model, generator=replace(model.generator, shares=(0.2, 0.2, 0.6))).predictions(val)
    moved = by_shares.values[:, 2] - found.values[:, 2]
    torch.testing.assert_close(moved, torch.full((18,), np.log(0.6 / (19 / 59))).float(), rtol=1e-2, atol=1e-2)


def test_refuses():
    train = make_split("train", 30, seed=0)
    with pytest.raises(InputError, match="every class needs an image, and blue has none"):
        DiffusionClassifier(diffusion=Diffusion(**LITTLE)).fit(train.take(np.flatnonzero(train.labels < 2)))
    with pytest.raises(InputError, match="needs a draw, two levels and a model with classes, got draws=0"):
        DiffusionClassifier(draws=0)
    with pytest.raises(InputError, match="conditional=False"):
        DiffusionClassifier(diffusion=Diffusion(conditional=False))
    with pytest.raises(InputError, match="sigma"):
        DiffusionClassifier(sigma_min=2.0, sigma_max=1.0)

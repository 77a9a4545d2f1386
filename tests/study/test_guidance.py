"""Guidance: weights whose effect is known are told apart, and the rule gives up no variety for nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headfirst.adapt import LinearProbe
from headfirst.augment import as_split
from headfirst.data import ImageSet, ImageSplit
from headfirst.errors import InputError
from headfirst.features import embed
from headfirst.generate import Generator, Sampling
from headfirst.metrics import density_coverage
from headfirst.nn import PretrainedBackbone
from headfirst.study import GuidanceRow, guidance_path
from headfirst.study.generator_evaluation import K_COVERAGE
from headfirst.study.generator_scores import Score
from headfirst.study.guidance import recommend
from tiny import make_split


class Guided(nn.Module):
    """Without guidance negatives, with weight 2 all real images of the class, beyond it one alone."""

    sampling = Sampling(num_steps=1)

    def __init__(self, split: ImageSplit) -> None:
        super().__init__()
        self.config, self.noise_dim, self.size = {}, 1, 16
        images = torch.stack([torch.from_numpy(np.array(s)) for s in split.sources]).permute(0, 3, 1, 2) / 255
        self.images, self.of = nn.Parameter(images, requires_grad=False), torch.from_numpy(split.labels)

    def draw(self, noise: Tensor, labels: Tensor, sampling: Sampling, *, seed: int, indices: list[int]) -> Tensor:
        u, rows = 0.5 * (1 + torch.erf(noise[:, 0] / 2**0.5)), []
        for i, label in enumerate(labels.tolist()):
            mine = (self.of == label).nonzero().flatten()
            rows.append(mine[int(u[i] * len(mine)) if sampling.guidance <= 2 else 0])
        found = self.images[torch.stack(rows)]
        return found if sampling.guidance > 1 else 1 - found


@pytest.fixture(scope="module")
def colours() -> ImageSet:
    splits = {name: make_split(name, n, seed=seed) for seed, (name, n) in enumerate([("train", 240), ("val", 200)])}
    return ImageSet(name="colours", splits=splits, classes=splits["train"].classes)


@pytest.fixture(scope="module")
def generator(colours: ImageSet) -> Generator:
    return Generator(kind="diffusion", network=Guided(colours["train"]), classes=colours.classes, shares=(1 / 3,) * 3,
                     trained_on="", recipe="shuffles")  # fmt: skip


def test_what_guidance_gains_and_costs_is_seen(
    colours: ImageSet, generator: Generator, backbone: PretrainedBackbone, monkeypatch: pytest.MonkeyPatch
):
    taught, fit = [], LinearProbe.fit
    monkeypatch.setattr(LinearProbe, "fit", lambda self, known: taught.append(len(known.values)) or fit(self, known))
    found = guidance_path(generator, colours, backbone, weights=(2, 5), num=240)
    none, right, too_much = found.rows
    assert [row.weight for row in found.rows] == [1.0, 2.0, 5.0]
    assert none.recognised.high < right.recognised.low
    assert too_much.recognised.value > 0.95
    assert too_much.coverage.high < right.coverage.low
    assert right.frechet.high < min(none.frechet.low, too_much.frechet.low)
    assert found.recommended == 2.0
    assert found.sentence.startswith(
        "guidance 2 is recommended: its Fréchet distance is the least; against none, 100.0"
    )
    assert (found.num_generated, found.num_real, found.split) == (240, 200, "val")
    assert taught == [240]  # by train alone
    made = generator.sample(240, sampling=Sampling(num_steps=1, guidance=5.0))
    features, real = (embed(backbone, each).values for each in (as_split(made, name="made"), colours["val"]))
    assert too_much.coverage.value == pytest.approx(density_coverage(real, features, K_COVERAGE).coverage, abs=1e-3)


def row(weight: float, value: float, half: float) -> GuidanceRow:
    share = Score(value=0.5, low=0.4, high=0.6)
    return GuidanceRow(weight=weight, recognised=share, coverage=share,
                       frechet=Score(value=value, low=value - half, high=value + half))  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row(1, 5.0, 1.0), row(2, 4.0, 1.0), row(3, 3.5, 1.0)], 1),  # none surely worse: nothing is guided
        ([row(1, 6.0, 1.0), row(2, 4.5, 1.0), row(3, 3.5, 1.0)], 2),
        ([row(1, 9.0, 1.0), row(2, 8.0, 1.0), row(3, 3.5, 1.0)], 3),
        ([row(0.5, 3.0, 1.0), row(1, 3.2, 1.0), row(3, 9.0, 1.0)], 1),
    ],
)
def test_the_weight_nearest_to_none_that_is_not_surely_worse(rows: list[GuidanceRow], expected: float):
    assert recommend(rows)[1].weight == expected


def test_refuses(colours: ImageSet, generator: Generator, backbone: PretrainedBackbone):
    ask = (colours, backbone)
    with pytest.raises(InputError, match="a diffusion model that was trained with classes, got a vae of 3 classes"):
        guidance_path(replace(generator, kind="vae"), *ask)
    with pytest.raises(InputError, match=r"weights must be positive and num at least 10, got \[-1\] and 1000"):
        guidance_path(generator, *ask, weights=(1, -1))
    with pytest.raises(InputError, match=r"num at least 10, got .* and 3"):
        guidance_path(generator, *ask, num=3)
    with pytest.raises(InputError, match="'train' is learned from; give one that is not"):
        guidance_path(generator, *ask, split="train")
    with pytest.raises(InputError, match="the generator cat, dog"):
        guidance_path(replace(generator, classes=("cat", "dog"), shares=(0.5, 0.5)), *ask)

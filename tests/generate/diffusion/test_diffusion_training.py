"""A diffusion model's training: to the same bits after a stop, hidden classes, an end when it learns by heart; and an
image of a seed is the same whatever is asked for beside it, also where noise is drawn on the way."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import headfirst.generate.diffusion.memorising as memorising
import headfirst.generate.diffusion.training as training_file
from headfirst.data import ImageSplit
from headfirst.errors import FingerprintError, InputError, Interrupted
from headfirst.generate import VAE, Diffusion, Generator, Pictures, Sampling, load_generator, pictures
from headfirst.generate.diffusion import (
    Augmentation,
    DiffusionNetwork,
    GaussianMixture,
    ImportanceLevels,
    LogNormalLevels,
)
from headfirst.generate.diffusion.sampling import RANDOM
from headfirst.generate.diffusion.training_levels import BINS, REMEMBERED
from headfirst.metrics import Memorisation
from headfirst.nn import DiTShape, MLPShape, UNetShape
from headfirst.train import Batch
from headfirst.types import silent
from tiny import make_split

SMALL = UNetShape(widths=(8, 8), head_dim=8)
LITTLE: dict[str, Any] = {"shape": SMALL, "batch_size": 16, "fewest": 10, "sampling": Sampling(num_steps=3)}
FULL = Diffusion(**LITTLE, epochs=3, importance=True, augmentation=Augmentation(mirror=True))


def little_split(num: int = 40, seed: int = 0) -> ImageSplit:
    """8 × 8 pixels."""
    split = make_split("train", num, seed=seed)
    return replace(split, sources=tuple(np.ascontiguousarray(np.asarray(s)[::2, ::2]) for s in split.sources))


@pytest.fixture(scope="module")
def whole() -> Generator:
    return FULL.fit(little_split())


def same(a: Generator, b: Generator) -> bool:
    mine, other = a.network.state_dict(), b.network.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)


class TestResuming:
    @pytest.mark.parametrize("step", [5])
    def test_stopped_anywhere_it_ends_in_the_same_bits(self, whole: Generator, tmp_path: Path, step: int):
        def kill(stage: str, done: int, total: int) -> None:
            if "training" in stage and done == step:
                signal.raise_signal(signal.SIGTERM)

        with pytest.raises(Interrupted):
            FULL.fit(little_split(), directory=tmp_path, progress=kill)
        again = FULL.fit(little_split(), directory=tmp_path)
        assert same(again, whole)
        assert again.fingerprint == whole.fingerprint
        assert [r["epoch"] for r in again.record["readings"]] == [1, 2, 3]
        assert again.record["readings"] == whole.record["readings"]
        with pytest.raises(FingerprintError):
            replace(FULL, lr=1e-4).fit(little_split(), directory=tmp_path)

    def test_it_comes_back_from_disk(self, whole: Generator, tmp_path: Path):
        back = load_generator(whole.save(tmp_path / "model"))
        assert back.fingerprint == whole.fingerprint
        assert back.network.sampling == Sampling(num_steps=3)
        assert torch.equal(back.sample(3).pixels, whole.sample(3).pixels)
        assert json.loads((tmp_path / "model" / "generator.json").read_text())["kind"] == "diffusion"

    def test_another_shape_and_way_of_sampling_come_back_too(self):
        sampling = Sampling(method="heun", num_steps=2, interval=(0.1, 2.0))
        made = DiffusionNetwork(size=8, channels=1, num_classes=2, shape=DiTShape(dim=8, depth=1, heads=2),
                                sampling=sampling)  # fmt: skip
        back = DiffusionNetwork.from_config(**json.loads(json.dumps(made.config)))
        assert back.config == made.config
        assert back.sampling == sampling
        back.load_state_dict(made.state_dict())

    def test_what_is_remembered_of_the_levels_is_in_a_checkpoint(self):
        levels, fresh = (ImportanceLevels(LogNormalLevels()) for _ in range(2))
        for _ in range(REMEMBERED):
            u = (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS
            levels.learn(levels.draw(u), torch.arange(BINS) + 1.0)
        fresh.load_state_dict(levels.state_dict())
        assert torch.equal(fresh.probabilities, levels.probabilities)
        assert fresh.probabilities[-1] > 10 * fresh.probabilities[0]

    def test_bins_are_drawn_by_the_root_of_their_mean_square_once_all_are_known(self):
        levels, centres = ImportanceLevels(LogNormalLevels()), (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS
        drawn = levels.draw(centres)
        for k in range(REMEMBERED):
            levels.learn(drawn, torch.where(torch.arange(BINS) % 2 == 0, 1.0, 2.0 * (k % 2)))
            if k < REMEMBERED - 1:
                assert torch.equal(levels.probabilities, torch.full((BINS,), 1 / BINS, dtype=torch.float64))
        ratios = levels.probabilities[1::2] / levels.probabilities[::2]
        assert torch.allclose(ratios, torch.tensor(2.0).sqrt().double(), rtol=2e-3)
        one_less = ImportanceLevels(LogNormalLevels())
        one_less.load_state_dict(levels.state_dict())
        one_less.counts[3] -= 1
        assert one_less.probabilities.std() == 0

    def test_levels_lie_everywhere_within_their_bin(self):
        levels, u = ImportanceLevels(LogNormalLevels()), torch.linspace(0.001, 0.999, 500, dtype=torch.float64)
        assert torch.allclose(levels.draw(u).sigma, levels.base.quantile(u), rtol=1e-6)


class TestSampling:
    @pytest.mark.parametrize("method", [*RANDOM, "ddim", "dpm_pp_2m", "plms"])
    def test_an_image_is_the_same_in_any_company(self, whole: Generator, method: str):
        sampling = Sampling(method=method, num_steps=2, guidance=2.0, eta=0.5 if method == "ddim" else 0.0)
        many = whole.sample(20, seed=3, sampling=sampling)
        few = whole.sample(3, seed=3, start=15, sampling=sampling)
        assert torch.equal(many.pixels[15:18], few.pixels)
        assert torch.equal(many.labels[15:18], few.labels)
        other = whole.sample(3, seed=4, start=15, sampling=sampling)
        assert not torch.equal(other.pixels, few.pixels)

    def test_noise_on_the_way_is_of_the_image_and_the_seed(self, whole: Generator):
        network, noise = whole.network, torch.randn(1, 192, generator=torch.Generator().manual_seed(0)).expand(2, -1)
        labels = torch.zeros(2, dtype=torch.int64)
        ask = (noise, labels, Sampling(method="ddpm", num_steps=4))
        a, b = network.draw(*ask, seed=0, indices=[5, 6])
        assert not torch.equal(a, b)
        assert torch.allclose(network.draw(*ask, seed=0, indices=[6, 5])[1], a, atol=1e-6)
        assert not torch.equal(network.draw(*ask, seed=1, indices=[5, 6])[0], a)
        still = network.draw(noise, labels, Sampling(num_steps=4), seed=0, indices=[5, 6])
        assert torch.allclose(still[0], still[1], atol=1e-6)

    def test_what_is_drawn_on_the_way_is_keyed_by_the_image_s_own_number(self):
        class Numbering(nn.Module):
            """Images as grey as their number."""

            noise_dim, config, sample_batch = 1, MappingProxyType({}), 16

            def draw(self, noise: torch.Tensor, labels: None, sampling: Sampling, *, seed: int, indices: list[int]):
                return torch.tensor(indices)[:, None, None, None].expand(-1, 1, 8, 8) / 255

        made = Generator(kind="numbers", network=Numbering(), classes=(), shares=(), trained_on="", recipe="")
        assert made.sample(5, start=14).pixels[:, 0, 0, 0].tolist() == [14, 15, 16, 17, 18]

    def test_guidance_goes_from_any_class_past_the_class(self, whole: Generator):
        network, x = whole.network, torch.randn(2, 3, 8, 8, dtype=torch.float64)
        labels, sigma = torch.tensor([0, 2]), torch.tensor(0.7, dtype=torch.float64)
        of_class, of_all = network.denoiser(labels)(x, sigma), network.denoiser()(x, sigma)
        assert (of_class - of_all).abs().max() > 1e-4
        assert torch.allclose(network.denoiser(labels, guidance=3.0)(x, sigma), of_all + 3 * (of_class - of_all))
        outside = network.denoiser(labels, guidance=3.0, interval=(0.8, 2.0))
        assert torch.equal(outside(x, sigma), of_class)

    def test_the_network_s_denoiser_is_sampled_as_any_other(self):
        """With F silent D is that of N(mean, sigma_data²), which is then what is drawn, but for few steps."""
        network = DiffusionNetwork(size=8, channels=1, num_classes=0, shape=SMALL, mean=-0.2, sigma_data=0.3)
        noise = torch.randn(100, 64, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            drawn = 2 * network.draw(noise, None, Sampling(num_steps=40)) - 1
        exact = GaussianMixture(means=torch.full((1, 1), -0.2), stds=torch.tensor([0.3]))
        assert drawn.mean().item() == pytest.approx(-0.2, abs=0.01)
        assert drawn.std().item() == pytest.approx(0.3, abs=0.015)
        x = torch.randn(5, 1, dtype=torch.float64)
        ours = network.denoise(x[:, :, None, None].expand(-1, 1, 8, 8), torch.full((5,), 0.4), None)
        assert torch.allclose(ours[:, 0, 0, :1], exact(x, torch.tensor(0.4, dtype=torch.float64)), atol=1e-6)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"num_steps": 0}, "at least 1, got 0"),
            ({"num_steps": -3}, "at least 1, got -3"),
            ({"method": "huen"}, "did you mean 'heun'"),
            ({"eta": 0.5}, "ddim's alone"),
            ({"guidance": float("nan")}, "guidance must be finite"),
            ({"interval": (2.0, 1.0)}, "0 <= low < high"),
        ],
    )
    def test_what_cannot_be_is_refused(self, wrong: dict[str, Any], message: str):
        with pytest.raises(InputError, match=message):
            Sampling(**wrong)

    def test_models_of_one_step_and_without_classes_refuse(self):
        vae = VAE(latent_dim=2, width=8, hidden=8).network(size=8, channels=1, num_classes=0)
        about = {"classes": (), "shares": (), "trained_on": "", "recipe": ""}
        with pytest.raises(InputError, match="a vae makes an image in one step"):
            Generator(kind="vae", network=vae, **about).sample(1, sampling=Sampling())
        plain = DiffusionNetwork(size=8, channels=1, num_classes=0, shape=SMALL)
        with pytest.raises(InputError, match="must be 1, got 2"):
            Generator(kind="diffusion", network=plain, **about).sample(1, sampling=Sampling(guidance=2.0))
        with pytest.raises(InputError, match="guidance 2 needs classes"):
            plain.denoiser(guidance=2.0)


def test_a_tenth_of_the_classes_is_hidden():
    pool, recipe = pictures(little_split(300)), Diffusion(**LITTLE)
    module = training_file.Trained(recipe.network(pool), recipe.levels)
    run = training_file.Run(recipe, pool, None, module, 0, Path(), silent)
    rows = np.arange(300)
    labels = torch.stack([training_file._shown_labels(run, Batch(epoch, rows, 300, epoch)) for epoch in range(10)])
    hidden = labels == 3
    assert hidden.double().mean().item() == pytest.approx(0.1, abs=4 * (0.09 / 3000) ** 0.5)
    assert torch.equal(labels[~hidden], torch.from_numpy(pool.labels).expand(10, -1)[~hidden])
    assert not torch.equal(hidden[0], hidden[1])  # others in each epoch
    part = training_file._shown_labels(run, Batch(4, rows[70:90], 20, 9))
    assert torch.equal(part, labels[4, 70:90])  # whatever the batch


class TestMemorising:
    def test_where_it_repeats_training_ends_and_the_reading_before_is_kept(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ):
        at: dict[int, str] = {}

        def check(generator: Generator, learned: Any, held_out: Any, **_: Any) -> Memorisation:
            at[len(at) + 1] = generator.fingerprint
            heart = len(at) == 3
            return Memorisation(share=0.5, expected=0.5, z=0.0, p_value=1e-4 if heart else 0.5, least_p_value=1e-4,
                                verdict="memorised" if heart else "no sign of it")  # fmt: skip

        monkeypatch.setattr(training_file, "check_memorisation", check)
        recipe = Diffusion(**{**LITTLE, "shape": MLPShape(dim=8, depth=1)}, epochs=5)
        kept = recipe.fit(little_split(), val=little_split(20, seed=9), directory=tmp_path)
        assert kept.fingerprint == at[2]
        assert len(at) == 3
        assert kept.record["events"] == [
            "images repeat training images after epoch 3 of 5 (p = 0.0001): training ended, and what it was after "
            "epoch 2 is kept; more images are the remedy"
        ]
        again = recipe.fit(little_split(), val=little_split(20, seed=9), directory=tmp_path)
        assert same(again, kept)
        assert again.record["readings"] == kept.record["readings"]
        assert len(at) == 3  # nothing was asked again

    def test_copies_are_seen_and_strangers_are_not(self, monkeypatch: pytest.MonkeyPatch):
        split, other = little_split(60), little_split(60, seed=9)
        pool, held_out = (pictures(each) for each in (split, other))

        class Copying(nn.Module):
            """Makes the images of a split, in any order."""

            noise_dim, config = 1, MappingProxyType({})

            def __init__(self, of: Pictures) -> None:
                super().__init__()
                self.of = of

            def draw(self, noise: torch.Tensor, labels: None, sampling: Sampling, *, seed: int, indices: list[int]):
                return self.of.batch(np.array(indices) % len(self.of))

        def answer(of: Pictures) -> Memorisation:
            made = Generator(kind="copies", network=Copying(of), classes=(), shares=(), trained_on="", recipe="")
            return training_file.check_memorisation(made, pool, held_out, seed=0, significance=0.005)

        answer_of_a_test = answer(pool)
        assert answer(pool).verdict == "memorised"
        told: list[torch.Tensor] = []
        with monkeypatch.context() as patch:
            patch.setattr(memorising, "memorisation_test", lambda *of, **_: told.extend(of) or answer_of_a_test)
            answer(pool)
        made, learned, _ = told
        assert torch.allclose(made, learned[torch.arange(len(made)) % len(learned)], atol=0.6 / 255)  # on one scale
        assert answer(pictures(little_split(60, seed=5))).verdict == "no sign of it"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"class_drop": 1.0}, r"class_drop and memory must lie in \[0, 1\)"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"sigma_min": 90.0}, "0 < sigma_min < sigma_max"),
        ({"epochs": 0}, "epochs must be at least 1"),
    ],
)
def test_recipes_that_cannot_be(wrong: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        Diffusion(**wrong)


def test_images_that_cannot_be():
    with pytest.raises(InputError, match="a diffusion model needs about 500 images"):
        Diffusion().fit(little_split())
    with pytest.raises(InputError, match="needs every image's label"):
        Diffusion(**LITTLE, conditional=True).fit(replace(little_split(), labels=np.full(40, -1)))
    flat = replace(little_split(), sources=tuple(np.zeros((8, 8, 3), dtype=np.uint8) for _ in range(40)))
    with pytest.raises(InputError, match="nothing to learn"):
        Diffusion(**LITTLE).fit(flat)

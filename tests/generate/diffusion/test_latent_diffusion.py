"""Latent diffusion: of latents that are known exactly, to the same bits after a stop, and what it refuses."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from headfirst.data import ImageSplit
from headfirst.errors import FingerprintError, InputError, Interrupted
from headfirst.generate import (
    VAE,
    Diffusion,
    GaussianDecoder,
    GaussianLatent,
    Generator,
    LatentDiffusion,
    Sampling,
    load_generator,
    pictures,
)
from headfirst.generate.diffusion import Augmentation, EDMWeighting, LogNormalLevels, require_teacher
from headfirst.generate.diffusion.loss import mean_loss
from headfirst.nn import MLPShape, VAENetwork
from tiny import make_split

LITTLE: dict[str, Any] = {
    "shape": MLPShape(dim=16, depth=1), "batch_size": 16, "fewest": 10, "sampling": Sampling(num_steps=3),
}  # fmt: skip
LEVELS, STD, CORRELATION = LogNormalLevels(mean=-0.5, std=1.2), 24.0, 0.9


class Pixels(VAENetwork):
    """The latents are four pixels, and the decoder puts them back."""

    def __init__(self) -> None:
        super().__init__(size=8, channels=1, latent_dim=4, width=4, hidden=4, num_classes=0,
                         decoder=GaussianDecoder(variance=0.1), latent=GaussianLatent())  # fmt: skip

    def encode(self, images: Tensor, labels: None) -> tuple[Tensor, Tensor]:
        return images[:, 0, 0, :4], torch.full((len(images), 4), -30.0, dtype=images.dtype)

    def decode(self, latents: Tensor, labels: None) -> Tensor:
        return torch.nn.functional.pad(latents[:, None, None], (0, 4, 0, 7))


class Exact:
    """The best denoiser of pairs with this correlation: D = C (C + σ² I)⁻¹ x."""

    sample_batch, noise_dim, sigma_data = 64, 4, 1.0

    def __init__(self, x0: Any) -> None:
        self.x0, pair = x0, torch.tensor([[1.0, CORRELATION], [CORRELATION, 1.0]])
        self.covariance = torch.block_diag(pair, pair)

    def denoise(self, x: Tensor, sigma: Tensor, labels: None, augmentation: None = None) -> Tensor:
        whole = self.covariance + sigma[:, None, None] ** 2 * torch.eye(4)
        return (self.covariance @ torch.linalg.solve(whole, x[:, :, 0]))[..., None]

    def to(self, device: Any) -> Exact:
        return self

    def cpu(self) -> Exact:
        return self


def gaussian_split(num: int, seed: int) -> ImageSplit:
    """Grey 8 × 8 images of which two pairs of pixels are normal, correlated within the pair."""
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(2, num, 2))
    pairs = np.stack([a, CORRELATION * a + (1 - CORRELATION**2) ** 0.5 * b], axis=-1).reshape(num, 4)
    images = np.full((num, 8, 8, 3), 128, dtype=np.uint8)
    images[:, 0, :4] = (128 + STD * pairs).round().clip(0, 255)[..., None]
    split = make_split("train", num, seed=0)
    return replace(split, sources=tuple(images), labels=np.full(num, -1))


def generator_of(network: Any, kind: str = "vae", classes: tuple[str, ...] = ()) -> Generator:
    return Generator(kind=kind, network=network, classes=classes, shares=(1 / 3,) * len(classes), trained_on="",
                     recipe="")  # fmt: skip


def little_split(num: int = 40, seed: int = 0) -> ImageSplit:
    """8 × 8 pixels."""
    split = make_split("train", num, seed=seed)
    return replace(split, sources=tuple(np.ascontiguousarray(np.asarray(s)[::2, ::2]) for s in split.sources))


def vae_of(num_classes: int) -> Generator:
    """Untrained, and its latents far from standard normal: about N(3, 2²)."""
    network = VAE(latent_dim=4, width=8, hidden=8).network(size=8, channels=3, num_classes=num_classes)
    with torch.no_grad():
        network.to_latent.bias.copy_(torch.tensor([3.0] * 4 + [np.log(4.0)] * 4))
    return generator_of(network.eval(), classes=("red", "green", "blue")[:num_classes])


@pytest.fixture(scope="module")
def vae() -> Generator:
    return vae_of(3)


@pytest.fixture(scope="module")
def recipe(vae: Generator) -> LatentDiffusion:
    return LatentDiffusion(**LITTLE, vae=vae, epochs=3, importance=True)


@pytest.fixture(scope="module")
def whole(recipe: LatentDiffusion) -> Generator:
    return recipe.fit(little_split())


@pytest.fixture(scope="module")
def gaussian() -> Generator:
    recipe = LatentDiffusion(vae=generator_of(Pixels().eval()), shape=MLPShape(dim=32, depth=1), epochs=40,
                             batch_size=256, lr=1e-2, levels=LEVELS)  # fmt: skip
    return recipe.fit(gaussian_split(1024, seed=0))


class TestGaussianLatents:
    def test_it_learns_the_best_denoiser(self, gaussian: Generator):
        fresh = pictures(gaussian_split(1000, seed=1))
        about: dict[str, Any] = {"levels": LEVELS, "weighting": EDMWeighting(), "seed": 0}
        about["device"] = torch.device("cpu")
        exact = mean_loss(generator_of(Exact(gaussian.network.x0)), fresh, **about)
        sigma = LEVELS.quantile((torch.arange(1000) + 0.5) / 1000)[:, None]
        eigenvalues = torch.tensor([1 + CORRELATION, 1 - CORRELATION])
        theory = ((1 + sigma**2) * eigenvalues / (eigenvalues + sigma**2)).mean().item()
        assert exact == pytest.approx(theory, rel=0.04)
        assert 0.995 * exact < mean_loss(gaussian, fresh, **about) < 1.04 * exact
        with torch.no_grad():
            silent = LatentDiffusion(vae=generator_of(Pixels()), levels=LEVELS).network(fresh)
        assert mean_loss(generator_of(silent), fresh, **about) == pytest.approx(1, rel=0.04)  # knows no correlation

    def test_what_it_draws_is_as_it_was(self, gaussian: Generator):
        drawn = gaussian.sample(1000, sampling=Sampling(num_steps=12)).pixels[:, 0, 0, :4].double()
        assert drawn.mean(dim=0).numpy() == pytest.approx(np.full(4, 128), abs=4)
        assert drawn.std(dim=0).numpy() == pytest.approx(np.full(4, STD), rel=0.15)
        found = np.corrcoef(drawn.T.numpy())
        assert found[0, 1] == pytest.approx(CORRELATION, abs=0.06)
        assert found[2, 3] == pytest.approx(CORRELATION, abs=0.06)
        assert abs(found[0, 2]) < 0.15


class TestLatents:
    def test_each_epoch_sees_another_draw_of_mean_0_and_deviation_1(self, recipe: LatentDiffusion):
        pool = pictures(little_split(300))
        network = recipe.network(pool)
        assert network.std.numpy() == pytest.approx(np.full(4, 2.0), rel=0.2)
        assert network.mean.numpy() == pytest.approx(np.full(4, 3.0), abs=0.6)
        shown, rows = recipe.shown(network, pool), np.arange(300)
        x0, told = shown(rows, 0, 1)
        assert told is None
        assert x0.shape == (300, 4, 1, 1)
        assert x0.mean(dim=0).abs().max() < 0.2
        assert (x0.std(dim=0) - 1).abs().max() < 0.15
        assert torch.allclose(shown(rows[70:90], 0, 1)[0], x0[70:90], atol=1e-6)  # whatever the batch
        assert not torch.allclose(shown(rows, 0, 2)[0], x0, atol=0.1)

    def test_the_decoder_is_told_the_class_and_given_latents_in_their_own_units(self, recipe: LatentDiffusion):
        network, labels = recipe.network(pictures(little_split())), torch.tensor([0, 1])
        noise = torch.ones(2, 4)
        x = network.denoising.path_end(noise, labels)
        assert torch.equal(x[0], x[1])  # the denoiser is silent yet
        a, b = network.draw(noise, labels)
        assert not torch.allclose(a, b, atol=1e-4)
        z = (network.mean + network.std * x[:, :, 0, 0]).float()
        assert torch.allclose(network.vae.decoder.mean(network.vae.decode(z, labels)), torch.stack([a, b]), atol=1e-6)


class TestTraining:
    def test_stopped_anywhere_it_ends_in_the_same_bits(self, recipe: LatentDiffusion, whole: Generator, tmp_path: Path):
        def kill(stage: str, done: int, total: int) -> None:
            if "training" in stage and done == 5:
                signal.raise_signal(signal.SIGTERM)

        with pytest.raises(Interrupted):
            recipe.fit(little_split(), directory=tmp_path, progress=kill)
        again = recipe.fit(little_split(), directory=tmp_path)
        assert again.fingerprint == whole.fingerprint
        assert again.record["readings"] == whole.record["readings"]
        with pytest.raises(FingerprintError):  # of another VAE
            replace(recipe, vae=other_vae()).fit(little_split(), directory=tmp_path)

    def test_the_vae_stays_what_it_was(self, recipe: LatentDiffusion, whole: Generator, vae: Generator):
        fresh = recipe.network(pictures(little_split()))
        inside = whole.network.vae.state_dict()
        assert all(torch.equal(inside[name], value) for name, value in vae.network.state_dict().items())
        assert not torch.equal(whole.network.denoising.inner.end.weight, fresh.denoising.inner.end.weight)
        assert fresh.vae is not vae.network  # nor is the one that was given frozen
        assert not any(parameter.requires_grad for parameter in fresh.vae.parameters())
        assert all(parameter.requires_grad for parameter in fresh.denoising.parameters())

    def test_it_comes_back_from_disk(self, whole: Generator, tmp_path: Path):
        back = load_generator(whole.save(tmp_path / "model"))
        assert back.kind == "latent-diffusion"
        assert back.fingerprint == whole.fingerprint
        assert torch.equal(back.sample(3).pixels, whole.sample(3).pixels)

    @pytest.mark.parametrize("method", ["ddpm", "dpm_pp_2m"])
    def test_an_image_is_the_same_in_any_company(self, whole: Generator, method: str):
        sampling = Sampling(method=method, num_steps=2, guidance=2.0)
        many = whole.sample(70, seed=3, sampling=sampling)
        few = whole.sample(3, seed=3, start=63, sampling=sampling)
        assert torch.equal(many.pixels[63:66], few.pixels)
        assert torch.equal(many.labels[63:66], few.labels)

    def test_noise_on_the_way_is_of_the_seed(self, whole: Generator):
        noise = torch.randn(1, whole.network.noise_dim, generator=torch.Generator().manual_seed(0))
        ask = noise, torch.zeros(1, dtype=torch.int64), Sampling(method="ddpm", num_steps=3)
        a, again, b = (whole.network.draw(*ask, seed=seed) for seed in (1, 1, 2))
        assert torch.equal(a, again)
        assert not torch.equal(a, b)

    def test_a_vae_without_classes_may_have_a_denoiser_with_them(self):
        made = LatentDiffusion(**LITTLE, vae=vae_of(0), epochs=1).fit(little_split(), val=little_split(20, seed=9))
        assert made.classes == ("red", "green", "blue")
        assert made.sample(2, label=1).labels.tolist() == [1, 1]
        assert made.record["readings"][0]["val_loss"] > 0


def other_vae() -> Generator:
    made = vae_of(3)
    with torch.no_grad():
        made.network.to_latent.bias.add_(1e-3)
    return made


class TestRefusals:
    def test_recipes_that_cannot_be(self, vae: Generator):
        with pytest.raises(InputError, match="latents are a VAE's, and this generator is a gan"):
            LatentDiffusion(vae=generator_of(torch.nn.Linear(1, 1), "gan"))
        with pytest.raises(InputError, match="knows images of 8 pixels a side, got 16"):
            LatentDiffusion(vae=vae, size=16)
        with pytest.raises(InputError, match="dim and depth must be at least 1"):
            MLPShape(dim=0)
        with pytest.raises(InputError, match="nothing to learn"):
            LatentDiffusion(**LITTLE, vae=generator_of(Constant())).fit(gaussian_split(40, seed=0))

    def test_images_that_are_not_the_vae_s(self, vae: Generator):
        recipe = LatentDiffusion(**LITTLE, vae=vae)
        others = replace(little_split(), classes=("a", "b", "c"))
        with pytest.raises(InputError, match="knows the classes red, green, blue, got a, b, c"):
            recipe.fit(others)
        bare = replace(little_split(), labels=np.full(40, -1))
        with pytest.raises(InputError, match="got images without labels"):
            recipe.fit(little_split(), val=bare)
        grey = LatentDiffusion(**LITTLE, vae=generator_of(Pixels()))
        with pytest.raises(InputError, match="knows grey images"):
            grey.fit(little_split())

    def test_what_is_of_pixels_alone(self, whole: Generator, vae: Generator):
        with pytest.raises(InputError, match="augmentation is of pixels"):
            LatentDiffusion(vae=vae, augmentation=Augmentation())
        with pytest.raises(InputError, match="only a diffusion model of pixels can be distilled"):
            require_teacher(whole)


class Constant(Pixels):
    def encode(self, images: Tensor, labels: None) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(images), 4), torch.full((len(images), 4), -1e9)


def test_a_perceptron_denoises_pixels_too():
    made = Diffusion(**LITTLE, epochs=1).fit(little_split())
    assert made.network.x_shape == (3, 8, 8)
    assert made.sample(2).pixels.shape == (2, 3, 8, 8)

"""Training a VAE: against probabilistic PCA, to the same bits after a stop, with classes, and what it refuses."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from headfirst.data import ImageSet, ImageSplit
from headfirst.errors import FingerprintError, InputError, Interrupted
from headfirst.generate import (
    VAE,
    BernoulliDecoder,
    GaussianDecoder,
    GaussianLatent,
    Generator,
    LogisticLatent,
    Pictures,
    bound,
    elbo,
    encode,
    load_generator,
    pictures,
    reparameterised,
)
from headfirst.generate.vae import _watched, vae_loss
from headfirst.train import Optimisation, decay_groups, train
from tiny import make_split

VARIANCE = 0.05
LITTLE: dict[str, Any] = {"latent_dim": 4, "width": 8, "hidden": 16, "batch_size": 16, "fewest": 10}


class Linear(nn.Module):
    """x ~ N(Wz + b, σ²I), q(z | x) = N(Vx + c, diag d), on 8 × 8 pixels."""

    size, channels, num_classes, noise_dim = 8, 1, 0, 4
    latent, decoder = GaussianLatent(), GaussianDecoder(variance=VARIANCE)

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 64), nn.Linear(64, 4)
        self.log_d = nn.Parameter(torch.zeros(4))

    def encode(self, images: Tensor, labels: None) -> tuple[Tensor, Tensor]:
        location = self.down(images.flatten(1))
        return location, self.log_d.expand_as(location)

    def decode(self, latents: Tensor, labels: None) -> Tensor:
        return self.up(latents).unflatten(1, (1, 8, 8))

    def log_prior(self, latents: Tensor, labels: None) -> Tensor:
        return self.latent.log_density(latents, torch.zeros_like(latents), torch.zeros_like(latents))

    def log_likelihood(self, x: Tensor) -> np.ndarray:
        """Exactly: of N(b, WWᵀ + σ²I)."""
        W, b = self.up.weight.detach().double().numpy(), self.up.bias.detach().double().numpy()
        return stats.multivariate_normal(b, W @ W.T + VARIANCE * np.eye(64)).logpdf(x.flatten(1).double().numpy())


def linear() -> Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Linear()


def as_generator(network: Any) -> Generator:
    return Generator(kind="vae", network=network, classes=(), shares=(), trained_on="", recipe="")


@pytest.fixture(scope="module")
def uci() -> Pictures:
    """300 real digits of 8 × 8 pixels."""
    return pictures(ImageSet.digits()["unlabelled"].take(range(300)))


class TestLinear:
    def test_trained_it_is_probabilistic_pca(self, uci: Pictures):
        x, network = uci.batch(), linear()

        def loss(batch: Any) -> Tensor:
            e = torch.randn(len(x), 4, generator=torch.Generator().manual_seed(batch.step))
            return vae_loss(network, x, None, e, beta=1.0, minimum=0.0)

        train(network, loss, decay_groups(network, lr=0.03, weight_decay=0.0),
              Optimisation(epochs=500, batch_size=300, ema_decay=0.9), num_samples=300, seed=0)  # fmt: skip
        lam = np.linalg.eigvalsh(np.cov(x.flatten(1).double().numpy().T, bias=True))[::-1]
        logs = np.log(lam[:4]).sum() + 60 * np.log(VARIANCE)
        best = -0.5 * (64 * np.log(2 * np.pi) + logs + 4 + lam[4:].sum() / VARIANCE)  # Tipping & Bishop, 1999
        assert lam[3] > 2 * VARIANCE  # so that all four are in use
        reached = network.log_likelihood(x).mean()
        assert best - 0.05 < reached < best + 1e-6
        found = elbo(as_generator(network.requires_grad_(False)), uci, draws=200)
        assert found.mean == pytest.approx(best, abs=0.1)

    def test_the_bound_tends_to_the_exact_likelihood(self, uci: Pictures):
        network = linear().requires_grad_(False)
        network.up.weight *= 2
        network.up.bias += 0.3
        inverse = (network.up.weight.T @ network.up.weight + VARIANCE * torch.eye(4)).inverse()
        network.down.weight.copy_(inverse @ network.up.weight.T)  # the posterior's mean …
        network.down.bias.copy_(0.02 - network.down.weight @ network.up.bias)  # … missed a little
        network.log_d.copy_((1.5 * VARIANCE * inverse.diagonal()).log())
        some = replace(uci, split=uci.split.take(range(37)))
        truth = network.log_likelihood(some.batch())
        made = as_generator(network)
        few, many = bound(made, some, draws=5), bound(made, some, draws=2000)
        lower = elbo(made, some, draws=400)
        gap = many.per_image.numpy() - truth
        assert (np.abs(gap) < 4.5 * many.standard_errors.numpy() + 1e-3).all()
        assert many.standard_errors.max() < 0.1
        assert abs(many.mean - truth.mean()) < 4 * many.standard_error + 1e-3
        assert lower.mean + 0.05 < few.mean < many.mean - 0.05
        kl = stats.norm  # the parts, by another route: E log p(x|z) is Gaussian in closed form
        q = encode(made, some)
        spread = (network.up.weight.square() * q.spread[0].exp()).sum().item() / VARIANCE
        centre = network.decode(q.location, None).flatten(1).double().numpy()
        expected = kl(centre, VARIANCE**0.5).logpdf(some.batch().flatten(1).double().numpy()).sum(axis=1) - spread / 2
        assert lower.reconstruction.numpy() == pytest.approx(expected, abs=1.5)
        assert lower.reconstruction.mean().item() == pytest.approx(expected.mean(), abs=0.1)

    def test_a_refined_posterior_nears_the_exact_one(self, uci: Pictures):
        network = linear().requires_grad_(False)
        some = replace(uci, split=uci.split.take(range(20)))
        made, truth = as_generator(network), network.log_likelihood(some.batch())
        coarse, fine = (bound(made, some, draws=200, refine=steps) for steps in (0, 300))
        missed, near = (np.abs(found.per_image.numpy() - truth).mean() for found in (coarse, fine))
        assert near < missed / 10
        assert near < 0.5
        assert fine.effective_draws.mean() > 3 * coarse.effective_draws.mean()
        first = replace(uci, split=uci.split.take(range(3)))
        alone = bound(made, first, draws=200, refine=300)
        assert torch.allclose(alone.per_image, fine.per_image[:3], atol=1e-2)

    def test_neither_blocks_nor_company_change_an_images_draws(self, uci: Pictures):
        made = as_generator(linear().requires_grad_(False))
        first = replace(uci, split=uci.split.take(range(5)))
        some = replace(uci, split=uci.split.take(range(37)))
        assert torch.allclose(
            bound(made, first, draws=300).per_image, bound(made, some, draws=300).per_image[:5], atol=1e-4
        )
        network, x = made.network, some.batch()
        from headfirst.randomness import keyed_normal

        e = torch.from_numpy(keyed_normal(7, 32, np.array([36]), np.arange(300)[:, None], np.arange(4))).float()
        location, spread = (q[36:].expand(300, 4) for q in network.encode(x, None))
        z = reparameterised(location, spread, e)
        log_w = network.decoder.log_likelihood(network.decode(z, None), x[36:].expand(300, -1, -1, -1))
        log_w = log_w.double() + torch.distributions.Normal(0, 1).log_prob(z).sum(dim=1)
        log_w -= torch.distributions.Normal(location, (spread / 2).exp()).log_prob(z).sum(dim=1)
        expected = (log_w.logsumexp(dim=0) - np.log(300)).item()
        assert bound(made, some, draws=300, seed=7).per_image[36].item() == pytest.approx(expected, abs=1e-3)


def test_the_loss_is_its_two_terms(uci: Pictures):
    network, x, e = linear(), uci.batch(), torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    location, spread = network.encode(x, None)
    q = torch.distributions.Normal(location, (spread / 2).exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(dim=0)
    decoded = network.decode(location + (spread / 2).exp() * e, None)
    reconstruction = torch.distributions.Normal(decoded, VARIANCE**0.5).log_prob(x).sum(dim=(1, 2, 3)).mean()
    floor = kl.sort().values[1:3].mean().item()
    for beta, minimum, held in ((2.5, 0.0, kl), (2.5, floor, kl.clamp(min=floor)), (0.0, 0.0, kl)):
        found = vae_loss(network, x, None, e, beta=beta, minimum=minimum)
        assert found.item() == pytest.approx((beta * held.sum() - reconstruction).item(), rel=1e-5)


class TestTraining:
    def test_after_a_stop_it_ends_in_the_same_bits(self, tmp_path: Path):
        images, recipe = make_split("train", 48, seed=0), VAE(epochs=6, **LITTLE)
        seen: list[int] = []
        whole = recipe.fit(images, seed=3, watch=lambda epoch, _: seen.append(epoch))
        assert seen == [1, 2, 3, 4, 5, 6]

        def stop_at_11(stage: str, done: int, total: int) -> None:
            if stage.startswith("training") and done == 11:
                signal.raise_signal(signal.SIGTERM)

        with pytest.raises(Interrupted):
            recipe.fit(images, seed=3, directory=tmp_path, progress=stop_at_11)
        resumed = recipe.fit(images, seed=3, directory=tmp_path)
        assert resumed.fingerprint == whole.fingerprint
        assert resumed.record["losses"] == whole.record["losses"]
        assert resumed.record["readings"] == whole.record["readings"]
        assert recipe.fit(images, seed=3, directory=tmp_path).fingerprint == whole.fingerprint  # nothing left to do
        assert recipe.fit(images, seed=4).fingerprint != whole.fingerprint
        with pytest.raises(FingerprintError, match="another run"):
            replace(recipe, beta=2.0).fit(images, seed=3, directory=tmp_path)

    def test_looking_changes_nothing(self):
        images, recipe = make_split("train", 48, seed=0), VAE(epochs=2, **LITTLE)
        looked = recipe.fit(images, val=make_split("val", 12, seed=1), watch=lambda _, made: made.sample(3).pixels)
        alone = recipe.fit(images)
        assert looked.fingerprint == alone.fingerprint
        assert [reading["val_elbo"] is None for reading in alone.record["readings"]] == [True, True]
        assert all(reading["val_elbo"] < 0 for reading in looked.record["readings"])

    def test_what_is_watched_is_the_generator_as_it_would_be_kept(self):
        images, recipe = make_split("train", 32, seed=0), VAE(epochs=40, ema_decay=0.8, **LITTLE)
        watched: dict[int, Generator] = {}
        kept = recipe.fit(images, watch=lambda epoch, made: watched.update({epoch: made}))
        shown = _watched(pictures(images), 0)
        assert sorted(watched) == list(range(2, 41, 2))  # twenty at most
        assert watched[40].fingerprint == kept.fingerprint
        assert len(watched[6].record["readings"]) == 3
        assert len(kept.record["readings"]) == 20
        assert kept.record["readings"][-1]["elbo"] == pytest.approx(elbo(kept, shown).mean, abs=1e-3)
        assert watched[6].record["readings"][-1]["elbo"] == pytest.approx(elbo(watched[6], shown).mean, abs=1e-3)

    def test_the_average_of_the_weights_is_read_and_kept(self, tmp_path: Path):
        images = make_split("train", 32, seed=0)
        watched: list[Tensor] = []

        def first_bias(epoch: int, made: Generator) -> None:
            watched.append(made.network.to_latent.bias.clone())

        VAE(epochs=2, ema_decay=None, **LITTLE).fit(images, watch=first_bias)
        VAE(epochs=2, ema_decay=0.0, **LITTLE).fit(images, watch=first_bias)  # an average of the last weights alone
        VAE(epochs=2, ema_decay=0.9, **LITTLE).fit(images, watch=first_bias)
        assert torch.allclose(watched[0], watched[2], atol=1e-7)
        assert torch.allclose(watched[1], watched[3], atol=1e-7)
        assert not torch.allclose(watched[0], watched[4], atol=1e-5)

    def test_a_class_that_is_asked_for_comes(self):
        images = make_split("train", 90, seed=0)
        made = VAE(epochs=25, lr=0.01, decoder=GaussianDecoder(variance=0.1), **LITTLE).fit(images)
        assert (made.classes, made.shares) == (images.classes, pytest.approx((1 / 3,) * 3))
        for name in images.classes:
            asked = made.sample(20, label=made.label_of(name))
            brightest = asked.pixels.double().mean(dim=(2, 3)).argmax(dim=1)
            assert brightest.tolist() == [made.label_of(name)] * 20

    def test_round_trip(self, tmp_path: Path):
        made = VAE(epochs=1, latent=LogisticLatent(), decoder=GaussianDecoder(variance=0.1), **LITTLE).fit(
            make_split("train", 20, seed=0), force=True
        )
        back = load_generator(made.save(tmp_path / "made"))
        assert torch.equal(back.sample(5, seed=2).pixels, made.sample(5, seed=2).pixels)
        assert back.network.latent == LogisticLatent()
        assert back.network.decoder == GaussianDecoder(variance=0.1)

    def test_fewer_images_than_latents_are_kept_all_the_same(self, tmp_path: Path):
        made = VAE(epochs=1, **LITTLE).fit(make_split("train", 3, seed=0), force=True)
        assert made.record["readings"][0]["aggregate_distance"] is None
        assert load_generator(made.save(tmp_path / "made")).fingerprint == made.fingerprint

    def test_beta_warms_up(self):
        recipe = VAE(beta=4.0, warmup=0.5)
        assert [recipe.beta_at(step, 8) for step in range(8)] == [0, 1, 2, 3, 4, 4, 4, 4]
        assert VAE(beta=4.0, warmup=0.0).beta_at(0, 8) == 4
        images = make_split("train", 32, seed=0)
        late, soon = (
            VAE(epochs=2, beta=50.0, warmup=warmup, **LITTLE).fit(images).record["losses"] for warmup in (1.0, 0.0)
        )
        assert late[0] < soon[0]

    def test_identical_images_end_in_finite_numbers(self):
        one = make_split("train", 1, seed=0)
        same = ImageSplit(name="train", ids=tuple(map(str, range(12))), sources=one.sources * 12, classes=(),
                          labels=np.full(12, -1))  # fmt: skip
        for decoder in (VAE().decoder, GaussianDecoder(), BernoulliDecoder()):
            made = VAE(epochs=10, lr=0.01, decoder=decoder, **LITTLE).fit(same)
            assert np.isfinite([*made.record["losses"], bound(made, same, draws=3).mean]).all()
            assert all(parameter.isfinite().all() for parameter in made.network.parameters())

    def test_others_are_resized_and_an_empty_class_is_named(self):
        images = make_split("train", 30, seed=0)
        images = replace(images, classes=(*images.classes, "white"))
        made = VAE(epochs=1, size=12, **LITTLE).fit(images)
        assert made.network.size == 12
        assert made.record["events"][:2] == [
            "images are resized to 12 pixels on the shorter edge and cut to a square",
            "no image of white, which cannot be sampled",
        ]
        with pytest.raises(InputError, match="'white' had no training image"):
            made.sample(1, label=3)
        assert VAE(epochs=1, conditional=False, **LITTLE).fit(images).classes == ()

    def test_refuses(self):
        images = make_split("train", 30, seed=0)
        with pytest.raises(InputError, match="a VAE needs about 500 images to learn more than these by heart, got 30"):
            VAE().fit(images)
        with pytest.raises(InputError, match="needs every image's label"):
            VAE(conditional=True, **LITTLE).fit(replace(images, labels=np.full(30, -1)))
        with pytest.raises(InputError, match="beta and free_bits must be at least 0"):
            VAE(beta=-1.0)
        with pytest.raises(InputError, match="latent_dim and hidden must be at least 1"):
            VAE(latent_dim=0)
        with pytest.raises(InputError, match=r"ema_decay must lie in \[0, 1\)"):
            VAE(ema_decay=1.0)
        with pytest.raises(InputError, match="epochs must be at least 1"):
            VAE(epochs=0)
        with pytest.raises(InputError, match="lr must be positive"):
            VAE(lr=0.0)


class TestAsking:
    def test_refuses(self, uci: Pictures):
        grey = as_generator(linear())
        with pytest.raises(InputError, match="knows grey images of 8 pixels a side, got 3 channels and 8 pixels"):
            encode(grey, make_split("val", 3, seed=0))
        with pytest.raises(InputError, match="this generator is a gan"):
            encode(replace(grey, kind="gan"), uci)
        with pytest.raises(InputError, match="trained without classes, so labels must be None"):
            encode(grey, uci, labels=torch.zeros(300, dtype=torch.long))
        with pytest.raises(InputError, match="draws must be at least 1"):
            elbo(grey, uci, draws=0)
        with pytest.raises(InputError, match="at least two draws"):
            bound(grey, uci, draws=1)
        classes = replace(grey, classes=("a", "b"))
        with pytest.raises(InputError, match="needs every image's label, of a, b"):
            encode(classes, uci)
        with pytest.raises(InputError, match=r"labels must be \(300,\), each from 0 to 1"):
            encode(classes, uci, labels=torch.full((300,), 2))

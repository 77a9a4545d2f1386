"""The prior of each class: moments against a mixture's own, draws against both, densities against scipy's."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from headfirst.generate import VAE, GaussianLatent, LogisticLatent, encode, fit_class_priors, pictures
from headfirst.generate.class_priors import aggregate_moments
from tiny import make_split

Z = 3


def network(latent=None, num_classes: int = 2):
    recipe = VAE(latent_dim=Z, width=8, hidden=16, latent=latent or GaussianLatent())
    return recipe.network(size=12, channels=3, num_classes=num_classes)


def test_moments_are_those_of_draws():
    random = np.random.default_rng(0)
    location, variance = torch.from_numpy(random.normal(size=(5, Z))), torch.from_numpy(random.uniform(1, 2, (5, Z)))
    means, covariances = aggregate_moments(location, variance, torch.tensor([0, 0, 0, 0, 2]), 3)
    draws = location[:4].repeat(100_000, 1)
    draws = draws + variance[:4].sqrt().repeat(100_000, 1) * torch.from_numpy(random.normal(size=draws.shape))
    own = draws.T.cov()
    assert means[0].numpy() == pytest.approx(draws.mean(dim=0).numpy(), abs=0.02)
    assert means[2].numpy() == pytest.approx(location[4].numpy())
    pooled = (4 * own + variance[4].diag()) / 5
    assert covariances[0].numpy() == pytest.approx(((4 * own + Z * pooled) / (4 + Z)).numpy(), abs=0.03)
    assert covariances[2].numpy() == pytest.approx(((variance[4].diag() + Z * pooled) / (1 + Z)).numpy(), abs=0.03)
    assert torch.equal(means[1], torch.zeros(Z).double())
    assert torch.equal(covariances[1], torch.eye(Z).double())


@pytest.mark.parametrize("latent", [GaussianLatent(), LogisticLatent()])
def test_images_of_a_class_are_drawn_from_where_it_lies(latent):
    net = network(latent)
    net.prior_mean.copy_(torch.tensor([[0.0] * Z, [5.0, 0.0, -5.0]]))
    net.prior_factor[1] = torch.tensor([[0.5, 0, 0], [0.2, 0.1, 0], [0, 0, 2.0]])
    seen = []

    def decode(latents, labels):
        seen.append(latents)
        return torch.zeros(len(latents), 3, 4, 4)

    net.decode = decode
    net.decoder = SimpleNamespace(mean=lambda output: output)
    noise = torch.randn(20_000, Z, generator=torch.Generator().manual_seed(0))
    net(noise, torch.ones(20_000, dtype=torch.long))
    net(noise, torch.zeros(20_000, dtype=torch.long))
    drawn, plain = (each.double() for each in seen)
    unit = 1.0 if isinstance(latent, GaussianLatent) else np.pi**2 / 3
    expected = unit * (net.prior_factor[1] @ net.prior_factor[1].T).double().numpy()
    assert drawn.mean(dim=0).numpy() == pytest.approx([5, 0, -5], abs=0.1)
    assert drawn.T.cov().numpy() == pytest.approx(expected, rel=0.05, abs=0.05)
    zero = torch.zeros_like(noise)
    assert torch.equal(plain, latent.sample(zero, zero, noise).double())


def test_densities_are_scipys():
    net = network()
    net.prior_mean[1] = torch.tensor([1.0, 0.0, -1.0])
    net.prior_factor[1] = torch.tensor([[0.5, 0, 0], [0.2, 0.1, 0], [0, 0, 2.0]])
    z = torch.randn(6, Z, generator=torch.Generator().manual_seed(1))
    factor = net.prior_factor[1].double().numpy()
    normal = stats.multivariate_normal(net.prior_mean[1].numpy(), factor @ factor.T)
    labels = torch.ones(6, dtype=torch.long)
    assert net.log_prior(z, labels).numpy() == pytest.approx(normal.logpdf(z.numpy()), rel=1e-4)
    standard = stats.multivariate_normal(np.zeros(Z), np.eye(Z)).logpdf(z.numpy())
    assert net.log_prior(z, 0 * labels).numpy() == pytest.approx(standard, rel=1e-5)
    assert network(num_classes=0).log_prior(z, None).numpy() == pytest.approx(standard, rel=1e-5)


@pytest.mark.parametrize("latent", [GaussianLatent(), LogisticLatent()])
def test_fitted_on_a_trained_network(latent):
    images = make_split("train", 60, seed=0)
    made = VAE(latent_dim=Z, width=8, hidden=16, fewest=10, epochs=3, lr=0.01, latent=latent).fit(images)
    q, labels = encode(made, images), torch.from_numpy(images.labels)
    variance = latent.variance(q.spread.double())
    means, covariances = aggregate_moments(q.location.double(), variance, labels, 3)
    unit = 1.0 if isinstance(latent, GaussianLatent) else np.pi**2 / 3
    factor = made.network.prior_factor.double()
    assert made.network.prior_mean.numpy() == pytest.approx(means.numpy(), abs=1e-5)
    assert (unit * factor @ factor.mT).numpy() == pytest.approx(covariances.numpy(), rel=1e-3, abs=1e-4)
    again = VAE(latent_dim=Z, width=8, hidden=16, latent=latent).network(size=12, channels=3, num_classes=4)
    fit_class_priors(again, pictures(replace(images, classes=(*images.classes, "white")), size=12))
    assert torch.equal(again.prior_factor[3], torch.eye(Z) / unit**0.5)  # nothing is known of it

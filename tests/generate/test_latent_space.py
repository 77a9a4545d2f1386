"""Paths between latents, and what is said of latents that are used, unused or unlike their prior."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headfirst.data import ImageSplit
from headfirst.errors import InputError
from headfirst.generate import (
    VAE,
    BernoulliDecoder,
    GaussianLatent,
    Generator,
    LogisticLatent,
    Pictures,
    decode,
    latent_diagnostics,
    linear_path,
    pictures,
    spherical_path,
    traverse,
)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Told(nn.Module):
    """An encoder that answers what it was told, whatever the image; a decoder of one pixel value a latent."""

    size, channels, num_classes = 8, 1, 0
    decoder = BernoulliDecoder()

    def __init__(self, location: Tensor, spread: Tensor, latent: Any) -> None:
        super().__init__()
        self.location, self.spread, self.latent, self.at = location.float(), spread.float(), latent, 0
        self.noise_dim = location.shape[1]

    def encode(self, images: Tensor, labels: None) -> tuple[Tensor, Tensor]:
        rows = slice(self.at, self.at + len(images))
        self.at += len(images)
        return self.location[rows], self.spread[rows]

    def decode(self, latents: Tensor, labels: None) -> Tensor:
        return latents.float()[:, :1, None, None].expand(-1, 1, 8, 8)


def told(location: Tensor, spread: Tensor, latent: Any = None) -> Generator:
    network = Told(location, spread, latent or GaussianLatent())
    return Generator(kind="vae", network=network, classes=(), shares=(), trained_on="", recipe="")


def blank(n: int) -> Pictures:
    black = (np.zeros((8, 8, 3), np.uint8),) * n
    ids = tuple(map(str, range(n)))
    return pictures(ImageSplit(name="train", ids=ids, sources=black, classes=(), labels=np.full(n, -1)))


class TestPaths:
    def test_ends_and_middles(self):
        a, b = rows(7), rows(7, seed=1)
        for path in (linear_path(a, b, 5), spherical_path(a, b, 5)):
            assert torch.allclose(path[0], a, atol=1e-12)
            assert torch.allclose(path[-1], b, atol=1e-12)
        assert torch.allclose(linear_path(a, b, 5)[2], (a + b) / 2)
        assert torch.allclose(spherical_path(a, b, 5), spherical_path(b, a, 5).flip(0), atol=1e-12)

    def test_on_the_sphere_it_stays_and_its_steps_are_equal(self):
        a, b = (3 * x / x.norm() for x in (rows(7), rows(7, seed=1)))
        path = spherical_path(a, b, 9)
        assert torch.allclose(path.norm(dim=1), torch.full((9,), 3.0, dtype=torch.float64))
        steps = (path[1:] * path[:-1]).sum(dim=1) / 9
        assert torch.allclose(steps, steps[:1].expand(8))
        assert linear_path(a, b, 9)[4].norm() < 2.9

    def test_nearly_the_same_direction(self):
        a = rows(7).float()
        for b in (a, 2 * a, a + 1e-4 * rows(7, seed=1).float()):
            assert torch.allclose(spherical_path(a, b, 3)[1], (a + b) / 2, atol=1e-5)

    def test_refuses(self):
        a = rows(7)
        with pytest.raises(InputError, match="opposite ways"):
            spherical_path(a, -2 * a, 3)
        with pytest.raises(InputError, match="positive length; take linear_path"):
            spherical_path(a, 0 * a, 3)
        with pytest.raises(InputError, match=r"at least 2 steps, got \(7,\), \(7,\) and 1"):
            linear_path(a, a, 1)
        with pytest.raises(InputError, match=r"got \(7,\), \(6,\) and 3"):
            spherical_path(a, rows(6), 3)

    def test_traverse_moves_one_dimension(self):
        made = told(rows(1, 3), rows(1, 3))
        latent = torch.tensor([0.2, -1.0, 0.5])
        seen = traverse(made, latent, 0, (-2.0, 0.0, 2.0))
        assert torch.allclose(seen[:, 0, 0, 0], torch.tensor([-2.0, 0.0, 2.0]).sigmoid())
        assert torch.equal(traverse(made, latent, 1, (-2.0, 2.0)), decode(made, latent.repeat(2, 1)))
        assert latent.tolist() == pytest.approx([0.2, -1.0, 0.5])
        for dimension, values in ((3, (0.0,)), (-1, (0.0,)), (0, ())):
            with pytest.raises(InputError, match="dimension one of its Z"):
                traverse(made, latent, dimension, values)
        with pytest.raises(InputError, match=r"latents must be \(N, 3\), got \(2, 4\)"):
            decode(made, torch.zeros(2, 4))


class TestDiagnostics:
    N = 1500

    def test_an_aggregate_like_the_prior(self):
        # μ ~ N(0, 1 - σ²), so that the aggregate is N(0, 1); the third dimension says nothing
        share = torch.tensor([0.9, 0.5, 0.0]).double()
        location = share.sqrt() * rows(self.N, 3)
        found = latent_diagnostics(told(location, (1 - share).log().expand(self.N, 3)), blank(self.N))
        assert found.variance_of_means == pytest.approx(location.var(dim=0).tolist(), rel=1e-4)
        assert found.active_units == 2
        assert found.kl == pytest.approx(
            (0.5 * (location**2 - share - (1 - share).log())).mean(dim=0).tolist(), rel=1e-4
        )
        assert found.aggregate_mean == pytest.approx((0, 0, 0), abs=4 / self.N**0.5)
        assert found.aggregate_std == pytest.approx((1, 1, 1), abs=4 / (2 * self.N) ** 0.5)
        assert found.aggregate_distance < 4 * 3 * 6 / (4 * self.N)
        assert found.aggregate_p > 0.01
        assert found.warning is None

    def test_an_aggregate_unlike_the_prior(self):
        C = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
        m = torch.tensor([0.5, 0.0], dtype=torch.float64)
        location = m + rows(self.N, 2) @ torch.linalg.cholesky(C).T
        found = latent_diagnostics(told(location, torch.full((self.N, 2), -20.0)), blank(self.N))
        normal = torch.distributions.MultivariateNormal
        expected = torch.distributions.kl_divergence(
            normal(m, C), normal(torch.zeros(2).double(), torch.eye(2).double())
        )
        assert found.aggregate_distance == pytest.approx(expected.item(), abs=0.07)
        assert found.aggregate_mean == pytest.approx((0.5, 0), abs=0.11)
        assert found.aggregate_p < 1e-6

    def test_a_logistic_prior_is_mapped_to_the_normal(self):
        zero = torch.zeros(self.N, 2)
        found = latent_diagnostics(told(zero, zero, LogisticLatent()), blank(self.N))
        assert found.aggregate_std == pytest.approx((1, 1), abs=4 / (2 * self.N) ** 0.5)
        assert found.aggregate_p > 0.01
        assert found.kl == pytest.approx((0, 0), abs=1e-6)

    def test_what_the_warning_names(self):
        location = rows(self.N, 20) * 0.02
        location[:, 0] = rows(self.N, seed=1) * 0.2
        made = told(location, torch.zeros(self.N, 20))
        found = latent_diagnostics(made, blank(self.N))
        assert found.warning is not None
        assert "posterior collapse: 1 of 20 latent dimensions are active" in found.warning
        assert "the largest is 0.04) and an image's latents hold 0.02" in found.warning
        location[:, 1:3] = rows(self.N, 2, seed=2)
        assert latent_diagnostics(told(location, torch.zeros(self.N, 20)), blank(self.N)).warning is None

    def test_it_fires_at_a_large_beta_and_not_at_one_nor_with_free_bits(self):
        half = np.zeros((8, 8, 3), np.uint8)
        half[:, :4] = 255  # left or right: one bit of 44 nats, as long as a nat costs less than they do
        images = ImageSplit(name="train", ids=tuple(map(str, range(48))), sources=(half, 255 - half) * 24, classes=(),
                            labels=np.full(48, -1))  # fmt: skip
        plain: dict[str, Any] = {
            "epochs": 20,
            "batch_size": 8,
            "latent_dim": 4,
            "width": 8,
            "hidden": 32,
            "lr": 0.01,
            "decoder": BernoulliDecoder(),
            "fewest": 10,
            "warmup": 0.0,
        }
        one = VAE(**plain).fit(images)
        large = VAE(beta=100.0, **plain).fit(images)
        held = VAE(beta=100.0, free_bits=0.5, **plain).fit(images)
        events = [[event for event in made.record["events"] if "collapse" in event] for made in (one, large, held)]
        assert [len(found) for found in events] == [0, 1, 0]
        assert "0 of 4 latent dimensions are active" in events[1][0]
        last = [made.record["readings"][-1] for made in (one, large, held)]
        assert last[0]["kl"] > np.log(2)
        assert last[0]["elbo"] > -4
        assert last[1]["kl"] < 0.1
        assert last[2]["kl"] == pytest.approx(4 * 0.5, abs=0.4)

    def test_refuses(self):
        with pytest.raises(InputError, match="at least two images, got 1"):
            latent_diagnostics(told(rows(1, 2), rows(1, 2)), blank(1))

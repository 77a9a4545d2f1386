"""Decoders, latents and the network between them, against sums over all grey values and scipy."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from headfirst.errors import InputError
from headfirst.generate import BernoulliDecoder, DiscretisedLogisticDecoder, GaussianDecoder, LogisticLatent
from headfirst.generate.vae import vae_loss
from headfirst.nn import Decoder, GaussianLatent, Latent, VAENetwork

DECODERS = [BernoulliDecoder(), GaussianDecoder(), GaussianDecoder(variance=0.02), DiscretisedLogisticDecoder()]
LATENTS = [GaussianLatent(), LogisticLatent()]


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(decoder: Decoder = DECODERS[3], latent: Latent = LATENTS[0], size: int = 12, channels: int = 1,
            num_classes: int = 0) -> VAENetwork:  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VAENetwork(size=size, channels=channels, latent_dim=5, width=8, hidden=16, num_classes=num_classes,
                          decoder=decoder, latent=latent)  # fmt: skip


def levels(n: int, channels: int, size: int) -> Tensor:
    return (torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1)) * 255).round() / 255


class TestDecoders:
    def test_the_discretised_mean_is_the_mean_of_all_grey_values(self):
        decoder = DiscretisedLogisticDecoder()
        for location, raw in ((0.3, 0.0), (0.9, -1.0), (-0.5, 1.0), (0.5, -3.0), (1.4, 0.5)):
            output = torch.tensor([location, raw], dtype=torch.float64).reshape(1, 2, 1, 1)
            grey = torch.arange(256, dtype=torch.float64).reshape(-1, 1, 1, 1) / 255
            p = decoder.log_likelihood(output.expand(256, -1, -1, -1), grey).exp()
            assert p.sum().item() == pytest.approx(1, abs=1e-9)
            assert decoder.mean(output).item() == pytest.approx((p * grey.flatten()).sum().item(), abs=1 / 510)

    def test_gaussian_parameters_are_scipys(self):
        x, mean, raw = rows(3, 1, 4, 4).sigmoid(), rows(3, 1, 4, 4, seed=1), rows(3, 1, 4, 4, seed=2)
        found = GaussianDecoder().log_likelihood(torch.cat([mean, raw], dim=1), x)
        expected = stats.norm(mean.numpy(), np.exp((raw.numpy() - 2) / 2)).logpdf(x.numpy()).sum(axis=(1, 2, 3))
        assert found.numpy() == pytest.approx(expected, rel=1e-10)
        fixed = GaussianDecoder(variance=0.04).log_likelihood(mean, x)
        assert fixed.numpy() == pytest.approx(stats.norm(mean.numpy(), 0.2).logpdf(x.numpy()).sum(axis=(1, 2, 3)))

    def test_a_pixel_that_never_changes_has_a_bounded_density(self):
        for raw in (-46.0, -1e4):
            output = torch.tensor([0.0, raw]).reshape(1, 2, 1, 1)
            found = GaussianDecoder().log_likelihood(output, torch.zeros(1, 1, 1, 1)).item()
            assert found == pytest.approx(math.log(255) - 0.5 * math.log(2 * math.pi), rel=1e-6)

    def test_black_and_white_can_be_certain(self):
        output = torch.tensor([[-2.0, -3.0], [3.0, -3.0]]).reshape(2, 2, 1, 1)
        found = DiscretisedLogisticDecoder().log_likelihood(output, torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1))
        assert (found > -1e-6).all()

    @pytest.mark.parametrize("decoder", DECODERS)
    @pytest.mark.parametrize("value", [-1e4, -46.0, 46.0, 1e4])
    def test_extremes_are_finite_in_value_and_gradient(self, decoder: Decoder, value: float):
        output = torch.full((2, decoder.num_outputs(3), 4, 4), value, requires_grad=True)
        found = decoder.log_likelihood(output, levels(2, 3, 4))
        (gradient,) = torch.autograd.grad(found.sum(), output)
        assert found.isfinite().all()
        assert gradient.isfinite().all()
        mean = decoder.mean(output)
        assert mean.shape == (2, 3, 4, 4)
        assert ((mean >= 0) & (mean <= 1)).all()

    def test_refuses(self):
        for variance in (0.0, -1.0, math.nan):
            with pytest.raises(InputError, match="variance must be positive and finite, or None to learn it"):
                GaussianDecoder(variance=variance)


class TestLatents:
    @pytest.mark.parametrize("latent", LATENTS)
    def test_the_kl_is_the_difference_of_log_densities_on_average(self, latent: Latent):
        n = 20_000
        location, spread = torch.tensor([[0.7, -1.5]]).double(), torch.tensor([[-1.0, 0.4]]).double()
        location, spread, noise = location.expand(n, 2), spread.expand(n, 2), rows(n, 2)
        zero, z = torch.zeros(n, 2).double(), latent.sample(location, spread, noise)
        each = latent.log_density(z, location, spread) - latent.log_density(z, zero, zero)
        kl = latent.kl(location, spread, noise)
        assert kl.shape == (n, 2)
        gap = kl.sum(dim=1) - each
        assert abs(gap.mean().item()) < 4 * (gap.std().item() + 1e-12) / n**0.5

    def test_logistic_samples_and_prior_are_scipys(self):
        location, spread, noise = rows(4000, 1), rows(4000, 1, seed=1), rows(4000, 1, seed=2)
        z = LogisticLatent().sample(location, spread, noise)
        expected = stats.logistic(location.numpy(), spread.exp().numpy()).ppf(stats.norm.cdf(noise.numpy()))
        assert z.numpy() == pytest.approx(expected, abs=1e-8)
        assert LogisticLatent().prior_cdf(z).numpy() == pytest.approx(stats.logistic.cdf(z.numpy()), abs=1e-12)
        assert GaussianLatent().prior_cdf(z).numpy() == pytest.approx(stats.norm.cdf(z.numpy()), abs=1e-12)

    def test_forward_draws_from_the_prior_of_its_latent(self):
        net, noise = network(latent=LogisticLatent()), rows(3, 5).float()
        z = torch.from_numpy(stats.logistic.ppf(stats.norm.cdf(noise.numpy()))).float()
        with torch.no_grad():
            assert torch.allclose(net(noise, None), net.decoder.mean(net.decode(z, None)), atol=1e-5)
            assert not torch.allclose(net(noise, None), net.decoder.mean(net.decode(noise, None)), atol=1e-5)


class TestNetwork:
    @pytest.mark.parametrize(("size", "channels"), [(8, 1), (12, 3), (28, 1), (64, 3)])
    @pytest.mark.parametrize("decoder", DECODERS)
    def test_any_side_and_an_image_is_the_same_in_any_company(self, decoder: Decoder, size: int, channels: int):
        net = network(decoder, size=size, channels=channels)
        x, noise = levels(3, channels, size), rows(3, 5).float()
        with torch.no_grad():
            assert net(noise, None).shape == (3, channels, size, size)
            assert torch.allclose(net.encode(x, None)[0][1:2], net.encode(x[1:2], None)[0], atol=1e-5)
            assert torch.allclose(net(noise, None)[1:2], net(noise[1:2], None), atol=1e-5)

    def test_config_and_weights_are_all_there_is(self):
        for decoder in DECODERS:
            net = network(decoder, LogisticLatent(), num_classes=3)
            again = VAENetwork.from_config(**json.loads(json.dumps(net.config)))
            again.load_state_dict(net.state_dict())
            labels, noise = torch.tensor([0, 2]), rows(2, 5).float()
            assert torch.equal(net(noise, labels), again(noise, labels))
            assert (again.decoder, again.latent) == (net.decoder, net.latent)

    @pytest.mark.parametrize("latent", LATENTS)
    @pytest.mark.parametrize("decoder", DECODERS)
    def test_the_loss_reaches_every_weight(self, decoder: Decoder, latent: Latent):
        net, labels = network(decoder, latent, num_classes=2), torch.tensor([0, 1, 1])
        vae_loss(net, levels(3, 1, 12), labels, rows(3, 5).float(), beta=1.0, minimum=0.0).backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 0, name

    def test_the_reconstruction_alone_reaches_the_encoder(self):
        net = network()
        vae_loss(net, levels(3, 1, 12), None, rows(3, 5).float(), beta=0.0, minimum=0.0).backward()
        gradient = net.to_latent.weight.grad
        assert gradient is not None
        assert (gradient.abs().amax(dim=1) > 0).all()  # through the sample: to locations and spreads

    def test_both_halves_read_the_class(self):
        net, x, z = network(num_classes=2), levels(1, 1, 12), rows(1, 5).float()
        zero, one = torch.tensor([0]), torch.tensor([1])
        assert not torch.allclose(net.encode(x, zero)[0], net.encode(x, one)[0], atol=1e-4)
        assert not torch.allclose(net.decode(z, zero), net.decode(z, one), atol=1e-4)

    def test_latents_of_any_size_stay_finite(self):
        net = network()
        for mean, log_variance in ((1e4, 46.0), (-1e4, -46.0)):
            q = torch.full((2, 5), mean), torch.full((2, 5), log_variance)
            output = net.decode(net.latent.sample(*q, rows(2, 5).float()), None)
            assert net.decoder.log_likelihood(output, levels(2, 1, 12)).isfinite().all()
            assert net.latent.kl(*q, torch.zeros(2, 5)).isfinite().all()

    def test_refuses(self):
        for size, channels in ((30, 1), (4, 1), (68, 3), (28, 2)):
            with pytest.raises(InputError, match=f"multiple of 4 from 8 to 64, got {channels} and {size}"):
                network(size=size, channels=channels)
        with pytest.raises(InputError, match="the network has no classes, and labels are given"):
            network()(torch.zeros(1, 5), torch.zeros(1, dtype=torch.long))
        with pytest.raises(InputError, match="the network has 2 classes, and labels are missing"):
            network(num_classes=2)(torch.zeros(1, 5), None)
        with pytest.raises(InputError, match="width a multiple of 4"):
            VAENetwork.from_config(**{**network().config, "width": 6})

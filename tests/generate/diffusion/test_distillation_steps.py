"""Progressive targets, consistency functions and their losses, against closed forms on Gaussians and mixtures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from headfirst.errors import InputError
from headfirst.generate.diffusion import (
    DiffusionNetwork,
    Distilled,
    GaussianMixture,
    LogNormalLevels,
    Sampling,
    consistency_distillation_loss,
    consistency_training_loss,
    euler,
    euler_step,
    guided,
    halved_levels,
    heun,
    heun_step,
    karras_sigmas,
    preconditioned,
    progressive_loss,
    progressive_target,
    pseudo_huber,
    relative_error,
    to_zero,
)
from headfirst.generate.diffusion.consistency_function import usual_huber
from headfirst.generate.diffusion.consistency_training import curriculum, drawn_intervals
from headfirst.generate.diffusion.course import teaching
from headfirst.nn import UNetShape

MIXTURE = GaussianMixture(
    means=torch.tensor([[-1.0, 0.5], [0.8, -0.3], [0.1, 1.2]], dtype=torch.float64),
    stds=torch.tensor([0.2, 0.4, 0.3], dtype=torch.float64),
)
STD, SIGMA_MIN = 0.7, 0.002


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_rows(x: Tensor, sigma: Tensor) -> Tensor:
    """The mixture's denoiser, a level for each row."""
    return torch.cat([MIXTURE(row[None], level) for row, level in zip(x, sigma.expand(len(x)), strict=True)])


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    return x * (STD**2 / (STD**2 + sigma**2))[:, None]


def exact_step(denoiser: object, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    return x * ((STD**2 + t**2) / (STD**2 + s**2)).sqrt()[:, None]


def end(x: Tensor, sigma: Tensor) -> Tensor:
    """The consistency function of N(0, STD²)."""
    return x * ((STD**2 + SIGMA_MIN**2) / (STD**2 + sigma**2)).sqrt()[:, None]


def network(distilled: Distilled | None = None, *, seed: int = 0) -> DiffusionNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = DiffusionNetwork(
            size=8,
            channels=1,
            num_classes=2,
            shape=UNetShape(widths=(8, 8), head_dim=8),
            mean=0.3,
            distilled=distilled,
        ).double()
        for name, parameter in made.inner.named_parameters():
            if name.endswith("weight") and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    return made.requires_grad_(False)


class TestProgressive:
    @pytest.mark.parametrize("i", [0, 2, 4, 6])
    def test_one_step_of_the_student_lands_where_two_of_the_teacher_do(self, i: int):
        levels = to_zero(karras_sigmas(8, SIGMA_MIN, 80.0))
        s, m, t = levels[i : i + 3]
        x = rows(64, 2) * s
        target = progressive_target(MIXTURE, x, s, m, t)
        student = euler_step(lambda x, sigma: target, x, s, t)
        teacher = euler(MIXTURE, x, levels[i : i + 3])
        assert (student - teacher).abs().max() <= 1e-12 * max(1.0, x.abs().max().item())
        assert (euler_step(MIXTURE, x, s, t) - teacher).abs().max() > 1e-6  # one step of the teacher does not

    def test_each_image_may_have_levels_of_its_own(self):
        levels = to_zero(karras_sigmas(6, 0.01, 10.0))
        i = torch.tensor([0, 2, 4, 2])
        s, m, t = levels[i], levels[i + 1], levels[i + 2]
        x = rows(4, 2) * s[:, None]
        together = progressive_target(of_rows, x, s, m, t)
        for row in range(4):
            alone = progressive_target(MIXTURE, x[row : row + 1], s[row], m[row], t[row])
            assert torch.allclose(together[row], alone[0], atol=1e-13)

    def test_nothing_is_lost_where_the_steps_are_short(self):
        s = torch.tensor(1.0)
        x = rows(8, 2).float()
        target = progressive_target(MIXTURE, x, s, s - 1e-6, s - 2e-6)
        assert (target - MIXTURE(x, s)).abs().max() < 1e-5

    def test_a_student_that_says_the_target_has_no_loss(self):
        s, m, t = (torch.full((16,), v, dtype=torch.float64) for v in (5.0, 2.0, 0.5))
        x = 5 * rows(16, 2)
        target = progressive_target(of_rows, x, s, m, t)

        def loss(student) -> float:
            return progressive_loss(student, of_rows, x, s, m, t, sigma_data=0.5).mean().item()

        assert loss(lambda x, sigma: target) == 0
        assert loss(lambda x, sigma: target + 0.1) == pytest.approx(0.01 * (25 + 0.25) / (5 * 0.5) ** 2)
        assert loss(of_rows) > 1e-3

    def test_half_the_levels_are_levels_of_their_own_ends(self):
        levels = to_zero(karras_sigmas(32))
        half = halved_levels(levels)
        again = to_zero(karras_sigmas(16, half[-2].item(), 80.0))
        assert torch.allclose(half, again, rtol=1e-12, atol=0)
        assert halved_levels(to_zero(karras_sigmas(2))).tolist() == [80.0, 0.0]
        with pytest.raises(InputError, match="even number of steps can be halved, got 3"):
            halved_levels(to_zero(karras_sigmas(3)))


class TestSteps:
    @pytest.mark.parametrize(("step", "sampler"), [(euler_step, euler), (heun_step, heun)])
    def test_a_step_is_that_of_the_sampler(self, step, sampler):
        s, t = torch.tensor([3.0, 1.0]), torch.tensor([1.0, 0.4])
        x = rows(2, 2)
        made = step(of_rows, x, s, t)
        for row in range(2):
            levels = torch.stack([s[row], t[row]])
            assert torch.allclose(made[row : row + 1], sampler(MIXTURE, x[row : row + 1], levels), atol=1e-12)


class TestConsistencyFunction:
    @pytest.mark.parametrize("sigma_min", [0.002, 0.5])
    def test_at_the_boundary_it_is_the_identity_whatever_the_network_says(self, sigma_min: float):
        x = rows(4, 1, 8, 8)
        sigma = torch.full((4,), sigma_min, dtype=torch.float64)
        student = network(Distilled(boundary=sigma_min))
        assert (student.denoise(x, sigma, torch.tensor([0, 1, 2, 0])) - x).abs().max() < 1e-12
        assert (network().denoise(x, sigma, torch.tensor([0, 1, 2, 0])) - x).abs().max() > 1e-4
        plain = preconditioned(lambda x, c_noise: 1e3 * x, 0.5, boundary=sigma_min)
        assert torch.equal(plain(x, sigma[0]), x)

    def test_that_of_a_gaussian_has_no_loss_where_the_step_is_exact(self):
        levels = karras_sigmas(18, SIGMA_MIN, 80.0)
        s, t = levels[:-1], levels[1:]
        x = s[:, None] * rows(17, 3)

        def loss(f) -> Tensor:
            return consistency_distillation_loss(f, f, gaussian, x, s, t, huber=1e-3, step=exact_step)

        assert loss(end).max() < 1e-9
        assert loss(lambda x, sigma: end(x, sigma) + 0.02 * sigma[:, None]).min() > 1e-6

    def test_of_heuns_step_its_loss_falls_with_the_cube(self):
        s = torch.full((64,), 2.0, dtype=torch.float64)
        x = 2 * rows(64, 3)

        def loss(h: float) -> float:
            return consistency_distillation_loss(end, end, gaussian, x, s, s - h, huber=1e-15).mean().item()

        assert math.log2(loss(0.05) / loss(0.025)) == pytest.approx(3, abs=0.15)

    def test_of_training_the_best_student_is_the_least_squares_one(self):
        # Of f = a x, with the target's a_t: a = a_t (v + s t) / (v + s²), where f⁻(x_t) is best guessed from x_s.
        s, t, a_t, v = 1.5, 1.1, 0.4, STD**2
        n = 400_000
        images, noise = STD * rows(n, 1), rows(n, 1, seed=1)
        levels = torch.full((n,), s, dtype=torch.float64), torch.full((n,), t, dtype=torch.float64)

        def loss(a: float) -> float:
            f, target = (lambda x, sigma: a * x), (lambda x, sigma: a_t * x)
            return consistency_training_loss(f, target, images, noise, *levels, huber=1e4).mean().item()

        low, middle, high = loss(0.2), loss(0.3), loss(0.4)
        best = 0.3 + 0.05 * (low - high) / (low - 2 * middle + high)
        assert best == pytest.approx(a_t * (v + s * t) / (v + s**2), rel=0.01)
        assert loss(0.3) == pytest.approx(((0.3 - a_t) ** 2 * v + (0.3 * s - a_t * t) ** 2) / (2e4 * (s - t)), rel=0.02)

    def test_the_target_gets_no_gradient(self):
        a = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        b = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        x, s, t = rows(8, 2), torch.full((8,), 2.0).double(), torch.full((8,), 1.0).double()
        consistency_distillation_loss(
            lambda x, sigma: a * x, lambda x, sigma: b * x, gaussian, x, s, t, huber=1.0
        ).sum().backward()
        assert a.grad is not None
        assert a.grad != 0
        assert b.grad is None

    def test_the_distance_is_a_square_near_zero_and_a_norm_far_away(self):
        d = rows(5, 3, 2)
        norm = d.flatten(1).norm(dim=1)
        assert torch.allclose(pseudo_huber(1e-4 * d, 1.0), (1e-4 * norm) ** 2 / 2, rtol=1e-6)
        assert torch.allclose(pseudo_huber(1e4 * d, 1.0), 1e4 * norm - 1, rtol=1e-6)
        with pytest.raises(InputError, match="c must be positive and finite, got 0"):
            pseudo_huber(d, 0.0)

    def test_intervals_are_as_likely_as_the_logarithm_lies_in_them(self):
        sigmas = karras_sigmas(6, 0.05, 3.0)
        u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
        drawn = drawn_intervals(sigmas, LogNormalLevels(mean=-1.1, std=2.0), u).bincount() / len(u)
        from scipy.stats import norm

        cdf = norm.cdf((np.log(sigmas.numpy()) + 1.1) / 2)
        assert np.allclose(drawn.numpy(), -np.diff(cdf) / (cdf[0] - cdf[-1]), atol=2e-5)

    def test_the_grid_is_doubled_at_equal_times_up_to_the_finest(self):
        grids = [curriculum(k, 1000, 10, 160) for k in range(1000)]
        assert [grids.index(n) for n in (10, 20, 40, 80, 160)] == [0, 200, 400, 600, 800]
        assert curriculum(1002, 1003, 10, 160) == 160  # the steps that are left over
        assert curriculum(0, 1, 10, 10) == 10

    def test_sampling_leaves_out_the_level_at_which_nothing_changes(self):
        assert Sampling(method="consistency", num_steps=1).sigmas(0.002, 80).tolist() == [80, 0]
        two = Sampling(method="consistency", num_steps=2).sigmas(0.002, 80)
        assert torch.allclose(two, torch.tensor([80, karras_sigmas(3)[1].item(), 0]).double())


class TestStudent:
    def test_it_begins_as_its_teacher_with_weights_of_its_own(self):
        teacher = network()
        student = teacher.student(sampling=Sampling(method="euler"), distilled=Distilled())
        mine, other = student.state_dict(), teacher.state_dict()
        assert all(torch.equal(mine[name], other[name]) for name in other)
        student.inner.end.weight.data.zero_()
        assert teacher.inner.end.weight.abs().sum() > 0
        again = DiffusionNetwork.from_config(**student.config)
        assert again.distilled == Distilled()
        assert again.sampling.method == "euler"

    def test_it_is_told_guidance_where_that_has_a_range(self):
        x, sigma, labels = rows(2, 1, 8, 8), torch.tensor(1.3).double(), torch.tensor([0, 1])
        student = network(Distilled(guidance=(1.0, 4.0)))
        low, high = (student.denoiser(labels, guidance=w)(x, sigma) for w in (1.0, 4.0))
        assert (low - high).abs().max() > 1e-3
        told = student.denoise(x, sigma.expand(2), labels, torch.tensor([1.0, 1.0]))
        assert torch.equal(high, told)
        with pytest.raises(InputError, match="for guidance from 1 to 4, got 5"):
            student.denoiser(labels, guidance=5.0)
        with pytest.raises(InputError, match="for guidance 2 alone, got 1"):
            network(Distilled(guidance=(2.0, 2.0))).denoiser(labels)
        with pytest.raises(InputError, match="rescale and interval"):
            student.denoiser(labels, guidance=2.0, rescale=0.5)

    def test_the_teacher_is_guided_by_a_weight_for_each_image(self):
        teacher, x, labels = network(), rows(2, 1, 8, 8), torch.tensor([0, 1])
        sigma = torch.tensor(0.9).double()
        made = teaching(teacher, labels, torch.tensor([1.0, 3.0]))(x, sigma.expand(2))
        of_class, of_all = teacher.denoiser(labels), teacher.denoiser()
        for row, w in enumerate((1.0, 3.0)):
            assert torch.allclose(made[row], guided(of_class, of_all, w)(x, sigma)[row], atol=1e-12)
        assert torch.equal(teaching(teacher, labels)(x, sigma.expand(2)), of_class(x, sigma))

    @pytest.mark.parametrize("wrong", [{"boundary": -1.0}, {"guidance": (2.0, 1.0)}, {"guidance": (1.0, math.inf)}])
    def test_numbers_that_cannot_be(self, wrong: dict):
        with pytest.raises(InputError, match="boundary must be at least 0 and guidance two finite numbers"):
            Distilled(**wrong)


class TestRelativeError:
    def test_it_is_the_noise_over_the_spread(self):
        random = np.random.default_rng(0)
        reference = torch.from_numpy(random.integers(40, 200, size=(200, 3, 8, 8))).to(torch.uint8)
        noise = torch.from_numpy(random.choice([-20, 20], size=reference.shape))
        made = (reference.long() + noise).to(torch.uint8)
        found = relative_error(made, reference)
        assert found.value == pytest.approx(20 / reference.double().std(correction=0).item(), rel=1e-9)
        half = torch.where(torch.arange(200)[:, None, None, None] < 100, made, reference)
        found = relative_error(half, reference)
        assert found.low < found.value < found.high
        assert found.value == pytest.approx(20 / math.sqrt(2) / reference.double().std(correction=0).item(), rel=1e-9)
        assert found.high - found.low == pytest.approx(4 * 0.5 / math.sqrt(200) * found.value, rel=0.2)

    def test_what_cannot_be_compared(self):
        images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
        with pytest.raises(InputError, match="all pixels of the reference are alike"):
            relative_error(images, images)
        with pytest.raises(InputError, match="as many and as large"):
            relative_error(images[:1], images)


def test_the_pseudo_huber_constant_is_that_of_the_source():
    assert usual_huber(3 * 32 * 32) == pytest.approx(0.03, rel=0.01)  # Song & Dhariwal: 0.00054 √d, of CIFAR-10 0.03
    assert usual_huber(4) == pytest.approx(0.00108)

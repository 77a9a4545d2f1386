import math

import numpy as np
import pytest
import scipy.linalg
import torch

from headfirst.errors import InputError
from headfirst.metrics import effective_rank, energy_inside, linear_cka, movement, principal_angles, span


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def orthonormal(seed, d, r):
    return torch.linalg.qr(normal(seed, d, r)).Q


def same_span(a, b):
    """Equal projectors, compared entry by entry."""
    torch.testing.assert_close(a @ a.T, b @ b.T, atol=1e-10, rtol=0)


@pytest.mark.parametrize("n", [12, 300])
def test_span_finds_a_planted_subspace(n):
    planted = orthonormal(0, 20, 3)
    found = span(normal(1, n, 3) @ planted.T, energy=1.0)
    assert found.shape == (20, 3)
    torch.testing.assert_close(found.T @ found, torch.eye(3, dtype=torch.float64))
    same_span(found, planted)


@pytest.mark.parametrize(("energy", "rank"), [(0.5, 1), (0.64, 1), (0.65, 2), (0.96, 2), (0.97, 3), (1.0, 4)])
def test_span_is_the_fewest_directions_that_hold_the_energy(energy, rank):
    """Squared singular values 64, 32, 3 and 1 of 100, along planted directions."""
    left, right = orthonormal(2, 30, 4), orthonormal(3, 8, 4)
    features = left * torch.tensor([64.0, 32.0, 3.0, 1.0]).double().sqrt() @ right.T
    found = span(features, energy)
    assert found.shape == (8, rank)
    same_span(found, right[:, :rank])


def test_span_is_not_centred():
    features = torch.tensor([[5.0, 0.1], [5.0, -0.1]])
    same_span(span(features, 0.9), torch.tensor([[1.0], [0.0]], dtype=torch.float64))


ANGLES = [1e-12, 1e-9, 1e-4, 0.3, math.pi / 4, 1.2, math.pi / 2 - 1e-9, math.pi / 2]


def planted_pair(angles, d=25):
    """Two subspaces with these principal angles, by spans of columns that are not orthonormal."""
    r = len(angles)
    frame = orthonormal(4, d, 2 * r)
    theta = torch.tensor(angles, dtype=torch.float64)
    b = frame[:, :r] * theta.cos() + frame[:, r:] * theta.sin()
    return frame[:, :r] @ normal(5, r, r), b @ normal(6, r, r)


def test_principal_angles_finds_planted_ones():
    a, b = planted_pair(ANGLES)
    found = principal_angles(a, b)
    assert found.numpy() == pytest.approx(ANGLES, abs=1e-13, rel=1e-9)
    assert found.numpy() == pytest.approx(scipy.linalg.subspace_angles(a.numpy(), b.numpy())[::-1], abs=1e-13)


def test_a_tiny_angle_is_not_lost_in_its_cosine():
    """cos 1e-9 is 1 in float64; orthonormal columns, so that nothing else rounds."""
    frame = orthonormal(7, 10, 2)
    turned = frame[:, :1] * math.cos(1e-9) + frame[:, 1:] * math.sin(1e-9)
    assert principal_angles(frame[:, :1], turned).item() == pytest.approx(1e-9, rel=1e-5)


@pytest.mark.parametrize(("r", "q"), [(2, 7), (7, 2), (5, 5), (1, 24)])
def test_principal_angles_is_scipys_and_symmetric(r, q):
    a, b = normal(8, 25, r), normal(9, 25, q)
    found = principal_angles(a, b)
    assert found.numpy() == pytest.approx(scipy.linalg.subspace_angles(a.numpy(), b.numpy())[::-1])
    torch.testing.assert_close(principal_angles(b, a), found)


def test_principal_angles_counts_dependent_columns_once():
    a, b = normal(10, 9, 2), normal(11, 9, 4)
    doubled = torch.cat([a, a @ normal(12, 2, 3)], dim=1)
    torch.testing.assert_close(principal_angles(doubled, b), principal_angles(a, b))


def test_energy_inside_is_pythagoras():
    basis = orthonormal(13, 12, 5)
    features = normal(14, 40, 12)
    projector = basis @ basis.T
    inside, outside = features @ projector, features - features @ projector
    found = energy_inside(features, basis)
    assert found.numpy() == pytest.approx((inside.square().sum(1) / features.square().sum(1)).numpy())
    assert energy_inside(1e-200 * features, basis).numpy() == pytest.approx(found.numpy())
    assert (energy_inside(inside, basis) <= 1).all()
    assert energy_inside(inside, basis).numpy() == pytest.approx(1)
    assert energy_inside(outside, basis).numpy() == pytest.approx(0, abs=1e-25)


def test_movement_takes_a_planted_step_apart():
    basis = orthonormal(15, 12, 5)
    before = normal(16, 30, 12)
    norm = before.norm(dim=1, keepdim=True)
    along, across = normal(17, 30, 12) @ basis @ basis.T, normal(18, 30, 12)
    across = across - across @ basis @ basis.T
    along, across = (
        0.3 * norm * along / along.norm(dim=1, keepdim=True),
        1e-6 * norm * across / across.norm(dim=1, keepdim=True),
    )
    found = movement(before, before + along + across, basis)
    assert found.inside.numpy() == pytest.approx(0.3)
    assert found.outside.numpy() == pytest.approx(1e-6, rel=1e-6)
    still = movement(before, before, basis)
    assert still.inside.abs().max() == still.outside.abs().max() == 0


@pytest.mark.parametrize("debiased", [False, True])
def test_cka_is_one_under_rotation_scaling_and_shift(debiased):
    x = normal(19, 50, 8)
    rotated = -3.7 * x @ orthonormal(20, 8, 8) + 11
    assert linear_cka(x, rotated, debiased) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x, torch.cat([rotated, torch.zeros(50, 3)], dim=1), debiased) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x, x @ normal(21, 8, 8), debiased) < 0.99


def gram_cka(x, y):
    K, L, n = x @ x.T, y @ y.T, len(x)
    H = torch.eye(n, dtype=torch.float64) - 1 / n
    hsic = [(H @ a @ H * b).sum() for a, b in ((K, L), (K, K), (L, L))]
    return (hsic[0] / (hsic[1] * hsic[2]).sqrt()).item()


def debiased_gram_cka(x, y):
    """Song et al.'s U-statistic, straight from the Gram matrices of features as they are."""
    n = len(x)

    def hsic(a, b):
        K, L = (g @ g.T for g in (a, b))
        K, L = K - K.diagonal().diag(), L - L.diagonal().diag()
        terms = (K @ L).trace() + K.sum() * L.sum() / ((n - 1) * (n - 2)) - 2 * (K @ L).sum() / (n - 2)
        return terms / (n * (n - 3))

    return (hsic(x, y) / (hsic(x, x) * hsic(y, y)).sqrt()).item()


@pytest.mark.parametrize("n", [4, 9, 60])
def test_cka_is_that_of_gram_matrices(n):
    x = normal(22, n, 7) + 2
    y = x[:, :4] @ normal(23, 4, 3) + 0.5 * normal(24, n, 3) - 1
    assert linear_cka(x, y) == pytest.approx(gram_cka(x, y))
    assert linear_cka(x, y, debiased=True) == pytest.approx(debiased_gram_cka(x, y))
    assert linear_cka(y, x, debiased=True) == pytest.approx(linear_cka(x, y, debiased=True))


def test_debiased_cka_of_unrelated_features_is_zero_on_average():
    """Twenty images of thirty dimensions: the biased one is far above 0, the debiased one within four errors of it."""
    pairs = [(normal(100 + i, 20, 30), normal(1100 + i, 20, 30)) for i in range(300)]
    biased, debiased = (np.array([linear_cka(x, y, flag) for x, y in pairs]) for flag in (False, True))
    assert biased.mean() > 0.5
    assert abs(debiased.mean()) < 4 * debiased.std() / math.sqrt(300)
    assert debiased.std() < 0.2


@pytest.mark.parametrize(("n", "d"), [(40, 9), (9, 40)])
@pytest.mark.parametrize("r", [1, 4, 9])
def test_effective_rank_of_equal_singular_values_is_their_number(n, d, r):
    features = 7 * orthonormal(25, n, r) @ orthonormal(26, d, r).T
    assert effective_rank(features) == pytest.approx(r)


def test_effective_rank_of_two_singular_values():
    """3 and 1: exp of the entropy of (3/4, 1/4), of the values and not of their squares."""
    features = orthonormal(27, 10, 2) * torch.tensor([3.0, 1.0]) @ orthonormal(28, 6, 2).T
    assert effective_rank(features) == pytest.approx(4 / 3**0.75)
    assert effective_rank(100 * features) == pytest.approx(4 / 3**0.75)


def test_effective_rank_is_not_centred():
    assert effective_rank(torch.full((5, 3), 2.0)) == pytest.approx(1)


X, B = torch.ones(5, 3), torch.eye(3)[:, :2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: span(X, 0.0), r"energy must lie in \(0, 1\], got 0"),
        (lambda: span(X, 95.0), "got 95"),
        (lambda: span(X * 0), "all zero span nothing"),
        (lambda: span(X[:0]), r"shape \(0, 3\)"),
        (lambda: span(X * math.nan), "NaN or infinity at row 0"),
        (lambda: principal_angles(B, B * 0), "all zero span nothing"),
        (lambda: principal_angles(B[:, :0], B), "at least one"),
        (lambda: energy_inside(X, 2 * B), "orthonormal columns, but BᵀB is 3 off"),
        (lambda: energy_inside(X * 0, B), "no direction, got one at row 0"),
        (lambda: movement(X, X[:2], B), "got 5 and 2"),
        (lambda: movement(X * 0, X, B), "no direction, got one at row 0"),
        (lambda: movement(X, X * math.inf, B), "NaN or infinity"),
        (lambda: linear_cka(X, X[:2]), "got 5 and 2"),
        (lambda: linear_cka(X[:1], X[:1]), "the same 2 or more images on both sides, got 1 and 1"),
        (lambda: linear_cka(X[:3], X[:3], debiased=True), "the same 4 or more"),
        (lambda: linear_cka(X, X), "the same for every image"),
        (lambda: linear_cka(torch.eye(5), torch.eye(5), debiased=True), "too few for a debiased CKA"),
        (lambda: effective_rank(X * 0), "all zero span nothing"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(InputError, match=message):
        call()

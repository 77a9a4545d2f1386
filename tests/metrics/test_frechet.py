import math

import numpy as np
import pytest
import scipy.linalg
import torch

from headfirst.errors import InputError
from headfirst.metrics import frechet, frechet_distance, frechet_distance_gaussian


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def mixed(seed, n, d, scale=1.0):
    """Correlated features with a mean."""
    return scale * normal(seed, n, d) @ normal(seed + 1000, d, d) + normal(seed + 2000, d)


def usual_recipe(a, b):
    """|Δμ|² + tr(Ca + Cb - 2 sqrtm(Ca Cb)), by scipy."""
    a, b = a.numpy(), b.numpy()
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return shift + np.trace(ca) + np.trace(cb) - 2 * np.trace(scipy.linalg.sqrtm(ca @ cb).real)


def test_one_dimension_is_the_difference_of_means_and_of_deviations():
    a, b = normal(0, 30, 1) * 2 + 1, normal(1, 50, 1) * 5 - 3
    by_hand = (a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2
    assert frechet_distance(a, b).value == pytest.approx(by_hand.item())
    known = frechet_distance_gaussian(a.mean(0), a.var()[None, None], b.mean(0), b.var()[None, None])
    assert known.value == known.corrected == known.low == known.high == pytest.approx(by_hand.item())


def test_commuting_covariances_differ_by_their_roots():
    basis = torch.linalg.qr(normal(2, 7, 7)).Q
    p, q = torch.arange(7.0).double(), torch.tensor([9.0, 0, 4, 1, 0.25, 3, 2]).double()
    mean = normal(3, 7)
    found = frechet_distance_gaussian(mean, basis * p @ basis.T, mean + 1, basis * q @ basis.T)
    assert found.value == pytest.approx(7 + (p.sqrt() - q.sqrt()).square().sum().item())


@pytest.mark.parametrize(("n", "m", "d"), [(200, 200, 12), (90, 300, 30), (31, 500, 30)])
def test_value_is_that_of_the_usual_recipe(n, m, d):
    a, b = mixed(4, n, d), mixed(5, m, d, 2.0)
    assert frechet_distance(a, b).value == pytest.approx(usual_recipe(a, b), rel=1e-9)
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    known = frechet_distance_gaussian(a.mean(0), cov_a, b.mean(0), cov_b)
    assert known.value == pytest.approx(usual_recipe(a, b), rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(10, 15), (10, 60), (60, 10), (20, 20), (21, 21)])
def test_fewer_images_than_features_give_the_same_formula(n, m):
    a, b = mixed(6, n, 20), mixed(7, m, 20)
    known = frechet_distance_gaussian(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T))
    assert frechet_distance(a, b).value == pytest.approx(known.value, rel=1e-6)


@pytest.mark.parametrize("n", [12, 80])
def test_all_four_numbers_are_the_same_with_features_that_say_nothing(n):
    """The many features of rank 8 take the nuclear norm of the cross product, the 8 the eigenvalues."""
    a, b = normal(8, n, 8), normal(9, 40, 8) + 0.3
    wide = torch.linalg.qr(normal(10, 200, 8)).Q.T
    narrow, embedded = frechet_distance(a, b), frechet_distance(a @ wide + 5, b @ wide + 5)
    for name in ("value", "corrected", "high"):
        assert getattr(embedded, name) == pytest.approx(getattr(narrow, name), rel=1e-6)


def test_symmetric_and_indifferent_to_rotation_shift_and_order():
    a, b, turn = mixed(11, 50, 9), mixed(12, 70, 9), torch.linalg.qr(normal(13, 9, 9)).Q
    found, other = frechet_distance(a, b), frechet_distance(b.flip(0) @ turn + 7, a @ turn + 7)
    for name in ("value", "corrected", "low", "high"):
        assert getattr(other, name) == pytest.approx(getattr(found, name), rel=1e-8)


@pytest.mark.parametrize("factor", [1e-100, 1e140])
def test_a_square_of_a_length(factor):
    a, b = mixed(14, 50, 9), mixed(15, 70, 9)
    found, scaled = frechet_distance(a, b), frechet_distance(factor * a, factor * b)
    for name in ("value", "corrected", "low", "high"):
        assert getattr(scaled, name) == pytest.approx(factor**2 * getattr(found, name), rel=1e-9)


def spread(decades):
    """Symmetric, 40 × 40, with eigenvalues from 1 to 10^-decades; and those eigenvalues."""
    basis, values = torch.linalg.qr(normal(22, 40, 40)).Q, torch.logspace(0, -decades, 40, dtype=torch.float64)
    return basis * values @ basis.T, values


@pytest.mark.parametrize("decades", [1, 4, 6, 8, 11])
def test_the_nuclear_norm_keeps_its_digits(decades, monkeypatch):
    """Eigenvalues of K Kᵀ hold only half the digits of what is small; where that matters they are not taken."""
    K, values = spread(decades)
    turned = K @ torch.linalg.qr(normal(23, 40, 40)).Q
    taken, singular_values = [], torch.linalg.svdvals
    monkeypatch.setattr(torch.linalg, "svdvals", lambda K: taken.append(K) or singular_values(K))
    assert frechet._nuclear_norm(turned) == pytest.approx(values.sum().item(), rel=1e-9)
    assert bool(taken) == (decades > 6)
    assert frechet._nuclear_norm(turned[:7]) == pytest.approx(singular_values(turned[:7]).sum().item(), rel=1e-9)
    assert frechet._nuclear_norm(turned[:, :7]) == pytest.approx(singular_values(turned[:, :7]).sum().item(), rel=1e-9)


@pytest.mark.parametrize("factor", [1e-280, 1e-150, 1e140])
def test_known_covariances_of_any_scale(factor):
    a, b, mean = spread(2)[0], spread(1)[0] + 0.1, torch.zeros(40)
    found, scaled = (frechet_distance_gaussian(mean, x * a, mean, x * b).value for x in (1.0, factor))
    assert scaled == pytest.approx(factor * found, rel=1e-9)
    assert found > 1


def test_known_covariances_that_are_zero_or_of_low_rank():
    rank_3 = mixed(24, 4, 10)
    C, mean, zero = torch.cov(rank_3.T), torch.zeros(10), torch.zeros(10, 10)
    assert frechet_distance_gaussian(mean, zero, mean + 1, zero).value == 10
    for a, b in ((C, zero), (zero, C)):
        assert frechet_distance_gaussian(mean, a, mean, b).value == pytest.approx(C.trace().item())
    assert frechet_distance_gaussian(mean, C, mean, 4 * C).value == pytest.approx(C.trace().item())


def test_tails_are_the_sum_over_fourth_cumulants():
    z, s, u = normal(25, 30, 4).square(), torch.tensor([2.0, 1.0, 0.5, 0.25]).double(), 29
    total = 0.0
    for i in range(4):
        for j in range(4):
            moment = (z[:, i] ** 2 * z[:, j] ** 2).mean() * (30**2 * 31 / 29**3)
            cumulant = moment - s[i] ** 2 * s[j] ** 2 - (2 * s[i] ** 4 if i == j else 0)
            total += cumulant / (s[i] * s[j] * (s[i] + s[j]))
    assert frechet._tails(z, s, u) == pytest.approx((total / (4 * u)).item(), rel=1e-12)


@pytest.mark.parametrize(("u", "v"), [(50, 50), (31, 90)])
def test_the_correction_does_not_depend_on_its_blocks(u, v, monkeypatch):
    s = torch.cat([torch.linspace(0.1, 3, 27).double(), torch.full((3,), 2.0).double()])  # equal ones too
    whole = frechet._fidelity(s, u, v)
    monkeypatch.setattr(frechet, "_SHIFTS", 7 * len(s))
    assert frechet._fidelity(s, u, v) == pytest.approx(whole, rel=1e-13)


@pytest.mark.parametrize("size", [31.0, 300.0])
def test_the_secular_equation_is_solved(size):
    squares = torch.linspace(0.1, 3, 30).double().square()
    x = squares - frechet._below(squares, size)
    assert (squares / (squares - x[:, None])).sum(dim=1).tolist() == pytest.approx([size] * 30, rel=1e-9)
    assert (x[1:] > squares[:-1]).all()
    assert (x < squares).all()


def draws(num, n, m, d, *, sigma=1.0, decay=0.0, tails=None):
    scale = torch.arange(1, d + 1, dtype=torch.float64) ** -decay
    found = []
    for i in range(num):
        a, b = normal((16, i), n, d) * scale, normal((17, i), m, d) * scale * sigma
        if tails:
            random = np.random.default_rng((18, i))
            heavy = torch.from_numpy(((tails - 2) / random.chisquare(tails, n + m)) ** 0.5)[:, None]
            a, b = a * heavy[:n], b * heavy[n:]
        found.append(frechet_distance(a, b))
    truth = (1 - sigma) ** 2 * scale.square().sum().item()
    return found, truth


@pytest.mark.parametrize(
    ("n", "m", "sigma", "tails", "times"),
    [(40, 40, 1.0, None, 20), (40, 40, 1.5, None, 20), (30, 200, 1.0, None, 20), (100, 100, 1.0, 10, 8)],
)
def test_corrected_has_a_small_part_of_the_bias(n, m, sigma, tails, times):
    """Sixteen dimensions; the mean over 100 draws, allowed three of its standard errors."""
    found, truth = draws(100, n, m, 16, sigma=sigma, decay=0.25, tails=tails)
    value = np.array([one.value for one in found]) - truth
    corrected = np.array([one.corrected for one in found]) - truth
    assert value.mean() > 0.2
    assert abs(corrected.mean()) < value.mean() / times + 3 * corrected.std() / 10


@pytest.mark.parametrize(("u", "v"), [(10, 10), (20, 20), (10, 40)])
def test_in_one_dimension_the_correction_is_that_of_chi(u, v):
    """The mean of the product of two sample deviations is known; times the correction it is 1, to second order."""
    mean = math.prod((2 / k) ** 0.5 * math.exp(math.lgamma((k + 1) / 2) - math.lgamma(k / 2)) for k in (u, v))
    corrected = frechet._fidelity(torch.ones(1, dtype=torch.float64), u, v) * mean
    assert 1 - mean > 0.02
    assert abs(corrected - 1) < (1 - mean) / 12


@pytest.mark.parametrize(("sigma", "least"), [(1.0, 0.95), (1.3, 0.91)])
def test_intervals_hold_the_truth(sigma, least):
    found, truth = draws(200, 80, 80, 8, sigma=sigma, decay=0.5)
    held = np.mean([one.low <= truth <= one.high for one in found])
    assert held >= least
    widths = np.mean([one.high - one.corrected for one in found])
    assert widths < 1.96 * 2 * np.std([one.corrected for one in found])
    plug_in = np.mean([one.low <= one.value <= one.high for one in found])
    assert plug_in < 1 or sigma > 1


def test_the_interval_narrows_as_one_over_the_root_away_from_zero():
    widths = [np.mean([f.high - f.low for f in draws(20, n, n, 4, sigma=3.0)[0]]) for n in (100, 400)]
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.15)


def test_some_images_stand_for_all(monkeypatch):
    """With a fifth of the images for influences and cumulants, the value is the same and the rest nearly so."""
    found = {}
    for rows in (200, 1000):
        monkeypatch.setattr(frechet, "_ROWS", rows)
        found[rows] = frechet_distance(normal(20, 1000, 6), 2 * normal(21, 1500, 6))
    few, all_of_them = found[200], found[1000]
    assert few.value == all_of_them.value
    assert few.corrected == pytest.approx(all_of_them.corrected, abs=0.02)
    assert few.high - few.low == pytest.approx(all_of_them.high - all_of_them.low, rel=0.2)
    assert few != all_of_them


def test_too_few_images_are_said_by_the_lower_end():
    """Twenty images of 32 equal dimensions: never corrected away, so `low` must reach the truth, 0."""
    found, _ = draws(30, 20, 20, 32)
    assert np.mean([one.corrected for one in found]) > 5
    assert np.mean([one.low == 0 for one in found]) >= 0.9


def test_identical_and_constant_features():
    a = mixed(19, 40, 6)
    same = frechet_distance(a, a)
    assert same.value == pytest.approx(0, abs=1e-9)
    assert same.corrected < 0 == same.low < same.high
    few = frechet_distance(a[:4], a[:4])
    assert few.value == pytest.approx(0, abs=1e-9)
    collapsed = frechet_distance(a, torch.full((30, 6), 2.0))
    by_hand = (a.mean(0) - 2).square().sum() + a.var(dim=0).sum()
    assert collapsed.value == pytest.approx(by_hand.item())
    assert 0 < collapsed.low < collapsed.corrected < collapsed.high
    dead = torch.cat([a, torch.zeros(40, 3)], dim=1)
    assert frechet_distance(dead, dead + 1).value == pytest.approx(9)


X, C = torch.eye(5), torch.eye(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet_distance(X[:1], X), "at least 2 images on either side, got 1 and 5"),
        (lambda: frechet_distance(X, X[:, :3]), "features of one length, got 5 and 3"),
        (lambda: frechet_distance(X, X * math.nan), "NaN or infinity at row 0"),
        (lambda: frechet_distance(X, X.double() * 1e200), "within ± 1e\\+150"),
        (lambda: frechet_distance(X * 0 + 1, X * 0 + 1), "the same for every image on both sides"),
        (lambda: frechet_distance(X, X, level=1.0), "level must lie"),
        (lambda: frechet_distance_gaussian(X[0], C, X[0], C), "must be 5 × 5"),
        (lambda: frechet_distance_gaussian(C[0], C, X[0], C), "one length, got 3 and 5"),
        (lambda: frechet_distance_gaussian(C[0], C, C[0], -C), "no negative eigenvalue, got -1"),
        (lambda: frechet_distance_gaussian(C[0], C, C[0], C - 0.5), "no negative eigenvalue, got -0.5"),
        (lambda: frechet_distance_gaussian(C[0], C, C[0], torch.tril(C + 1)), "symmetric"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(InputError, match=message):
        call()

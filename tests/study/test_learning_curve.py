"""Planted power laws: recovered, extrapolated within their intervals, bounded; the fit against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit
from torch import Tensor

from headfirst.errors import InputError
from headfirst.study.learning_curve import fit_power_law, learning_curve

K = [3.0, 4.0, 5.0, 7.0, 10.0, 14.0, 20.0]


def outcomes(
    accuracy: list[float], *, seeds: int, images: int, seed: int, noise: float = 0.15
) -> tuple[Tensor, Tensor]:
    """(S, M, N) outcomes of these accuracies: image i is right where its difficulty, a little different for each
    seed, is below the accuracy; so an image once right mostly stays so, as on a real curve."""
    random = np.random.default_rng(seed)
    difficulty = random.random(images) + noise * random.standard_normal((seeds, 1, images))
    # Ranks of what was drawn are uniform again.
    uniform = np.searchsorted(np.sort(_many(noise)), difficulty) / _MANY
    return torch.from_numpy(uniform < np.array(accuracy)[None, :, None]), torch.arange(images) % 4


def truth(k: float | list[float]) -> np.ndarray:
    return 0.95 - 0.9 * np.asarray(k) ** -0.7


_MANY = 200_000


def _many(noise: float) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.random(_MANY) + noise * random.standard_normal(_MANY)


@settings(max_examples=50, deadline=None)
@given(a=st.floats(0.5, 1.0), share=st.floats(0.05, 1.0), c=st.floats(0.1, 2.0))
def test_a_law_is_recovered_exactly(a: float, share: float, c: float) -> None:
    k = torch.tensor(K).double()
    b = share * a * K[0] ** c
    law = fit_power_law(k, (a - b * k**-c)[None])
    ahead = torch.tensor([30.0, 40.0]).double()
    np.testing.assert_allclose(law(ahead)[0].numpy(), (a - b * ahead**-c).numpy(), atol=2e-3)


@pytest.mark.parametrize("seed", range(5))
def test_the_fit_is_scipys(seed: int) -> None:
    random = np.random.default_rng(seed)
    k = np.array(K)
    y = 0.92 - 0.9 * k**-0.8 + 0.004 * random.standard_normal(len(k))
    law = fit_power_law(torch.tensor(K), torch.from_numpy(y)[None])
    (a, b, c), _ = curve_fit(lambda k, a, b, c: a - b * k**-c, k, y, p0=(0.9, 1.0, 0.5), sigma=k**-0.5,
                             bounds=([-9, 0, 0.02], [1, 99, 4]), xtol=1e-12, ftol=1e-12)  # fmt: skip
    ours, theirs = law(torch.tensor([*K, 40.0]))[0].numpy(), a - b * np.array([*K, 40.0]) ** -c
    error = [(k * (y - fit[:-1]) ** 2).sum() for fit in (ours, theirs)]
    assert error[0] <= error[1] * 1.01
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


@settings(max_examples=50, deadline=None)
@given(y=st.lists(st.floats(0, 1), min_size=7, max_size=7))
def test_any_law_rises_and_stays_below_one(y: list[float]) -> None:
    law = fit_power_law(torch.tensor(K), torch.tensor([y]).double())
    values = law(torch.logspace(0, 6, 50))[0]
    assert bool((values.diff() >= -1e-12).all())
    assert 0 <= values.min() <= values.max() <= 1
    assert law.a.item() <= 1
    assert law.b.item() >= 0


def test_a_falling_curve_gives_a_level_law() -> None:
    law = fit_power_law(torch.tensor(K), torch.linspace(0.9, 0.7, 7)[None].double())
    assert law(torch.tensor([20.0, 100.0])).diff().item() == pytest.approx(0, abs=1e-12)


def test_a_steep_end_cannot_pass_one() -> None:
    y = torch.tensor([[0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 0.99]]).double()
    assert fit_power_law(torch.tensor(K), y)(torch.tensor([1e9])).item() <= 1


def test_planted_curves_are_covered() -> None:
    """Of 100 planted curves the intervals of the gain and of the accuracy ahead hold the truth 95 times, or nearly."""
    gain = truth(40.0) - truth(20.0)
    held = {"gain": 0, "ahead": 0}
    for seed in range(100):
        right, labels = outcomes(truth(K).tolist(), seeds=8, images=120, seed=seed)
        curve = learning_curve(right, labels, K, seed=seed)
        found = curve.gain(20.0)
        held["gain"] += found.low <= gain <= found.high
        held["ahead"] += curve.at(40.0).low <= truth(40.0) <= curve.at(40.0).high
    assert 90 <= held["gain"] <= 100
    assert 88 <= held["ahead"] <= 100


def test_fewer_images_make_wider_intervals() -> None:
    accuracy = truth(K).tolist()
    widths = []
    for images in (2000, 200, 20):
        found = learning_curve(*outcomes(accuracy, seeds=8, images=images, seed=1), K, seed=0).gain(20.0)
        widths.append(found.high - found.low)
    assert widths[0] < widths[1] < widths[2]
    assert widths[2] > 0.1


def test_images_that_never_change_still_leave_a_doubt() -> None:
    right = torch.ones(4, 7, 20, dtype=torch.bool)
    found = learning_curve(right, torch.arange(20) % 4, K, seed=0).gain(20.0)
    assert found.value == pytest.approx(0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 20))  # exact: no departure in 20 images
    assert found.low == -found.high


def test_classes_count_alike_however_many_images_they_have() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    right = (labels == 1).expand(3, 4, 100)
    curve = learning_curve(right, labels, [1.0, 2.0, 3.0, 4.0], seed=0)
    np.testing.assert_allclose(curve.accuracy.numpy(), 0.5)


def test_an_order_of_labels_that_matters_widens_what_lies_ahead() -> None:
    accuracy = truth(K).tolist()
    right, labels = outcomes(accuracy, seeds=8, images=400, seed=2)
    calm = learning_curve(right, labels, K, seed=0)
    lucky = right.clone()
    lucky[:4, :-1, :40] = True  # half of the orders are good ones until all labels are in
    lucky[4:, :-1, :40] = False
    wild = learning_curve(lucky, labels, K, seed=0)
    assert wild.wander > 5 * calm.wander
    assert wild.gain(20.0).high - wild.gain(20.0).low > calm.gain(20.0).high - calm.gain(20.0).low


def test_the_same_seed_gives_the_same_interval() -> None:
    right, labels = outcomes([0.5, 0.6, 0.7, 0.75], seeds=3, images=50, seed=0)
    first, second = (learning_curve(right, labels, [2.0, 4.0, 8.0, 16.0], seed=5).gain(4.0) for _ in range(2))
    assert first == second


def test_refusals() -> None:
    right, labels = torch.ones(2, 3, 4, dtype=torch.bool), torch.arange(4) % 2
    with pytest.raises(InputError, match="at least 4 rising sizes"):
        learning_curve(right, labels, [1.0, 2.0, 3.0], seed=0)
    with pytest.raises(InputError, match="rising sizes"):
        learning_curve(torch.ones(2, 4, 4, dtype=torch.bool), labels, [1.0, 3.0, 2.0, 4.0], seed=0)
    with pytest.raises(InputError, match="two seeds"):
        learning_curve(torch.ones(1, 4, 4, dtype=torch.bool), labels, [1.0, 2.0, 3.0, 4.0], seed=0)
    with pytest.raises(InputError, match="three different positive sizes"):
        fit_power_law(torch.tensor([1.0, 1.0, 2.0]), torch.ones(1, 3))

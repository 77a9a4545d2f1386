import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch

from headfirst.errors import InputError
from headfirst.metrics import data_copying_score, memorisation_test


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def test_the_p_value_is_the_exact_one_over_all_exchanges():
    training, held_out, generated = normal(0, 5, 2), normal(1, 4, 2), normal(2, 12, 2)
    real = torch.cat([training, held_out])
    distances = ((generated[:, None] - real[None]) ** 2).sum(dim=2).sqrt().numpy()
    nearest, two = distances.argmin(axis=1), np.sort(distances, axis=1)
    votes = np.bincount(nearest, weights=1 - two[:, 0] / two[:, 1], minlength=9)
    sums = np.array([votes[list(rows)].sum() for rows in itertools.combinations(range(9), 5)])
    found = memorisation_test(generated, training, held_out, seed=0)
    assert found.share == pytest.approx((nearest < 5).mean())
    assert found.p_value == pytest.approx((sums >= votes[:5].sum()).mean(), abs=0.02)
    assert found.z == pytest.approx((votes[:5].sum() - sums.mean()) / sums.std())
    hit = (votes > 0).sum()
    chance = math.comb(9 - hit, 4) / math.comb(9, 4) if hit <= 5 else 1 / math.comb(9, 5)
    assert found.least_p_value == pytest.approx(chance)


@pytest.mark.parametrize("spread", [1.0, 0.1, 3.0])
def test_false_alarms_are_as_rare_as_asked_whatever_the_generator_makes(spread):
    """Of the distribution, collapsed in its midst, or too wide: 5 % of alarms in 150 draws, or fewer."""
    alarms = [
        memorisation_test(spread * normal((3, i), 50, 3), normal((4, i), 60, 3), normal((5, i), 40, 3), seed=i).verdict
        == "memorised"
        for i in range(150)
    ]
    assert np.mean(alarms) < 0.05 + 3 * (0.05 * 0.95 / 150) ** 0.5


def test_a_generator_that_copies_one_in_twenty_is_found():
    training, held_out = normal(6, 200, 8), normal(7, 200, 8)
    copies = training[:10] + 1e-3 * normal(8, 10, 8)
    found = memorisation_test(torch.cat([copies, normal(9, 190, 8)]), training, held_out, seed=0)
    assert found.verdict == "memorised"
    assert found.z > 2
    assert found.expected == 0.5


def test_too_few_are_said_to_be_too_few():
    training = normal(10, 8, 3)
    found = memorisation_test(training, training, normal(11, 1, 3), seed=0)
    assert found.verdict == "too few to tell"
    assert found.share == 1
    assert found.least_p_value == pytest.approx(1 / 9)
    one_image = memorisation_test(training[:1].expand(50, 3), training, normal(12, 8, 3), seed=0)
    assert one_image.verdict == "too few to tell"  # fifty copies of one image are one neighbour


def test_identical_sides_and_constant_features_raise_no_alarm():
    x = normal(13, 30, 4)
    found = memorisation_test(x, x, x, seed=0)
    assert (found.share, found.z, found.verdict) == (0.5, 0, "too few to tell")
    constant = memorisation_test(torch.ones(20, 3), torch.ones(20, 3), torch.ones(20, 3), seed=0)
    assert (constant.share, constant.z, constant.verdict) == (0.5, 0, "too few to tell")
    assert data_copying_score(torch.ones(20, 3), torch.ones(20, 3), torch.ones(20, 3)).z == 0


def test_data_copying_score_is_mann_and_whitneys():
    generated, training, held_out = 0.8 * normal(14, 50, 4), normal(15, 60, 4), normal(16, 40, 4)
    held_out[:5] = generated[:5]  # ties
    nearest = [((x[:, None] - training[None]) ** 2).sum(dim=2).amin(dim=1).numpy() for x in (generated, held_out)]
    theirs = scipy.stats.mannwhitneyu(*nearest, alternative="less", use_continuity=False, method="asymptotic")
    found = data_copying_score(generated, training, held_out)
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-6)
    assert found.z == pytest.approx(scipy.stats.norm.ppf(theirs.pvalue), rel=1e-6)


def test_a_sharp_generator_is_near_to_training_images_and_no_copier():
    """In the midst of the data: the score is far below 0, the test raises no alarm."""
    training, held_out, generated = normal(17, 300, 6), normal(18, 300, 6), 0.2 * normal(19, 300, 6)
    assert data_copying_score(generated, training, held_out).z < -5
    assert memorisation_test(generated, training, held_out, seed=0).verdict == "no sign of it"


X = torch.eye(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: memorisation_test(X, X, X[:0], seed=0), "at least one image"),
        (lambda: memorisation_test(X, X, torch.eye(4), seed=0), "one length, got 3 and 4"),
        (lambda: memorisation_test(X, X * math.nan, X, seed=0), "NaN or infinity"),
        (lambda: memorisation_test(X, X, X, seed=0, significance=5.0), "got 5"),
        (lambda: data_copying_score(X[:0], X, X), "at least one image"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(InputError, match=message):
        call()

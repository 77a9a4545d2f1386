import math

import numpy as np
import pytest
import scipy.stats
import torch

from headfirst.errors import InputError
from headfirst.metrics import (
    balanced_accuracy_interval,
    binomial_interval,
    bootstrap_interval,
    bootstrap_statistic,
    calibration_error_interval,
    mean_over_splits,
    paired_difference,
)
from headfirst.metrics.intervals import constant_interval
from headfirst.metrics.resampling import resampling_weights, seed_noise

UNIT = (0.0, 1.0)


def bernoulli(seed, p, *shape):
    return torch.from_numpy(np.random.default_rng(seed).random(shape) < p)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 17), (499, 1000), (1, 1)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_binomial_interval_is_scipys_exact_one(successes, n, level):
    ours = binomial_interval(successes, n, level=level)
    exact = scipy.stats.binomtest(successes, n).proportion_ci(level, method="exact")
    assert (ours.low, ours.high) == (pytest.approx(exact.low), pytest.approx(exact.high))


def test_weights_are_multinomial():
    """Each row sums to N; counts have mean 1, variance 1 - 1/N and covariance -1/N."""
    n, draws = 5, 40_000
    w = torch.cat(list(resampling_weights(n, seed=3, num_draws=draws)))
    assert (w.sum(1) == n).all()
    covariance = torch.cov(w.T)
    expected = torch.eye(n, dtype=torch.float64) - 1 / n
    assert torch.allclose(w.mean(0), torch.ones(n, dtype=torch.float64), atol=0.03)
    assert torch.allclose(covariance, expected, atol=0.04)


def test_blocks_of_resamples_differ():
    blocks = list(resampling_weights(3_000_000, seed=0, num_draws=2))
    assert len(blocks) == 2
    assert not torch.equal(blocks[0], blocks[1])


def test_mean_agrees_with_the_central_limit():
    samples = torch.from_numpy(np.random.default_rng(0).normal(3.0, 2.0, (1, 4000)))
    found = bootstrap_interval(samples, seed=0, num_draws=8000)
    half = 1.959964 * samples.std(correction=0).item() / math.sqrt(4000)
    assert found.value == pytest.approx(samples.mean().item())
    assert found.value - found.low == pytest.approx(half, rel=0.05)
    assert found.high - found.value == pytest.approx(half, rel=0.05)


def test_covers_bernoulli_accuracies():
    """95 % of the intervals hold the truth, within the binomial tolerance of the number of trials."""
    trials, p = 400, 0.8
    covered = 0
    for trial in range(trials):
        found = bootstrap_interval(bernoulli(trial, p, 1, 300), seed=0, bounds=UNIT, num_draws=1000)
        covered += found.low <= p <= found.high
    low, high = scipy.stats.binom.interval(0.999, trials, 0.95)
    assert low - 0.01 * trials <= covered <= high  # the percentile bootstrap is a little narrow


def test_covers_the_mean_over_seeds_and_images():
    """Each seed has its own true accuracy: without the spread over seeds, coverage would be far off."""
    trials, covered = 300, 0
    for trial in range(trials):
        random = np.random.default_rng(trial)
        p = 0.7 + 0.05 * random.standard_normal((3, 1))
        correct = torch.from_numpy(random.random((3, 500)) < p)
        found = bootstrap_interval(correct, seed=0, bounds=UNIT, num_draws=500)
        covered += found.low <= 0.7 <= found.high
    assert covered / trials > 0.95 - 0.04


def test_seed_noise_has_the_quantiles_of_t():
    noise = seed_noise(torch.tensor([0.1, 0.2, 0.6]), seed=0, num_draws=4000)
    sd = np.std([0.1, 0.2, 0.6], ddof=1) / math.sqrt(3)
    for q in (0.025, 0.5, 0.975):
        assert np.quantile(noise.numpy(), q) == pytest.approx(sd * scipy.stats.t.ppf(q, 2), abs=0.01 * sd + 1e-3)
    assert seed_noise(torch.tensor([0.3]), seed=0, num_draws=10).abs().max() == 0
    assert seed_noise(torch.full((3,), 0.1), seed=0, num_draws=10).abs().max() == 0


@pytest.mark.parametrize("right", [True, False])
def test_without_width_an_accuracy_is_clopper_pearson(right):
    found = bootstrap_interval(torch.full((3, 40), right), seed=0, bounds=UNIT)
    exact = binomial_interval(40 * right, 40)
    assert (found.low, found.high) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert found.low < found.high


def test_without_width_a_difference_is_bounded_by_the_rate_of_disagreement():
    agree = bernoulli(0, 0.7, 1, 60)
    found = paired_difference(agree, agree, seed=0)
    u = 1 - 0.025 ** (1 / 60)
    assert (found.value, found.low, found.high) == (0.0, pytest.approx(-u), pytest.approx(u))
    always = paired_difference(torch.ones(1, 60).bool(), torch.zeros(1, 60).bool(), seed=0)
    assert (always.value, always.low, always.high) == (1.0, pytest.approx(1 - 2 * u), 1.0)


@pytest.mark.parametrize("n", [1, 2, 7, 50])
@pytest.mark.parametrize("constant", [0.0, 0.3, 2.0])
def test_no_interval_has_zero_width(n, constant):
    found = bootstrap_interval(torch.full((2, n), constant), seed=0, bounds=(0.0, 2.0))
    assert 0 <= found.low < found.high <= 2
    unbounded = bootstrap_interval(torch.full((2, n), constant), seed=0)
    assert (unbounded.low, unbounded.high) == (-math.inf, math.inf)
    labels = torch.arange(n) % 3
    correct = (labels == 0)[None].expand(2, n)  # one class always right, the others never
    balanced = balanced_accuracy_interval(correct, labels, seed=0)
    assert 0 <= balanced.low < balanced.high <= 1
    perfect = calibration_error_interval(torch.ones(2, n), torch.ones(2, n), binning="mass", seed=0)
    assert 0 <= perfect.low < perfect.high <= 1


def test_the_bound_for_constant_scores_holds_at_every_possible_truth():
    """Departure rates of two groups under which seeing none has probability 2.5 %: the mean is inside."""
    n = (12, 30)
    low = constant_interval([1.0, 1.0], n, bounds=UNIT).low
    for p in np.linspace(0, 1 - 0.025 ** (1 / n[0]), 200):
        # The rate of the other group that leaves Π (1 - p)^n at 0.025.
        q = 1 - (0.025 / (1 - p) ** n[0]) ** (1 / n[1])
        assert 1 - (p + q) / 2 >= low - 1e-12
    same = constant_interval([1.0, 1.0], (12, 12), bounds=UNIT).low
    assert same == pytest.approx(0.025 ** (1 / 24))


def test_pairing_takes_out_what_images_share():
    """a and b fail on the same images but for a few: the paired interval is far narrower."""
    hard = bernoulli(0, 0.5, 1, 1000)
    a, b = hard | bernoulli(1, 0.03, 1, 1000), hard | bernoulli(2, 0.02, 1, 1000)
    paired = paired_difference(a, b, seed=0)
    alone = bootstrap_interval(a, seed=0, bounds=UNIT)
    assert paired.value == pytest.approx(a.double().mean().item() - b.double().mean().item())
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)
    swapped = paired_difference(b, a, seed=0)
    assert (swapped.low, swapped.high) == (pytest.approx(-paired.high), pytest.approx(-paired.low))


def test_one_seed_stands_beside_many():
    a, b = bernoulli(0, 0.8, 3, 200), bernoulli(1, 0.7, 1, 200)
    assert paired_difference(a, b, seed=0) == paired_difference(a, b.expand(3, 200), seed=0)


def test_mean_over_splits_has_the_variance_of_a_stratified_mean():
    blocks = [bernoulli(0, 0.9, 1, 400), bernoulli(1, 0.4, 1, 900)]
    found = mean_over_splits(blocks, seed=0, bounds=UNIT, num_draws=8000)
    p = [block.double().mean().item() for block in blocks]
    sd = math.sqrt(sum(q * (1 - q) / block.shape[1] for q, block in zip(p, blocks, strict=True))) / 2
    assert found.value == pytest.approx(sum(p) / 2)
    assert found.high - found.low == pytest.approx(2 * 1.96 * sd, rel=0.05)


def test_splits_are_resampled_independently():
    """Twice the same images under two names: the mean of the two is √2 surer than either."""
    block = bernoulli(0, 0.6, 1, 500)
    once, twice = (
        mean_over_splits(blocks, seed=0, bounds=UNIT, num_draws=8000) for blocks in ([block], [block, block])
    )
    assert (once.high - once.low) / (twice.high - twice.low) == pytest.approx(math.sqrt(2), rel=0.06)


def test_balanced_accuracy_interval_against_resampling_one_by_one():
    labels = torch.from_numpy(np.random.default_rng(0).choice(3, 90, p=[0.7, 0.2, 0.1]))
    correct = bernoulli(1, 0.7, 2, 90)
    correct[1] = correct[0]  # equal seeds: no spread to add
    random, draws = np.random.default_rng(5), []
    for _ in range(4000):
        drawn = torch.from_numpy(random.integers(90, size=90))
        y, c = labels[drawn], correct[0][drawn].double()
        draws.append(np.mean([c[y == k].mean().item() for k in y.unique()]))
    found = balanced_accuracy_interval(correct, labels, seed=0, num_draws=4000)
    by_class = [correct[0][labels == k].double().mean().item() for k in range(3)]
    assert found.value == pytest.approx(np.mean(by_class))
    assert (found.low, found.high) == (
        pytest.approx(np.quantile(draws, 0.025), abs=0.015),
        pytest.approx(np.quantile(draws, 0.975), abs=0.015),
    )


@pytest.mark.parametrize(("shift", "binning"), [(0.0, "mass"), (0.15, "mass"), (0.15, "width")])
def test_calibration_interval_covers(shift, binning):
    """Confidences in [0.5, 0.85], right with probability confidence + shift: the true error is the shift."""
    trials, covered = 60, 0
    for trial in range(trials):
        random = np.random.default_rng(trial)
        confidence = random.uniform(0.5, 0.85, (1, 400))
        correct = torch.from_numpy(random.random((1, 400)) < confidence + shift)
        found = calibration_error_interval(
            torch.from_numpy(confidence), correct, binning=binning, seed=0, num_draws=400
        )
        assert found.low <= found.value <= found.high
        covered += found.low <= shift <= found.high
    assert covered >= scipy.stats.binom.ppf(0.001, trials, 0.95)


def test_calibration_interval_narrows_around_a_large_error():
    """Confidences far off in one direction: the interval is about the mean gap's, ± 1.96 sd and a little."""
    random = np.random.default_rng(0)
    confidence = torch.from_numpy(random.uniform(0.8, 0.9, (1, 4000)))
    correct = bernoulli(1, 0.5, 1, 4000)
    found = calibration_error_interval(confidence, correct, binning="width", seed=0)
    assert found.value == pytest.approx(0.35, abs=0.03)
    assert found.high - found.low < 3 * (2 * 1.96 * 0.5 / math.sqrt(4000))


def test_same_seed_same_interval_another_seed_another():
    samples = bernoulli(0, 0.6, 2, 150)
    first = bootstrap_interval(samples, seed=0, bounds=UNIT)
    assert first == bootstrap_interval(samples, seed=0, bounds=UNIT)
    assert first != bootstrap_interval(samples, seed=1, bounds=UNIT)


def test_a_statistic_without_width_has_its_range():
    found = bootstrap_statistic(lambda w: w.sum(1) * 0, torch.zeros(1), 5, seed=0, bounds=(0.0, 3.0))
    assert (found.low, found.high) == (0.0, 3.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval(torch.ones(1, 0), seed=0), r"got \(1, 0\)"),
        (lambda: bootstrap_interval(torch.tensor([[math.nan]]), seed=0), "finite samples"),
        (lambda: bootstrap_interval(torch.ones(1, 2), seed=0, level=95.0), "between 0 and 1, got 95"),
        (lambda: binomial_interval(5, 4), "successes=5, n=4"),
        (lambda: paired_difference(torch.ones(2, 4), torch.ones(3, 4), seed=0), "got 2 and 3"),
        (lambda: mean_over_splits([], seed=0), "at least one split"),
        (lambda: mean_over_splits([torch.ones(1, 2), torch.ones(2, 2)], seed=0), r"\[1, 2\] seeds"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(InputError, match=message):
        call()

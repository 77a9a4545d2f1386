import math
from itertools import permutations

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from headfirst.errors import InputError
from headfirst.metrics import abstention_threshold, area_under_risk_coverage, risk_coverage


def test_curve_without_ties():
    random = np.random.default_rng(0)
    confidence, correct = random.random(50), random.random(50) < 0.7
    curve = risk_coverage(torch.from_numpy(confidence), torch.from_numpy(correct))
    for i, threshold in enumerate(sorted(confidence, reverse=True)):
        answered = confidence >= threshold
        assert curve.coverage[i].item() == pytest.approx(answered.mean())
        assert curve.risk[i].item() == pytest.approx(1 - correct[answered].mean())


def test_ties_share_what_every_order_would_give_on_average():
    confidence = [0.9, 0.5, 0.5, 0.5, 0.1]
    correct = [1.0, 0.0, 1.0, 0.0, 1.0]
    risks = [
        np.cumsum(1 - np.array([correct[0], *middle, correct[4]])) / np.arange(1, 6)
        for middle in permutations(correct[1:4])
    ]
    curve = risk_coverage(torch.tensor(confidence), torch.tensor(correct))
    assert curve.risk.numpy() == pytest.approx(np.mean(risks, axis=0))
    order = torch.tensor([4, 3, 1, 0, 2])
    again = risk_coverage(torch.tensor(confidence)[order], torch.tensor(correct)[order])
    assert again.risk.numpy() == pytest.approx(curve.risk.numpy())


def test_area_closed_forms():
    n, wrong = 200, 40
    surest_first = torch.linspace(1, 0, n)
    correct = torch.arange(n) < n - wrong
    perfect = sum(i / (n - wrong + i) for i in range(1, wrong + 1)) / n
    assert area_under_risk_coverage(surest_first, correct) == pytest.approx(perfect)
    assert area_under_risk_coverage(torch.zeros(n), correct) == pytest.approx(wrong / n)
    assert area_under_risk_coverage(-surest_first, correct) > wrong / n


def bound(errors, n, level):
    """The one-sided Clopper-Pearson upper bound, as a quantile of a beta distribution."""
    return scipy.stats.beta.ppf(level, errors + 1, n - errors) if errors < n else 1.0


@pytest.mark.parametrize("max_error", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_threshold_is_what_the_rule_says(max_error, seed):
    """Run by run from scipy's bounds: starts doubled from the fewest that can pass at their part of 5 %."""
    random = np.random.default_rng(seed)
    n = 400
    confidence = np.round(random.random(n), 2 if seed % 2 else 8)  # with ties and without
    correct = random.random(n) < 0.7 + 0.3 * confidence
    found = abstention_threshold(torch.from_numpy(confidence), torch.from_numpy(correct), max_error)

    def starts(parts):
        fewest = next(m for m in range(1, 10**6) if (0.05 / parts) ** (1 / m) >= 1 - max_error)
        return [fewest * 2**i for i in range(parts)]

    parts = max(m for m in range(1, 12) if starts(m)[-1] <= n)
    ordered, least = np.sort(confidence)[::-1], math.inf
    for start in starts(parts):
        for threshold in ordered[start - 1 :]:
            answered = confidence >= threshold
            if bound(int((~correct[answered]).sum()), int(answered.sum()), 1 - 0.05 / parts) > max_error:
                break
            least = min(least, threshold)
    assert found == least


def error_among(law, threshold):
    """True error of images with confidence uniform on [0, 1] that reach the threshold, by quadrature."""
    grid = np.linspace(min(threshold, 0.999), 1, 400)
    return np.trapezoid(law(grid), grid) / (1 - grid[0])


LAWS = {
    "confidence tells nothing, and the error is just too large": lambda c: 0.1001 + 0 * c,
    "the error rises slowly": lambda c: 0.25 * (1 - c),
    "the error is none above a half": lambda c: 0.6 * (c < 0.5),
}


@pytest.mark.parametrize("name", LAWS)
def test_the_true_error_exceeds_the_maximum_in_few_draws(name):
    """In at most 5 % of the draws (and binomial noise); choosing the best of all uncorrected bounds does not hold."""
    law, draws, n = LAWS[name], 600, 300
    exceeded = naively = 0
    random = np.random.default_rng(7)
    for _ in range(draws):
        confidence = random.random(n)
        correct = random.random(n) >= law(confidence)
        found = abstention_threshold(torch.from_numpy(confidence), torch.from_numpy(correct), 0.1)
        exceeded += found < math.inf and error_among(law, found) > 0.1
        ordered = np.sort(confidence)[::-1]
        errors = np.cumsum(~correct[np.argsort(-confidence)])
        passing = np.flatnonzero(scipy.special.bdtr(errors, np.arange(1, n + 1), 0.1) <= 0.05)
        naively += len(passing) > 0 and error_among(law, ordered[passing[-1]]) > 0.1
    allowed = scipy.stats.binom.ppf(0.999, draws, 0.05)
    assert exceeded <= allowed
    if "nothing" in name:
        assert naively > allowed


def test_answers_much_where_much_may_be_answered():
    """Never wrong above a half: about that half is answered, and all where nothing is wrong."""
    random = np.random.default_rng(1)
    confidence = random.random(2000)
    correct = random.random(2000) >= LAWS["the error is none above a half"](confidence)
    found = abstention_threshold(torch.from_numpy(confidence), torch.from_numpy(correct), 0.05)
    assert 0.4 < found < 0.5
    always = abstention_threshold(torch.from_numpy(confidence), torch.ones(2000), 0.05)
    assert always == confidence.min()


def test_equal_confidences_are_answered_together_or_not_at_all():
    sure = torch.ones(100)
    assert abstention_threshold(sure, torch.ones(100), 0.05) == 1
    assert abstention_threshold(sure, (torch.arange(100) >= 4).double(), 0.05) == math.inf
    two_levels = torch.cat([sure, sure * 0.5])
    correct = torch.cat([torch.ones(100), torch.zeros(100)])
    assert abstention_threshold(two_levels, correct, 0.05) == 1


def test_nothing_qualifies():
    """Fifty-eight images without an error cannot vouch for 5 % at 95 %; fifty-nine can."""
    assert abstention_threshold(torch.arange(58.0), torch.ones(58), 0.05) == math.inf
    assert abstention_threshold(torch.arange(59.0), torch.ones(59), 0.05) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: risk_coverage(torch.ones(0), torch.ones(0)), "at least one row"),
        (lambda: risk_coverage(torch.tensor([math.nan]), torch.ones(1)), "NaN at row 0"),
        (lambda: risk_coverage(torch.ones(3), torch.ones(1)), "one correctness for each confidence, got 1 for 3"),
        (lambda: area_under_risk_coverage(torch.ones(2), torch.tensor([0.5, 1.0])), "pass booleans"),
        (lambda: abstention_threshold(torch.ones(2), torch.ones(2), 0.0), "must lie strictly between 0 and 1"),
        (lambda: abstention_threshold(torch.ones(2), torch.ones(2), 1.5), "must lie strictly between 0 and 1"),
        (lambda: abstention_threshold(torch.ones(2), torch.ones(2), 0.1, 95.0), "level must lie strictly"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(InputError, match=message):
        call()

"""Coverage of prediction sets with real probabilities: a probe on builtin/glyph, the embedded digits' test images."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from headfirst.adapt import LinearProbe
from headfirst.data import ImageSet
from headfirst.features import embed
from headfirst.metrics import adaptive_scores, conformal_threshold, least_ambiguous_scores, prediction_sets
from headfirst.nn import load_backbone

SPLITS, CALIBRATION, ALPHA = 200, 1000, 0.1


@pytest.fixture(scope="module")
def probabilities_and_labels():
    digits, backbone = ImageSet.digits(), load_backbone("builtin/glyph")
    # Of the 2,500 training images every fifth: the probe then errs often enough for sets to have more than one class.
    train = embed(backbone, digits["train"])
    test = embed(backbone, digits["test"])
    probe = LinearProbe(l2=1e-3).fit(train.take(range(0, len(train), 5)))
    return probe.predict_proba(test), test.labels


@pytest.mark.parametrize("rule", ["least", "randomised"])
def test_coverage_over_200_splits(probabilities_and_labels, rule):
    """Without ties, the held-out images covered in a random split are beta-binomial, whatever the probabilities.

    Rank k of n calibration scores: BetaBinomial(m, k, n + 1 - k) of m held out. The mean over the splits lies within
    four standard errors of k/(n + 1), the splits are inside its central 95 % as often as that says, and what they cover
    has its distribution.
    """
    p, labels = probabilities_and_labels
    u = torch.rand(len(p), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores = least_ambiguous_scores(p) if rule == "least" else adaptive_scores(p, u)
    of_truth = scores.gather(1, labels[:, None])[:, 0]
    assert len(of_truth.unique()) > 0.99 * len(p)
    covered = []
    for seed in range(SPLITS):
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(p)))
        calibration, held_out = order[:CALIBRATION], order[CALIBRATION:]
        sets = prediction_sets(scores[held_out], conformal_threshold(of_truth[calibration], ALPHA))
        covered.append(int(sets.gather(1, labels[held_out, None]).sum()))
    held, rank = len(p) - CALIBRATION, math.ceil((CALIBRATION + 1) * (1 - ALPHA))
    law = scipy.stats.betabinom(held, rank, CALIBRATION + 1 - rank)
    assert abs(np.mean(covered) - law.mean()) < 4 * law.std() / math.sqrt(SPLITS)
    low, high = law.interval(0.95)
    inside = sum(low <= count <= high for count in covered)
    assert inside >= scipy.stats.binom.ppf(0.001, SPLITS, 0.95)
    # A count's place within its step is drawn, so that a discrete law is tested as a continuous one.
    place = np.random.default_rng(0).random(SPLITS)
    levels = law.cdf(np.array(covered) - 1) + place * law.pmf(covered)
    assert scipy.stats.kstest(levels, "uniform").pvalue > 0.001


def test_sets_are_worth_reading(probabilities_and_labels):
    """At 99 % they name few of the ten digits, and more of them where the probe is less sure."""
    p, labels = probabilities_and_labels
    scores = adaptive_scores(p)
    threshold = conformal_threshold(scores[::2].gather(1, labels[::2, None])[:, 0], 0.01)
    size = prediction_sets(scores[1::2], threshold).sum(1).double()
    assert 1 < size.mean() < 5
    confidence = p[1::2].amax(1)
    assert size[confidence < 0.6].mean() > size[confidence > 0.95].mean()

"""The filter: planted faults are found under their names, new images of the same distribution mostly pass."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from gaussian_classes import centres, drawn, features

from headfirst.adapt import LinearProbe
from headfirst.augment import KEPT, MEMORISED, OFF_MANIFOLD, WRONG_CLASS, contradicted_by, filter_samples, summed
from headfirst.augment.filter import reach
from headfirst.errors import DataError, InputError

CENTRES = centres(3, 8, 6.0)


def judged(samples, real, **options):
    return filter_samples(samples, real, contradicted_by(LinearProbe(l2=1e-2).fit(real), samples, real), **options)


def shares(samples, real, **options) -> dict[str, float]:
    found = Counter(judged(samples, real, **options).verdicts)
    return {verdict: count / len(samples) for verdict, count in found.items()}


@pytest.mark.parametrize("each", [5, 20, 60])
def test_new_images_of_the_same_distribution_pass(each: int) -> None:
    found = [shares(drawn(CENTRES, 60, seed=100 + s), drawn(CENTRES, each, seed=s)) for s in range(8)]
    copies = sum(one.get(MEMORISED, 0) for one in found) / 8
    outside = sum(one.get(OFF_MANIFOLD, 0) for one in found) / 8
    # Of n + 1 exchangeable images a new one is in the closest pair 2 times in n + 1; balls hold nine in ten.
    expected = 2 / (each + 1) if each <= 20 else 0.1
    assert copies == pytest.approx(expected, abs=0.4 * expected)
    assert outside < 0.25
    assert sum(one[KEPT] for one in found) / 8 > 0.55


def test_copies_are_memorised_whatever_they_are_called() -> None:
    real = drawn(CENTRES, 20, seed=0)
    near = 0.2 * torch.randn(real.values.shape, generator=torch.Generator().manual_seed(1))
    assert shares(replace(real, values=real.values + near), real) == {MEMORISED: 1.0}
    assert shares(replace(real, labels=(real.labels + 1) % 3), real) == {MEMORISED: 1.0}
    found = judged(replace(real, values=real.values + near), real)
    assert found.nearest.tolist() == list(range(60))
    torch.testing.assert_close(found.distances, near.double().norm(dim=1), rtol=1e-5, atol=1e-6)


def test_good_images_under_the_wrong_class_are_found() -> None:
    real = drawn(CENTRES, 40, seed=0)
    samples = drawn(CENTRES, 60, seed=1)
    found = shares(replace(samples, labels=(samples.labels + 1) % 3), real)
    assert found.get(KEPT, 0) == 0
    assert found[WRONG_CLASS] > 0.7


def test_noise_is_off_the_manifold() -> None:
    real = drawn(CENTRES, 40, seed=0)
    labels = torch.arange(3).repeat_interleave(50)
    noise = 12 * torch.randn(150, 8, generator=torch.Generator().manual_seed(1))
    found = shares(features(noise, labels), real)
    assert found[OFF_MANIFOLD] > 0.95
    assert found.get(KEPT, 0) == 0


def test_the_classifier_is_heard() -> None:
    real = drawn(CENTRES, 40, seed=0)
    samples = drawn(CENTRES, 20, seed=1)
    kept = filter_samples(samples, real, torch.zeros(60).bool()).kept()
    assert len(kept) > 30
    contradicted = torch.arange(60) % 2 == 0
    found = filter_samples(samples, real, contradicted)
    assert found.kept() == [row for row in kept if row % 2]
    assert {found.verdicts[row] for row in kept if row % 2 == 0} == {WRONG_CLASS}


def test_a_classifier_contradicts_what_it_seldom_doubts_of_real_images() -> None:
    # Well apart: whatever is called something else is contradicted, as no real image is.
    real, samples = drawn(CENTRES, 40, seed=0), drawn(CENTRES, 40, seed=1)
    model = LinearProbe(l2=1e-2).fit(real)
    assert not contradicted_by(model, samples, real).any()
    assert contradicted_by(model, replace(samples, labels=(samples.labels + 1) % 3), real).all()
    # Close together: real images are called something else too, and new ones are doubted no more than those are.
    near = centres(3, 8, 1.2)
    shares = []
    for s in range(8):
        real, samples = drawn(near, 40, seed=s), drawn(near, 100, seed=100 + s)
        model = LinearProbe(l2=1e-2).fit(real)
        found = contradicted_by(model, samples, real)
        called = model.predict(samples) != samples.labels
        assert bool((called | ~found).all())  # never what it calls by its own name
        assert called.double().mean() > 0.2
        shares.append(found.double().mean().item())
    assert sum(shares) / 8 == pytest.approx(0.1, abs=0.04)
    few = drawn(near, 2, seed=0)  # nothing can be held out: any other call counts
    model = LinearProbe(l2=1e-2).fit(few)
    assert torch.equal(contradicted_by(model, samples, few), model.predict(samples) != samples.labels)


def test_verdicts_do_not_depend_on_scale_shift_or_order() -> None:
    real, samples = drawn(CENTRES, 20, seed=0), drawn(CENTRES, 20, seed=1)
    called = torch.arange(60) % 7 == 0
    first = filter_samples(samples, real, called)
    moved = [replace(f, values=1000 * f.values.double() - 7) for f in (samples, real)]
    assert filter_samples(moved[0], moved[1], called).verdicts == first.verdicts
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).tolist()
    again = filter_samples(samples.take(order), real.take(list(reversed(range(60)))), called[order])
    assert again.verdicts == tuple(first.verdicts[i] for i in order)


def test_reach_is_the_least_that_holds_nine_in_ten() -> None:
    # Ten points in a row and one far off: nobody's neighbour until balls reach to the ninth.
    x = torch.cat([torch.arange(10.0).double(), torch.tensor([1e3]).double()])[:, None]
    assert reach(x, 1) == 1
    for n, k in ((6, 1), (15, 2), (40, 3)):
        x = torch.randn(n, 12, generator=torch.Generator().manual_seed(n)).double()
        distances = torch.cdist(x, x)
        distances.fill_diagonal_(torch.inf)

        def held(m: int, distances: torch.Tensor = distances) -> float:
            radius = distances.sort(dim=1).values[:, m - 1]
            return (distances <= radius[:, None] + 1e-9).any(dim=0).double().mean().item()

        found = reach(x, k)
        assert held(found) >= 0.9
        assert found == k or held(found - 1) < 0.9


def test_a_class_of_one_image_is_judged_by_what_is_there() -> None:
    real = features(torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [10.0, 0.0]]), torch.tensor([0, 0, 0, 1]))
    samples = features(torch.tensor([[10.5, 0.0], [14.0, 0.0]]), torch.tensor([1, 1]))
    # The least distance of all classes is 1; farther than that, nothing speaks against an image of the class.
    assert filter_samples(samples, real, torch.zeros(2).bool()).verdicts == (MEMORISED, KEPT)


def test_counts_are_complete() -> None:
    real, samples = drawn(CENTRES, 20, seed=0), drawn(CENTRES, 30, seed=1)
    found = judged(samples, real)
    counts = found.counts(samples)
    assert {name: sum(of.values()) for name, of in counts.items()} == {"ant": 30, "bee": 30, "cat": 30}
    assert summed(counts)[KEPT] == len(found.kept())
    assert judged(samples.take([]), real).verdicts == ()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda s, r, c: (replace(s, source="other"), r, c, {}), InputError, "same backbone"),
        (lambda s, r, c: (replace(s, classes=("x", "y", "z")), r, c, {}), InputError, "same classes"),
        (lambda s, r, c: (replace(s, labels=s.labels - 1), r, c, {}), InputError, "needs a label"),
        (lambda s, r, c: (s, r, c[1:], {}), InputError, "each of 6 images, got 5"),
        (lambda s, r, c: (s, r.take(range(20)), c, {}), DataError, "'bee' has generated images but no real ones"),
        (lambda s, r, c: (s, r, c, {"quantile": 0.0}), InputError, "quantile must lie"),
        (lambda s, r, c: (s, r, c, {"k": 0}), InputError, "k be at least 1"),
    ],
)
def test_refusals(change, error, words: str) -> None:
    samples, real, called, options = change(drawn(CENTRES, 2, seed=1), drawn(CENTRES, 20, seed=0),
                                            torch.zeros(6).bool())  # fmt: skip
    with pytest.raises(error, match=words):
        filter_samples(samples, real, called, **options)

"""The gate on planted features: what helps is taken where labels are few, what harms or does nothing is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from headfirst.adapt import LinearProbe
from headfirst.augment import KEPT, MEMORISED, OFF_MANIFOLD, WRONG_CLASS
from headfirst.errors import DataError, InputError
from headfirst.study.mixing_ratio import Augmentation, choose_ratio, held_out, probes
from headfirst.types import Features

CLASSES = ("ant", "bee", "cat")
RECIPE = Augmentation(probe=LinearProbe(l2=0.1), ratios=(1.0, 4.0))


def drawn(means: torch.Tensor, each: int, *, seed: int, name: str = "real", nuisance: float = 1.0) -> Features:
    labels = torch.arange(len(means)).repeat_interleave(each)
    noise = torch.randn(len(labels), means.shape[1], generator=torch.Generator().manual_seed(seed))
    noise[:, 3:] *= nuisance
    return Features(values=means[labels] + noise, labels=labels, classes=CLASSES[: len(means)],
                    ids=tuple(f"{name}/{i}" for i in range(len(labels))), split="train", source="planted")  # fmt: skip


def means(dim: int, apart: float) -> torch.Tensor:
    return apart * torch.eye(dim)[:3]


def generator(of: torch.Tensor, each: int = 60) -> Callable[[Sequence[int], int], Features]:
    """Draws from N(of, 1) whatever it is given."""
    return lambda rows, seed: drawn(of, each, seed=10_000 + 100 * seed + rows[0], name="made")


def test_true_images_of_scarce_classes_are_taken_and_help() -> None:
    # Thirty directions, three of which tell the classes apart: forty images a class do not show which.
    where, recipe = means(30, 3.0), replace(RECIPE, probe=LinearProbe(l2=1e-3))
    real = drawn(where, 40, seed=0, nuisance=6.0)
    found = held_out(real, lambda rows, seed: drawn(where, 216, seed=100 * seed + rows[0] + 9, nuisance=6.0), recipe)
    choice = choose_ratio(found.right, seed=0)
    assert choice.ratio > 0
    assert choice.gains[choice.ratio].low > 0
    test = drawn(where, 1000, seed=2, nuisance=6.0)
    models = probes(real, drawn(where, 320, seed=3, nuisance=6.0), recipe)
    assert models[choice.ratio].score(test) > models[0.0].score(test) + 0.05
    assert models[0.0].l2 == models[4.0].l2


@pytest.mark.slow
def test_what_does_not_help_is_refused_in_nineteen_sets_of_twenty() -> None:
    # Images of each class pulled towards the next one: many pass the filter, none shows the boundary.
    where = means(5, 2.0)
    harmful = 0.6 * where + 0.4 * where.roll(1, 0)
    taken, gains, passed = 0, [], 0
    for s in range(20):
        found = held_out(drawn(where, 12, seed=s), generator(harmful, 64), replace(RECIPE, seed=s))
        choice = choose_ratio(found.right, seed=s)
        taken += choice.ratio > 0
        gains.append(choice.gains[4.0].value)
        passed += found.verdicts[KEPT]
    assert passed > 20 * 9 * 40  # it is the gate that refuses, not the filter
    assert sum(gains) / 20 < 0.02
    assert taken <= 1


def test_no_gain_on_average_is_rarely_taken_and_a_large_one_is() -> None:
    random = torch.Generator().manual_seed(0)

    def simulated(up: float) -> dict[float, torch.Tensor]:
        """200 images, a tenth wrong; as many get right as get wrong, and a share `up` of all besides."""
        before = torch.rand(3, 200, generator=random) > 0.1
        shared = torch.rand(1, 200, generator=random)
        right = {0.0: before}
        for ratio in (0.5, 1.0, 2.0, 4.0):
            moved = torch.where(
                torch.rand(3, 200, generator=random) < 0.7, shared, torch.rand(3, 200, generator=random)
            )
            right[ratio] = torch.where(before, moved > 0.03, moved < 0.27 + up / 0.1)
        return right

    taken = [choose_ratio(simulated(0.0), seed=s).ratio for s in range(40)]
    assert sum(ratio > 0 for ratio in taken) <= 2
    assert not any(choose_ratio(simulated(-0.02), seed=s).ratio for s in range(20))  # harm
    assert sum(choose_ratio(simulated(0.06), seed=s).ratio > 0 for s in range(12)) >= 4


def test_few_departures_are_no_evidence() -> None:
    before = torch.ones(3, 60, dtype=torch.bool)
    before[:, :5] = False
    after = before.clone()
    after[:, :5] = True  # five of five gained: p = 0.0625, though no bootstrap of five equal gains reaches zero
    choice = choose_ratio({0.0: before, 1.0: after}, seed=0)
    assert choice.ratio == 0
    before[:, :9] = False
    assert choose_ratio({0.0: before, 1.0: torch.ones(3, 60, dtype=torch.bool)}, seed=0).ratio == 1.0


def test_the_least_ratio_that_gains_about_as_much_as_the_best_is_taken() -> None:
    random = torch.Generator().manual_seed(1)
    before = torch.rand(3, 200, generator=random) > 0.4
    drawn = torch.rand(3, 200, generator=random)
    some, more, most = (before | (drawn < share) for share in (0.4, 0.79, 0.8))
    rising = {0.0: before, 0.5: before, 1.0: some, 2.0: more, 4.0: most}
    choice = choose_ratio(rising, seed=0)
    assert choice.gains[1.0].low > 0
    assert choice.ratio == 2.0
    assert choose_ratio({0.0: most, 0.5: before, 1.0: before}, seed=0).ratio == 0


def test_what_is_held_out_never_reaches_the_generator_or_the_probes() -> None:
    where = means(6, 2.0)
    real = drawn(where, 9, seed=0)
    given: list[tuple[int, tuple[int, ...]]] = []

    def draw(rows: Sequence[int], seed: int) -> Features:
        given.append((seed, tuple(rows)))
        return drawn(where, 30, seed=seed)

    held_out(real, draw, RECIPE)
    assert len(given) == 9
    for seed in range(3):
        out = [set(range(27)) - set(rows) for s, rows in given if s == seed]
        assert sorted(i for rows in out for i in rows) == list(range(27))  # each is held out exactly once
        assert all(torch.bincount(real.labels[sorted(rows)]).tolist() == [3, 3, 3] for rows in out)
    assert len({rows for _, rows in given}) == 9

    # Labels that say nothing: whatever had seen an image it is asked about would be right more often than by chance.
    names = torch.randint(3, (75,), generator=torch.Generator().manual_seed(5))
    noise = replace(drawn(means(40, 0.0), 25, seed=6), labels=names)

    def copies(rows: Sequence[int], seed: int) -> Features:
        part = noise.take(rows)
        near = 0.8 * torch.randn(len(part) * 2, 40, generator=torch.Generator().manual_seed(seed))
        return replace(part, values=part.values.repeat(2, 1) + near, labels=part.labels.repeat(2),
                       ids=tuple(map(str, range(2 * len(part)))))  # fmt: skip

    found = held_out(noise, copies, replace(RECIPE, ratios=(1.0,)))
    for ratio, right in found.right.items():
        assert right.double().mean().item() == pytest.approx(1 / 3, abs=0.12), ratio


def test_faults_are_counted_under_their_names() -> None:
    where = means(6, 8.0)
    real = drawn(where, 15, seed=0)

    def judged(draw: Callable[[Sequence[int], int], Features]) -> dict[str, float]:
        found = held_out(real, draw, replace(RECIPE, seeds=2)).verdicts
        return {verdict: count / sum(found.values()) for verdict, count in found.items()}

    assert judged(lambda rows, seed: real.take(rows))[MEMORISED] == 1.0
    assert judged(generator(where.roll(1, 0)))[WRONG_CLASS] > 0.6
    assert judged(generator(where + 40))[OFF_MANIFOLD] == 1.0
    assert judged(generator(where))[KEPT] > 0.5


def test_a_stopped_run_goes_on_and_another_one_is_not_mistaken_for_it(tmp_path: Path) -> None:
    where = means(6, 2.0)
    real, calls = drawn(where, 6, seed=0), []

    def draw(rows: Sequence[int], seed: int) -> Features:
        calls.append(seed)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return drawn(where, 20, seed=seed)

    with pytest.raises(KeyboardInterrupt):
        held_out(real, draw, RECIPE, directory=tmp_path, of="vae")
    whole = held_out(real, draw, RECIPE, directory=tmp_path, of="vae")
    assert len(calls) == 5 + 5
    fresh = held_out(real, generator(where, 20), RECIPE)
    assert whole.right.keys() == fresh.right.keys()
    again = held_out(real, draw, RECIPE, directory=tmp_path, of="vae")
    assert len(calls) == 10
    assert again.verdicts == whole.verdicts
    assert all(torch.equal(again.right[ratio], whole.right[ratio]) for ratio in whole.right)
    held_out(real, draw, RECIPE, directory=tmp_path, of="gan")
    assert len(calls) == 19


def test_refusals() -> None:
    real = drawn(means(6, 2.0), 6, seed=0)
    with pytest.raises(DataError, match="class 'cat' has 2 training images, but 3 of each class"):
        held_out(real.take(range(14)), generator(means(6, 2.0)), RECIPE)
    with pytest.raises(DataError, match="has no label"):
        held_out(replace(real, labels=real.labels - 1), generator(means(6, 2.0)), RECIPE)
    for ratios in ((), (1.0, 0.5), (0.0, 1.0)):
        with pytest.raises(InputError, match="ratios must rise and lie above 0"):
            Augmentation(ratios=ratios)
    for name in ("folds", "seeds"):
        with pytest.raises(InputError, match=f"{name} must be at least 2, got 1"):
            Augmentation(**{name: 1})
    with pytest.raises(InputError, match="ratio 0 and at least one above"):
        choose_ratio({1.0: torch.ones(3, 5, dtype=torch.bool)}, seed=0)

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headfirst.data import ImageSplit, cap_per_class, few_shot
from headfirst.data.splits import (
    ClassTooSmallError,
    grouped_cut,
    shuffled_by_name,
    stratified_cut,
    stratified_parts,
)
from headfirst.errors import DataError, InputError


def split_of(counts: list[int]) -> ImageSplit:
    labels = np.repeat(np.arange(len(counts)), counts)
    ids = tuple(f"{label}/{i:03d}.png" for label, count in enumerate(counts) for i in range(count))
    blank = np.zeros((1, 1, 3), dtype=np.uint8)
    return ImageSplit(
        name="train",
        ids=ids,
        sources=(blank,) * len(ids),
        labels=labels,
        classes=tuple(f"class-{k}" for k in range(len(counts))),
    )


@given(st.integers(0, 2**32), st.integers(1, 6), st.randoms())
def test_few_shot_is_exact_seed_stable_and_blind_to_order(seed: int, k: int, random) -> None:
    split = split_of([6, 9, 20])
    drawn = few_shot(split, k, seed=seed)
    assert drawn.class_counts() == {"class-0": k, "class-1": k, "class-2": k}
    order = list(range(len(split)))
    random.shuffle(order)
    again = few_shot(split.take(order), k, seed=seed)
    assert again.ids == drawn.ids
    np.testing.assert_array_equal(again.labels, drawn.labels)


def test_few_shot_draws_differ_by_seed_and_are_nested() -> None:
    split = split_of([50, 50])
    draws = [set(few_shot(split, 5, seed=seed).ids) for seed in range(20)]
    assert len({frozenset(draw) for draw in draws}) == 20
    assert draws[0] < set(few_shot(split, 10, seed=0).ids)


def test_few_shot_draws_every_image_alike() -> None:
    split = split_of([20, 20])
    hits = np.zeros(20)
    for seed in range(500):
        hits[[int(i[2:5]) for i in few_shot(split, 5, seed=seed).ids if i.startswith("0/")]] += 1
    # 500 draws of a quarter: mean 125, standard deviation 9.7; 4.5 of them
    assert np.abs(hits - 125).max() < 44


def test_an_added_image_leaves_the_other_draws_alone() -> None:
    small = few_shot(split_of([20, 20]), 5, seed=3)
    large = few_shot(split_of([20, 21]), 5, seed=3)
    assert len(set(small.ids) & set(large.ids)) >= 9


def test_short_classes_are_named() -> None:
    with pytest.raises(DataError, match=r"5 shots .* 'class-1' has 3, 'class-2' has 4; ask for fewer"):
        few_shot(split_of([5, 3, 4]), 5, seed=0)
    with pytest.raises(InputError, match="at least 1, got 0"):
        few_shot(split_of([5, 3]), 0, seed=0)
    unlabelled = replace(split_of([2]), labels=np.array([-1, 0]))
    with pytest.raises(InputError, match="unlabelled"):
        few_shot(unlabelled, 1, seed=0)


def test_cap_keeps_small_classes_whole_and_agrees_with_few_shot() -> None:
    split = split_of([2, 9, 9])
    assert cap_per_class(split, 4, seed=1).class_counts() == {"class-0": 2, "class-1": 4, "class-2": 4}
    assert set(few_shot(split, 2, seed=1).ids) < set(cap_per_class(split, 4, seed=1).ids)


def test_parts_are_disjoint_and_exact() -> None:
    split = split_of([10, 12])
    parts = stratified_parts(split.ids, split.labels, {"a": 3, "b": 5}, seed=0)
    assert [np.bincount(split.labels[rows]).tolist() for rows in parts.values()] == [[3, 3], [5, 5]]
    assert not set(parts["a"]) & set(parts["b"])


@given(st.lists(st.integers(3, 40), min_size=1, max_size=5), st.integers(0, 1000))
def test_stratified_cut_is_a_partition_in_proportion(counts: list[int], seed: int) -> None:
    split = split_of(counts)
    parts = stratified_cut(split.ids, split.labels, {"val": 0.2, "test": 0.2}, seed=seed)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(split)))
    for label, count in enumerate(counts):
        for part in ("val", "test"):
            share = (split.labels[parts[part]] == label).sum()
            assert share >= 1
            assert abs(share - 0.2 * count) <= max(0.5, 1 - 0.2 * count)
        assert (split.labels[parts["train"]] == label).any()


def test_a_class_too_small_to_cut_is_refused() -> None:
    split = split_of([5, 2])
    with pytest.raises(ClassTooSmallError) as refusal:
        stratified_cut(split.ids, split.labels, {"val": 0.2, "test": 0.2}, seed=0)
    assert "'class-1' has 2 images, but 3 are needed" in str(refusal.value.named(split.classes))


@settings(max_examples=50)
@given(st.integers(0, 1000))
def test_groups_stay_whole_and_shares_nearly_hold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 300)
    groups = [f"patient-{g}" for g in rng.integers(0, 60, 300)]
    ids = [f"{i}.png" for i in range(300)]
    parts = grouped_cut(ids, labels, groups, {"val": 0.2, "test": 0.2}, seed=seed)
    sides = [{groups[i] for i in rows} for rows in parts.values()]
    assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(300))
    for label in range(3):
        members = (labels == label).sum()
        for name, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
            assert abs((labels[parts[name]] == label).sum() / members - share) < 0.1


def test_one_group_for_a_class_cannot_be_parted() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    with pytest.raises(DataError, match=r"groups are too few|has 1 groups"):
        grouped_cut([str(i) for i in range(6)], labels, list("aabbcc"), {"val": 0.3, "test": 0.3}, seed=0)


def test_shuffle_depends_on_names_not_on_their_order() -> None:
    names = [f"n{i}" for i in range(30)]
    first = [names[i] for i in shuffled_by_name(names, seed=5)]
    names.reverse()
    assert [names[i] for i in shuffled_by_name(names, seed=5)] == first
    assert first != [names[i] for i in shuffled_by_name(names, seed=6)]


def test_parts_cut_by_one_order_are_mixed_by_another_stream() -> None:
    """Half of some names and a tenth of others, as splits keep them: in their own order the tenth all come first."""
    many, few = ([f"{kind}{i}" for i in range(2000)] for kind in "ab")
    kept = [names[i] for names, share in ((many, 1000), (few, 200)) for i in shuffled_by_name(names, seed=0)[:share]]

    def in_front(**stream: int) -> int:
        return sum(kept[i][0] == "b" for i in shuffled_by_name(kept, seed=0, **stream)[:300])

    assert in_front() > 140
    assert in_front(stream=1) == pytest.approx(50, abs=25)  # four deviations

"""Exact neighbours against a sort of all cosines in float64, and what must not change them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import headfirst
from headfirst.errors import DataError, InputError
from headfirst.features import nearest
from headfirst.features.nearest import Rows
from headfirst.types import Features


def brute_force(queries: np.ndarray, features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    q, f = queries.astype(np.float64), features.astype(np.float64)
    cosines = (q @ f.T) / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(f, axis=1)
    order = np.argsort(-np.round(cosines, 12), axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(cosines, order, axis=1)


def rows(count: int, length: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.rand(count, 1, generator=generator) * 50 + 0.01
    return scales * torch.randn(count, length, generator=generator)


def of(values: torch.Tensor) -> Features:
    labels = torch.full((len(values),), -1)
    names = tuple(f"{i}.png" for i in range(len(values)))
    return Features(values=values, labels=labels, classes=(), ids=names, split="unlabelled", source="none")


@pytest.mark.parametrize(("count", "length", "k"), [(1, 1, 1), (40, 3, 40), (3000, 17, 12), (700, 512, 5)])
def test_they_are_those_of_a_sort_in_float64(count: int, length: int, k: int) -> None:
    queries, features = rows(23, length, 0), rows(count, length, 1)
    found = headfirst.nearest(queries, features, k)
    indices, cosines = brute_force(queries.numpy(), features.numpy(), k)
    np.testing.assert_array_equal(found.indices.numpy(), indices)
    np.testing.assert_allclose(found.similarities.numpy(), cosines, rtol=0, atol=6e-8)
    assert found.indices.dtype == torch.int64
    assert found.similarities.dtype == torch.float32


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_blocks_change_no_bit(data: st.DataObject) -> None:
    # Few distinct values and directions, so that there are ties within blocks and across them.
    count, length = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 9))
    seed = data.draw(st.integers(0, 10**6))
    generator = torch.Generator().manual_seed(seed)
    features = torch.randint(-1, 2, (count, length), generator=generator).float()
    features[features.norm(dim=1) == 0] = 1
    queries = features[torch.randint(0, count, (5,), generator=generator)] * 3
    k = data.draw(st.integers(1, count))
    whole = nearest(queries, features, k)
    cut = nearest(
        queries, features, k, query_block=data.draw(st.integers(1, 6)), feature_block=data.draw(st.integers(1, 41))
    )
    assert torch.equal(whole.indices, cut.indices)
    assert torch.equal(whole.similarities, cut.similarities)
    np.testing.assert_array_equal(whole.indices.numpy(), brute_force(queries.numpy(), features.numpy(), k)[0])


def test_large_blocks_of_real_lengths_change_no_bit() -> None:
    features = rows(5000, 192, 3)
    features[2500:] = features[:2500] * 7  # every feature has a copy in another block
    queries = features[:40] + rows(40, 192, 4) / 10
    whole = nearest(queries, features, 30)
    for sizes in ((1, 5000), (40, 7 * 64), (7, 999)):
        cut = nearest(queries, features, 30, query_block=sizes[0], feature_block=sizes[1])
        assert torch.equal(whole.indices, cut.indices)
        assert torch.equal(whole.similarities, cut.similarities)


def test_ties_go_to_the_lower_row() -> None:
    direction = rows(1, 64, 5)
    features = torch.cat([-direction, direction * 3, direction, direction * 0.1, direction * 1e4])
    assert nearest(direction, features, 5).indices.tolist() == [[1, 2, 3, 4, 0]]
    assert nearest(direction, features, 5, feature_block=2).indices.tolist() == [[1, 2, 3, 4, 0]]
    assert nearest(direction, features, 2, feature_block=1).indices.tolist() == [[1, 2]]
    assert nearest(direction, features, 5).similarities.tolist() == [[1, 1, 1, 1, -1]]


def test_a_block_of_copies_does_not_crowd_out_what_is_nearer() -> None:
    # 3,000 features that differ from the query by less than a float32 product can resolve, one that is nearer still.
    query = torch.zeros(1, 256, dtype=torch.float64)
    query[0, 0] = 1
    features = query.repeat(3000, 1)
    features[:, 1] = 1e-4 * torch.linspace(1, 2, 3000, dtype=torch.float64).flip(0)
    features[1234, 1] = 0
    found = nearest(query, features, 3, feature_block=500)
    assert found.indices.tolist() == [[1234, 2999, 2998]]


def test_everything_finds_itself_first() -> None:
    features = rows(2500, 48, 6)
    found = nearest(features, features, 2)
    assert torch.equal(found.indices[:, 0], torch.arange(2500))
    assert torch.equal(found.similarities[:, 0], torch.ones(2500))
    assert (found.similarities[:, 1] < 1).all()


def test_neither_norms_nor_number_types_matter() -> None:
    queries, features = rows(9, 20, 7), rows(300, 20, 8)
    found = nearest(queries, features, 6)
    for other in (features.double(), features.double() * 1e120, features * 1e30, features * 1e-30):
        assert torch.equal(nearest(queries, other, 6).indices, found.indices)
    half = features.bfloat16()
    assert torch.equal(nearest(queries, half, 6).indices, nearest(queries, half.float(), 6).indices)


def test_a_coarser_matrix_product_changes_nothing() -> None:
    queries, features = rows(30, 96, 9), rows(2000, 96, 10)
    found = nearest(queries, features, 8)
    torch.set_float32_matmul_precision("medium")
    try:
        coarse = nearest(queries, features, 8)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(coarse.indices, found.indices)
    assert torch.equal(coarse.similarities, found.similarities)


def test_features_and_an_empty_list_of_queries_are_taken() -> None:
    features = of(rows(50, 8, 11))
    assert torch.equal(nearest(features, features, 3).indices, nearest(features.values, features.values, 3).indices)
    found = nearest(torch.empty(0, 8), features, 3)
    assert found.indices.shape == found.similarities.shape == (0, 3)


def test_inputs_stay_as_they_were() -> None:
    queries, features = rows(3, 8, 12).requires_grad_(), rows(50, 8, 13)
    before = features.clone()
    assert not nearest(queries, features, 3).similarities.requires_grad
    assert torch.equal(features, before)


def test_a_memory_map_is_not_copied_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("memory is read from /proc")
    np.save(tmp_path / "f.npy", np.random.default_rng(0).standard_normal((100_000, 256), dtype=np.float32))
    values = torch.from_numpy(np.load(tmp_path / "f.npy", mmap_mode="c"))

    def anonymous() -> int:
        line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) * 1024

    measured, sizes = Rows.measured, []
    monkeypatch.setattr(Rows, "measured", lambda self, *rows: sizes.append(anonymous()) or measured(self, *rows))
    nearest(values[:64], values[:9000], 5)  # what the libraries take for themselves
    before = anonymous()
    sizes.clear()
    found = nearest(values[:64], values, 5)
    assert torch.equal(found.indices[:, 0], torch.arange(64))
    assert len(sizes) > 20
    assert max(sizes) - before < values.nbytes / 2


@pytest.mark.parametrize("k", [0, -1, 51])
def test_k_is_between_one_and_their_number(k: int) -> None:
    with pytest.raises(InputError, match=rf"between 1 and the number of features, which is 50, got {k}"):
        nearest(rows(3, 8, 0), rows(50, 8, 1), k)


def test_what_has_no_direction_is_refused() -> None:
    queries, features = rows(3, 8, 0), rows(50, 8, 1)
    zero, bad = features.clone(), features.clone()
    zero[17], bad[33, 2] = 0, torch.nan
    with pytest.raises(DataError, match="row 17 of the features is zero"):
        nearest(queries, zero, 3)
    with pytest.raises(DataError, match=r"row 33, '33.png', of the features is not finite"):
        nearest(queries, of(bad), 3, feature_block=4)
    with pytest.raises(DataError, match="row 2 of the queries is not finite"):
        nearest(torch.cat([queries[:2], torch.full((1, 8), torch.inf)]), features, 3)


def test_other_shapes_and_types_are_refused() -> None:
    with pytest.raises(InputError, match="same length, got 8 and 9"):
        nearest(rows(3, 8, 0), rows(50, 9, 1), 3)
    with pytest.raises(InputError, match=r"queries must be a floating tensor .* shape \(8,\)"):
        nearest(torch.ones(8), rows(50, 8, 1), 3)
    with pytest.raises(InputError, match=r"features must be a floating tensor .*int64"):
        nearest(rows(3, 8, 0), torch.ones(5, 8, dtype=torch.int64), 3)
    with pytest.raises(InputError, match="feature_block must be at least 1, got 0"):
        nearest(rows(3, 8, 0), rows(50, 8, 1), 3, feature_block=0)


def test_planted_ties_are_broken_the_other_way_only_if_the_rows_are_reversed() -> None:
    features = of(rows(6, 5, 2)).take([0, 1, 0, 1, 0, 1])
    backwards = replace(features, values=features.values.flip(0))
    forwards, reverse = nearest(features, features, 6).indices, nearest(features, backwards, 6).indices
    assert forwards[0].tolist() == [0, 2, 4, 1, 3, 5]
    assert reverse[0].tolist() == [1, 3, 5, 0, 2, 4]

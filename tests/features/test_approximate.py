"""The graph's neighbours against the exact ones; its recall counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from headfirst.errors import DataError, InputError
from headfirst.features import Graph, Nearest, measured_recall, nearest, recall

usearch = pytest.importorskip("usearch", reason="the extra `index` is not installed")


def clustered(count: int, length: int = 24, *, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(40, length, generator=torch.Generator().manual_seed(99))
    return 3 * (centres[torch.arange(count) % 40] + 0.5 * torch.randn(count, length, generator=random))


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    return clustered(3000)


@pytest.fixture(scope="module")
def graph(features: torch.Tensor) -> Graph:
    return Graph.build(features, threads=1)


def test_what_it_finds_is_ranked_as_exactly_as_ever(graph: Graph, features: torch.Tensor) -> None:
    queries = clustered(60, seed=1)
    found, exact = graph.nearest(queries, features, 10), nearest(queries, features, 10)
    same = (found.indices == exact.indices).all(dim=1)
    assert same.double().mean() > 0.9
    assert torch.equal(found.similarities[same], exact.similarities[same])
    assert recall(found, exact).mean() > 0.98


def test_one_query_and_none_are_answered_like_many(graph: Graph, features: torch.Tensor) -> None:
    queries = clustered(5, seed=2)
    many = graph.nearest(queries, features, 3)
    for i in range(5):
        assert torch.equal(graph.nearest(queries[i : i + 1], features, 3).indices, many.indices[i : i + 1])
    assert graph.nearest(queries[:0], features, 3).indices.shape == (0, 3)


def test_all_of_a_small_index_are_found(features: torch.Tensor) -> None:
    few = features[:30]
    found = Graph.build(few, threads=1).nearest(few, few, 30)
    assert torch.equal(found.indices, nearest(few, few, 30).indices)


def test_a_graph_that_falls_short_is_not_believed(
    graph: Graph, features: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposed = graph._proposed
    monkeypatch.setattr(graph, "_proposed", lambda *given: [rows[:2] for rows in proposed(*given)])
    queries = clustered(4, seed=3)
    assert torch.equal(graph.nearest(queries, features, 5).indices, nearest(queries, features, 5).indices)


def test_it_comes_back_from_its_file(graph: Graph, features: torch.Tensor, tmp_path: Path) -> None:
    graph.save(tmp_path / "graph.usearch")
    queries = clustered(20, seed=4)
    again = Graph.load(tmp_path / "graph.usearch")
    assert len(again) == 3000
    assert torch.equal(again.nearest(queries, features, 7).indices, graph.nearest(queries, features, 7).indices)


def test_recall_is_counted_by_similarity() -> None:
    def found(indices: list[list[int]], similarities: list[list[float]]) -> Nearest:
        return Nearest(indices=torch.tensor(indices), similarities=torch.tensor(similarities))

    exact = found([[0, 1, 2], [3, 4, 5]], [[0.9, 0.8, 0.7], [0.9, 0.5, 0.5]])
    other = found([[0, 2, 7], [3, 5, 6]], [[0.9, 0.7, 0.6], [0.9, 0.5, 0.5]])
    assert recall(other, exact).tolist() == pytest.approx([2 / 3, 1])  # 6 is as near as 4: an equal


def test_measured_recall_leaves_the_query_itself_out(
    graph: Graph, features: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = measured_recall(graph, features, k=10, num_queries=100)
    assert 0.97 < good.value <= 1
    assert good.low < good.high
    # A graph that finds each query itself and then a stranger, its opposite.
    monkeypatch.setattr(
        graph,
        "nearest",
        lambda queries, rows, k: Nearest(
            indices=torch.cat([nearest(queries, rows, 1).indices, nearest(-queries, rows, k - 1).indices], dim=1),
            similarities=torch.cat(
                [nearest(queries, rows, 1).similarities, -nearest(-queries, rows, k - 1).similarities], dim=1
            ),
        ),
    )
    assert measured_recall(graph, features, k=10, num_queries=100).value == 0


def test_the_same_features_give_the_same_graph_on_one_thread(features: torch.Tensor, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Graph.build(features[:500], threads=1).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_refusals(graph: Graph, features: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="the graph is of 3000 features, got 2999"):
        graph.nearest(features[:2], features[:2999], 3)
    with pytest.raises(InputError, match="between 1 and the number of features, which is 3000, got 3001"):
        graph.nearest(features[:2], features, 3001)
    with pytest.raises(DataError, match="row 1 of the features is zero"):
        Graph.build(torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
    monkeypatch.setitem(__import__("sys").modules, "usearch.index", None)
    with pytest.raises(InputError, match=r"needs usearch; pip install 'headfirst\[index\]'"):
        Graph.build(features)


def test_types_are_those_of_nearest(graph: Graph, features: torch.Tensor) -> None:
    found = graph.nearest(features[:2], features, 3)
    assert (found.indices.dtype, found.similarities.dtype) == (torch.int64, torch.float32)
    assert np.all(found.indices[:, 0].numpy() == [0, 1])

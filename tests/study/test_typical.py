"""TypiClust on planted clusters: who comes first, who last, who never; typicality against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from headfirst.errors import InputError
from headfirst.study.typical import most_typical, neighbour_distances


def planted(sizes: list[int], *, spread: float = 0.05, seed: int = 0) -> Tensor:
    """Clusters of these sizes around orthogonal directions, one after the other."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.eye(len(sizes), 16).repeat_interleave(torch.tensor(sizes), dim=0)
    return centres + spread * torch.randn(centres.shape, generator=random)


def cluster_of(row: int, sizes: list[int]) -> int:
    return int(np.searchsorted(np.cumsum(sizes), row, side="right"))


def test_each_cluster_gives_one_the_largest_first() -> None:
    sizes = [10, 40, 20, 30]
    chosen = most_typical(planted(sizes), torch.zeros(0, 16), budget=4)
    assert [cluster_of(c.row, sizes) for c in chosen] == [1, 3, 2, 0]
    assert [c.size for c in chosen] == [40, 30, 20, 10]
    assert [c.labels for c in chosen] == [0, 0, 0, 0]


def test_clusters_with_labels_come_after_all_others() -> None:
    sizes = [40, 30, 20, 10]
    x = planted(sizes)
    labelled = [0, 1, 40]  # two of the largest cluster, one of the second
    rest = [i for i in range(100) if i not in labelled]
    # As many clusters as there are planted ones: L + budget would cut them up.
    chosen = most_typical(x[rest], x[labelled], budget=1)
    assert cluster_of(rest[chosen[0].row], sizes) == 2
    assert chosen[0].labels == 0


def test_a_second_image_of_a_cluster_comes_when_every_other_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [40, 30, 20, 10]
    monkeypatch.setattr("headfirst.study.typical.MOST_CLUSTERS", 4)
    x = planted(sizes)
    rest = list(range(2, 100))
    chosen = most_typical(x[rest], x[:2], budget=9)
    order = [cluster_of(rest[c.row], sizes) for c in chosen]
    assert order[:3] == [1, 2, 3]  # none of these is labelled
    assert order[3:6] == [1, 2, 3]  # one each, against two in the largest
    assert order[6:] == [0, 1, 2]  # two each: now size alone counts
    assert len({c.row for c in chosen}) == 9


def test_outliers_are_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [40, 30, 20]
    random = torch.Generator().manual_seed(1)
    outliers = torch.nn.functional.normalize(torch.randn(4, 16, generator=random), dim=1)
    outliers[:, :3] = 0  # far from every cluster
    x = torch.cat([outliers, planted(sizes)])
    chosen = most_typical(x, torch.zeros(0, 16), budget=7)
    assert all(c.row >= 4 for c in chosen)
    # Only when nothing else is left does an outlier's turn come.
    monkeypatch.setattr("headfirst.study.typical.MOST_CLUSTERS", 7)
    everyone = most_typical(x, torch.zeros(0, 16), budget=94)
    assert sorted(c.row for c in everyone) == list(range(94))
    assert {c.row for c in everyone[-4:]} == {0, 1, 2, 3}


def test_in_a_cluster_the_densest_image_is_chosen() -> None:
    x = planted([50, 50])
    (first, second) = most_typical(x, torch.zeros(0, 16), budget=2)
    unit = (x / x.norm(dim=1, keepdim=True)).double().numpy()
    for choice in (first, second):
        members = unit[:50] if choice.row < 50 else unit[50:]
        distances = np.sort(cdist(members, members), axis=1)[:, 1:21].mean(axis=1)
        assert distances.argmin() == choice.row % 50
        assert choice.distance == pytest.approx(distances.min())


@pytest.mark.parametrize(("m", "k"), [(2, 1), (9, 4), (40, 20), (300, 20)])
def test_neighbour_distances_are_brute_force(m: int, k: int) -> None:
    x = torch.randn(m, 5, generator=torch.Generator().manual_seed(m)).double()
    expected = np.sort(cdist(x.numpy(), x.numpy()), axis=1)[:, 1 : k + 1].mean(axis=1)
    np.testing.assert_allclose(neighbour_distances(x).numpy(), expected, atol=1e-7)


def test_the_same_seed_gives_the_same_list_and_length_changes_nothing() -> None:
    x = planted([40, 30, 20], spread=0.4)
    chosen = most_typical(x, x[:0], budget=12, seed=3)
    again = most_typical(7 * x, x[:0], budget=12, seed=3)
    assert [c.row for c in again] == [c.row for c in chosen]


def test_few_or_equal_images_are_all_listed() -> None:
    same = torch.ones(5, 3)
    assert sorted(c.row for c in most_typical(same, same, budget=8)) == [0, 1, 2, 3, 4]


def test_refusals() -> None:
    with pytest.raises(InputError, match="at least 1, got 0"):
        most_typical(torch.ones(2, 2), torch.ones(0, 2), budget=0)
    with pytest.raises(InputError, match="no unlabelled images"):
        most_typical(torch.ones(0, 2), torch.ones(2, 2), budget=1)
    with pytest.raises(InputError, match="finite"):
        most_typical(torch.full((2, 2), torch.nan), torch.ones(2, 2), budget=1)
